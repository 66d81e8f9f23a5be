"""The facts on the card, each read from one key of `run.json` or `evaluation.json`.

Every field below names its key and the check that its value must pass. Nothing is guessed and
nothing has a default: a gap, a value that cannot be true, or two files that do not belong together
stop the card with one line. Of evaluation.json only format 2 is known here: whoever has an older
file upgrades it first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from model_card import checks
from model_card.checks import CURES, FactError, MissingFactError
from model_card.sections.blocks import BLOCKS

__all__ = ["CardFacts", "FactError", "Metric", "MissingFactError"]

REDUCTION = checks.fields(
    short_side=checks.positive, jpeg_quality=checks.positive, subsampling=checks.text
)
CUT = checks.fields(of=checks.text, fraction=checks.share, seed=checks.whole, content=checks.sha256)
LORA = checks.fields(
    rank=checks.positive, alpha=checks.amount, dropout=checks.share, target_modules=checks.texts,
    peft=checks.text,
)  # fmt: skip
AS_VIT = checks.fields(
    model_type=checks.text,
    done=checks.text,
    positions=checks.grids,
    difference=checks.amount,
)
PROBE = checks.fields(
    learning_rate=checks.amount,  # for 256 images a step
    epochs=checks.amount,
    selection_top1=checks.rows(
        learning_rate=checks.amount,
        top1=checks.optional(checks.share),  # null: scores that are not finite
    ),
)
# A probe by logistic regression.
SWEEP = checks.fields(
    solver=checks.one_of("logistic_regression"),
    strength=checks.amount,  # of the L2 penalty, an image
    strengths=checks.rows(strength=checks.amount),
    folds=checks.positive,
    num_images=checks.positive,
    num_scored=checks.positive,
    fitted_on=checks.text,
)
# tune -> what was trained ("all weights", "head" or "adapters"), and whether a probe found the head before.
TUNINGS = {
    "full": ("all weights", False),
    "linear_probe": ("head", False),
    "probe_then_full": ("all weights", True),
    "lora": ("adapters", False),
    "probe_then_lora": ("adapters", True),
}
CROSS_VALIDATION = checks.fields(folds=checks.positive, images=checks.positive)


def probed(value: Any) -> dict[str, Any]:
    """Accept what a probe chose: among strengths of a logistic regression, or among rates of SGD."""
    by_sgd = isinstance(value, dict) and value.get("solver", "sgd") == "sgd"
    return PROBE(value) if by_sgd else SWEEP(value)


METRICS = checks.objects(
    name=checks.text,
    value=checks.amount,
    interval=checks.optional(checks.interval),  # null: none is known
    unit=checks.text,
    hub_type=checks.text,
    less_is_better=checks.one_of(True, False),
)


@dataclass(frozen=True)
class Metric:
    """A metric as evaluation.json describes it."""

    key: str
    name: str
    value: float
    interval: tuple[float, float] | None  # (low, high); None: none is known
    unit: str  # "share": value and interval are from 0 to 1; else words, "nats per image"
    hub_type: str  # metric type in the model-index
    less_is_better: bool

    @property
    def is_share(self) -> bool:
        """Say whether the value is from 0 to 1, to be written in percent."""
        return self.unit == "share"


def described_metrics(value: Any) -> tuple[Metric, ...]:
    """Accept an object that describes metrics: {"top1": {"name": ..., "value": ...}, ...}.

    A share and its bounds must be from 0 to 1, any other value 0 or more.
    """
    metrics = tuple(Metric(key, **row) for key, row in METRICS(value).items())
    for metric in metrics:
        for bound in (metric.value, *(metric.interval or ())):
            if metric.is_share and not 0 <= bound <= 1:
                raise ValueError(f"an object with shares from 0 to 1 in .{metric.key}")
    return metrics


def fact(source: str, check: Callable[[Any], Any]) -> Any:
    """Declare a field of CardFacts, read from `source` through `check`.

    Args:
        source: file and key, as "run.model.id" or "evaluation.n".
        check: see `model_card.checks`.
    """
    return field(metadata={"source": source, "check": check})


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card states. Shares are from 0 to 1, durations in seconds."""

    # The run
    run_format: int = fact("run.format", checks.one_of(1))
    recipe_name: str = fact("run.recipe_name", checks.text)
    command: str = fact("run.command", checks.text)
    started: str = fact("run.started", checks.text)  # ISO 8601, UTC
    finished: str = fact("run.finished", checks.text)
    seconds_data: float = fact("run.seconds.data", checks.amount)
    seconds_train: float = fact("run.seconds.train", checks.amount)
    seconds_total: float = fact("run.seconds.total", checks.amount)
    versions: tuple[tuple[str, str], ...] = fact("run.versions", checks.versions)
    code_sha256: str = fact("run.code_sha256", checks.sha256)

    # The model
    base_model: str | None = fact("run.model.id", checks.optional(checks.text))  # null: scratch
    base_revision: str | None = fact("run.model.revision", checks.optional(checks.text))
    base_license: str | None = fact("run.model.license", checks.optional(checks.text))
    architecture: str = fact("run.model.architecture", checks.text)
    num_parameters: int = fact("run.model.num_parameters", checks.positive)
    image_size: int = fact("run.model.image_size", checks.positive)  # pixels a side
    patch_size: int | None = fact("run.model.patch_size", checks.optional(checks.positive))
    head_init_scale: float | None = fact(  # null: the head came with the checkpoint
        "run.model.head_init_scale", checks.optional(checks.share)
    )
    weight_init: str | None = fact(  # null: the weights came with the checkpoint
        "run.model.weight_init", checks.later(checks.one_of("normal", "mimetic"))
    )
    # null: the checkpoint was loaded as it is
    as_vit: dict[str, Any] | None = fact("run.model.as_vit", checks.later(AS_VIT))

    # The data
    dataset: str = fact("run.data.dataset", checks.text)
    source: str = fact("run.data.source", checks.one_of("hub", "local", "sample"))
    data_revision: str | None = fact("run.data.revision", checks.optional(checks.text))
    fingerprint: str = fact("run.data.fingerprint", checks.sha256)
    train_split: str = fact("run.data.train_split", checks.text)
    test_split: str = fact("run.data.test_split", checks.text)
    num_train: int = fact("run.data.num_train", checks.positive)
    num_selection: int = fact("run.data.num_selection", checks.positive)
    num_test: int = fact("run.data.num_test", checks.positive)
    # null: the selection images are a split of the data set, `selection_split`
    selection_fraction: float | None = fact(
        "run.data.selection_fraction", checks.optional(checks.share)
    )
    selection_split: str | None = fact("run.data.selection_split", checks.later(checks.text))
    # null: the test images are a split of the data set
    test_cut: dict[str, Any] | None = fact("run.data.test_cut", checks.later(CUT))
    split_seed: int = fact("run.data.split_seed", checks.whole)
    left_out_train: int = fact("run.data.left_out.train", checks.whole)
    left_out_test: int = fact("run.data.left_out.test", checks.whole)
    identical_train_test: int = fact("run.data.identical_train_test", checks.whole)
    # null: the training images were the originals
    train_cache: dict[str, Any] | None = fact("run.data.train_cache", checks.later(REDUCTION))
    label_names: tuple[str, ...] = fact("run.data.label_names", checks.names)

    # The training, as it really was
    world_size: int = fact("run.training.world_size", checks.positive)
    device: str = fact("run.training.device", checks.text)
    mixed_precision: str = fact("run.training.mixed_precision", checks.text)
    # absent in runs from before there was a choice, null in those without a probe
    tune: str | None = fact("run.training.tune", checks.later(checks.one_of(*TUNINGS)))
    probe: dict[str, Any] | None = fact("run.training.probe", checks.later(probed))
    # null here and in the keys of `STEPWISE`: a logistic regression has none
    batch_total: int | None = fact(
        "run.training.total_train_batch_size", checks.optional(checks.positive)
    )
    batch_device: int | None = fact(
        "run.training.per_device_train_batch_size", checks.optional(checks.positive)
    )
    accumulation: int | None = fact(
        "run.training.gradient_accumulation_steps", checks.optional(checks.positive)
    )
    epochs: float | None = fact("run.training.num_train_epochs", checks.optional(checks.amount))
    steps: int = fact("run.training.steps", checks.positive)
    learning_rate: float | None = fact("run.training.learning_rate", checks.optional(checks.amount))
    schedule: str | None = fact("run.training.lr_scheduler_type", checks.optional(checks.text))
    warmup: float | None = fact(
        "run.training.warmup_steps", checks.optional(checks.amount)
    )  # below 1: share of steps
    weight_decay: float | None = fact("run.training.weight_decay", checks.optional(checks.amount))
    optimizer: str = fact("run.training.optimizer", checks.text)
    # null: no adapters, or a run from before there was LoRA
    lora: dict[str, Any] | None = fact("run.training.lora", checks.later(LORA))
    num_trainable: int | None = fact(
        "run.training.num_trainable_parameters", checks.later(checks.positive)
    )
    loss: str = fact("run.training.loss.name", checks.text)
    loss_q: float | None = fact("run.training.loss.q", checks.optional(checks.share))
    label_smoothing: float = fact("run.training.label_smoothing_factor", checks.share)
    # in words; absent in runs from before they were recorded, whose card makes them of the next four
    further: tuple[str, ...] | None = fact("run.training.further", checks.later(checks.any_texts))
    layer_decay: float = fact("run.training.optimization.layer_decay", checks.share)
    drop_path: float = fact("run.training.optimization.drop_path", checks.share)
    ema_decay: float | None = fact(
        "run.training.optimization.ema_decay", checks.optional(checks.share)
    )
    patience: int | None = fact(
        "run.training.optimization.early_stopping_patience", checks.optional(checks.positive)
    )
    stopped_early: bool = fact("run.training.stopped_early", checks.one_of(True, False))
    seed: int = fact("run.training.seed", checks.whole)
    data_seed: int | None = fact("run.training.data_seed", checks.optional(checks.whole))
    images_per_second: float | None = fact(  # null: no step was left after a resume
        "run.training.images_per_second", checks.optional(checks.amount)
    )
    augmentation: tuple[tuple[str, Any], ...] = fact("run.training.augmentation", checks.pairs)

    # The choice of the checkpoint, on the selection slice of the training data
    selection_metric: str = fact("run.selection.metric", checks.text)
    selection_top1: float = fact("run.selection.top1", checks.share)
    selection_n: int = fact("run.selection.n", checks.positive)
    best_step: int = fact("run.selection.best_step", checks.whole)
    best_epoch: float = fact("run.selection.best_epoch", checks.amount)
    # null: the selection images chose, and nothing was learned from them
    cross_validation: dict[str, int] | None = fact(
        "run.selection.cross_validation", checks.later(CROSS_VALIDATION)
    )

    # The evaluation: what was scored
    eval_format: int = fact("evaluation.format", checks.one_of(2))
    eval_source: str = fact("evaluation.source", checks.one_of("hub", "local", "sample"))
    eval_revision: str | None = fact("evaluation.dataset_revision", checks.optional(checks.text))
    eval_fingerprint: str = fact("evaluation.dataset_fingerprint", checks.sha256)
    eval_split: str = fact("evaluation.split", checks.text)
    n: int = fact("evaluation.n", checks.positive)
    eval_left_out: int = fact("evaluation.left_out", checks.whole)
    model_sha256: str = fact("evaluation.model_sha256", checks.sha256)

    # The evaluation: what came out
    metrics: tuple[Metric, ...] = fact("evaluation.metrics", described_metrics)
    interval_method: str = fact("evaluation.interval_method", checks.text)
    # What each block of `BLOCKS` shows, by the block's key, as its check returned it
    sections: dict[str, Any]

    # The evaluation: how it was done
    eval_seed: int = fact("evaluation.seed", checks.whole)
    eval_precision: str = fact("evaluation.precision", checks.text)
    preprocessing: tuple[tuple[str, Any], ...] = fact("evaluation.preprocessing", checks.pairs)
    eval_height: int = fact("evaluation.preprocessing.height", checks.positive)  # pixels
    eval_width: int = fact("evaluation.preprocessing.width", checks.positive)
    resample: str = fact("evaluation.preprocessing.resample", checks.text)
    image_mean: tuple[float, ...] = fact("evaluation.preprocessing.image_mean", checks.channels)
    image_std: tuple[float, ...] = fact("evaluation.preprocessing.image_std", checks.channels)
    rescale_factor: float = fact("evaluation.preprocessing.rescale_factor", checks.amount)
    decoder: str = fact("evaluation.preprocessing.decoder", checks.text)
    eval_device: str = fact("evaluation.device", checks.text)
    eval_world_size: int = fact("evaluation.world_size", checks.positive)
    eval_batch_size: int = fact("evaluation.batch_size", checks.positive)
    eval_versions: tuple[tuple[str, str], ...] = fact("evaluation.versions", checks.versions)
    eval_created: str = fact("evaluation.created", checks.text)

    @classmethod
    def from_folder(cls, folder: Path) -> "CardFacts":
        """Read `run.json` and `evaluation.json` (format 2) of a run or release folder.

        Raises:
            MissingFactError, FactError: as `from_json`, and where a file is absent or is not JSON.
        """
        return cls.from_json(
            checks.read_json(folder / "run.json"), checks.read_json(folder / "evaluation.json")
        )

    @classmethod
    def from_json(cls, run: Any, evaluation: Any) -> "CardFacts":
        """Check the parsed content of `run.json` and of `evaluation.json` (format 2).

        Raises:
            MissingFactError: a fact is not there.
            FactError: a value cannot be true, or the files do not belong together. Both errors are
                ValueErrors of one line: file, key, cure.
        """
        files = {"run.json": run, "evaluation.json": evaluation}
        values = {
            item.name: checks.read_value(files, **item.metadata)
            for item in fields(cls)
            if item.metadata
        }
        sections = {
            block.key: checks.read_value(files, f"evaluation.{block.key}", block.check)
            for block in BLOCKS
            if block.required or evaluation.get(block.key) is not None
        }
        facts = cls(**values, sections=sections)
        _check_together(facts)
        _check_numbers(facts)
        return facts

    @property
    def is_probe(self) -> bool:
        """Say whether a head on frozen features is all that was trained."""
        return self._tuning[0] == "head"

    @property
    def is_adapted(self) -> bool:
        """Say whether LoRA's adapters were trained, and merged."""
        return self._tuning[0] == "adapters"

    @property
    def is_probed_first(self) -> bool:
        """Say whether a linear probe found the head before the rest was trained."""
        return self._tuning[1]

    @property
    def is_logistic(self) -> bool:
        """Say whether a logistic regression is all the training that there was: without steps of a schedule."""
        return self.is_probe and "strength" in (self.probe or {})

    @property
    def _tuning(self) -> tuple[str, bool]:
        # A run from before there was a choice trained everything.
        return TUNINGS["full" if self.tune is None else self.tune]

    def metric(self, key: str) -> Metric | None:
        """Look up a metric by its key in evaluation.json; None where it was not computed."""
        return next((metric for metric in self.metrics if metric.key == key), None)


# Facts that only a logistic regression does without, with the key of each in run.json.
STEPWISE = {
    "batch_total": "training.total_train_batch_size",
    "batch_device": "training.per_device_train_batch_size",
    "accumulation": "training.gradient_accumulation_steps",
    "epochs": "training.num_train_epochs",
    "learning_rate": "training.learning_rate",
    "schedule": "training.lr_scheduler_type",
    "warmup": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
}


def _check_together(facts: CardFacts) -> None:
    """Refuse an evaluation of other data than the run's, and a gap that depends on another fact."""
    if facts.source == "hub" and facts.data_revision is None:
        raise MissingFactError(f"run.json has no data.revision: {CURES['run.json']}")
    has_probe = facts.is_probe or facts.is_probed_first
    for needed, is_needed in (("probe", has_probe), ("lora", facts.is_adapted)):
        if is_needed and getattr(facts, needed) is None:
            raise MissingFactError(f"run.json has no training.{needed}: {CURES['run.json']}")
    for name, source in STEPWISE.items():
        if not facts.is_logistic and getattr(facts, name) is None:
            raise MissingFactError(f"run.json has no {source}: {CURES['run.json']}")
    per_class = facts.sections["per_class"]
    expected = {
        "source": (facts.source, facts.eval_source),
        "dataset_revision": (facts.data_revision, facts.eval_revision),
        "dataset_fingerprint": (facts.fingerprint, facts.eval_fingerprint),
        "split": (facts.test_split, facts.eval_split),
        "n": (facts.num_test, facts.n),
        "left_out": (facts.left_out_test, facts.eval_left_out),
        "per_class labels": (set(facts.label_names), {row["label"] for row in per_class}),
        "per_class n, summed,": (facts.num_test, sum(row["n"] for row in per_class)),
    }
    for key, (run, evaluation) in expected.items():
        if run != evaluation:
            detail = f"{evaluation!r}, but {run!r} in run.json" if isinstance(run, int) else "other"
            raise FactError(f"evaluation.json is of another run ({key}: {detail}): evaluate again")


def _check_numbers(facts: CardFacts) -> None:
    """Refuse an evaluation without its headline, and numbers that contradict each other."""
    top1 = facts.metric("top1")
    if top1 is None or top1.interval is None:
        gap = "metrics.top1" + (".interval" if top1 else "")
        raise MissingFactError(f"evaluation.json has no {gap}: {CURES['evaluation.json']}")
    for metric in facts.metrics:
        low, high = metric.interval or (metric.value, metric.value)
        if not low - 1e-9 <= metric.value <= high + 1e-9:
            raise FactError(
                f"evaluation.json: metrics.{metric.key}.value lies outside its interval"
            )
    for row in facts.sections["per_class"]:
        if (row["recall"] is None) != (row["n"] == 0):
            raise FactError(
                f"evaluation.json: per_class recall of {row['label']!r} contradicts its n"
            )
