"""The recipe's keys about training: what is trained, by which loss, and what Trainer is told.

Only the standard library is imported; `training_arguments` makes transformers' class of `TrainerKeys`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from training.common.arguments import check_ranges, key
from training.common.errors import UserError

ALL_WEIGHTS, HEAD_ALONE, ADAPTERS = "all weights", "head", "adapters"


@dataclass(frozen=True)
class Tuning:
    """What a value of `tune` means; whoever must know of a method asks here, not its name.

    Attributes:
        trains: ALL_WEIGHTS; the HEAD_ALONE, on frozen features; or the ADAPTERS of LoRA, and the head.
        probes_first: whether a linear probe finds the head before.
    """

    trains: str
    probes_first: bool = False

    @property
    def probes(self) -> bool:
        """Tell whether there is a linear probe, alone or before something else."""
        return self.probes_first or self.trains == HEAD_ALONE

    @property
    def freezes(self) -> bool:
        """Tell whether weights stay as they are, if only in a first phase."""
        return self.probes_first or self.trains != ALL_WEIGHTS


TUNINGS = {
    "full": Tuning(ALL_WEIGHTS),
    "linear_probe": Tuning(HEAD_ALONE),
    "probe_then_full": Tuning(ALL_WEIGHTS, probes_first=True),
    "lora": Tuning(ADAPTERS),
    "probe_then_lora": Tuning(ADAPTERS, probes_first=True),
}
METHODS = tuple(TUNINGS)
LOSSES = ("cross_entropy", "generalized_cross_entropy")
MAX_RATE = 1e6  # far beyond use; float32 ends much further on
MAX_SEED = 2**32 - 1  # numpy's


@dataclass(frozen=True)
class LossArguments:
    """The recipe's keys about the training loss."""

    loss: str = key(
        "cross_entropy",
        "the second is for noise (of labels, arXiv:1805.07836)",
        choices=LOSSES,
        usual=True,
    )
    gce_q: float = key(
        0.7,
        "its q: near 0 it is the cross-entropy, at 1 the mean absolute error",
        at_least=1e-3,
        at_most=1,
        give="a number from 0.001 to 1",
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def generalized_q(self) -> float | None:
        """Give q of the generalised cross-entropy; None where the plain cross-entropy is trained on."""
        return self.gce_q if self.loss == "generalized_cross_entropy" else None


@dataclass(frozen=True)
class MethodArguments:
    """The recipe's keys about which weights are trained."""

    tune: str = key(
        "full",
        "which weights (LoRA: arXiv:2106.09685; a probe's head first: arXiv:2202.10054)",
        choices=METHODS,
        usual=True,
    )
    lora_rank: int = key(
        16, "rank of the update of each matrix", at_least=1, note=" (4 to 64 is usual)", usual=True
    )
    lora_alpha: float = key(
        16.0,
        "the update counts lora_alpha / lora_rank times",
        above=0,
        below=MAX_RATE,
        give=f"a number above 0, below {MAX_RATE:,.0f}",
    )
    lora_dropout: float = key(
        0.0,
        "dropout on the update's input, drawn by torch: process by process",
        at_least=0,
        below=1,
    )
    lora_target_modules: list[str] = key(
        ["q_proj", "v_proj"],
        "last names of the linear layers that are adapted; the head is trained in full",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.lora_target_modules:
            raise UserError(
                "lora_target_modules is empty: give names of linear layers, as q_proj v_proj"
            )
        if self.tuning.trains == ADAPTERS and importlib.util.find_spec("peft") is None:
            raise UserError(
                f'tune is {self.tune} and peft is not installed: pip install -e ".[lora]", or make setup'
            )

    @property
    def tuning(self) -> Tuning:
        """Look up what `tune` means."""
        return TUNINGS[self.tune]


@dataclass(frozen=True)
class ExtensionArguments:
    """The recipe's keys about what timm's recipes have beside optimizer and schedule; all are off by default."""

    layer_decay: float = key(
        1.0,
        "learning rate of a ViT block as a share of the next one's (BEiT, arXiv:2106.08254)",
        above=0,
        at_most=1,
        note=" (0.65 to 0.9 is usual)",
        card="layer-wise learning-rate decay {}",
        usual=True,
    )
    drop_path: float = key(
        0.0,
        "stochastic depth, the rate of the last ViT block (arXiv:1603.09382)",
        at_least=0,
        below=1,
        note=" (0.1 to 0.3 is usual)",
        card="stochastic depth up to {}",
        usual=True,
    )
    ema_decay: float | None = key(
        None,
        "score and keep a moving average of the weights (warmed up as in "
        "tf.train.ExponentialMovingAverage)",
        above=0,
        below=1,
        note=" (0.999 is usual), or leave it out",
        card="moving average of the weights with decay {}",
        usual=True,
    )
    average_last: int | None = key(
        None,
        "score and keep the mean of the weights at the last k scorings (arXiv:1803.05407)",
        at_least=2,
        note=", or leave it out",
        card="mean of the weights at the last {} scorings",
        usual=True,
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.ema_decay is not None and self.average_last is not None:
            raise UserError(
                f"average_last {self.average_last} with ema_decay {self.ema_decay}: each decides which weights "
                "are scored and kept; leave one of them out"
            )


@dataclass
class TrainerKeys:
    """The fields of TrainingArguments that have another default or help here, and two new ones.

    Every other field of TrainingArguments is a key under its own name, as transformers has it but for
    the ranges in `RangedKeys`.
    """

    output_dir: str | None = key(
        None, "the run folder, never overwritten; null is runs/RECIPE", usual=True
    )
    resume_from_checkpoint: str | None = key(
        None, "last, or the folder of a checkpoint", usual=True
    )
    total_train_batch_size: int = key(
        64, "images in one optimizer step, over all processes", at_least=1, usual=True
    )
    per_device_train_batch_size: int | None = key(
        None,
        "images at once on one device; the rest is accumulated",
        at_least=1,
        usual=True,
    )
    per_device_eval_batch_size: int | None = key(
        None, "images scored at once; null is 4 x the training ones, from 64 to 256", at_least=1
    )
    num_train_epochs: float = key(
        3.0,
        "passes over the training images",
        at_least=0,
        give="a number from 0 up",
        usual=True,
    )
    max_steps: int = key(
        -1,
        "stop after so many optimizer steps instead; -1 never",
        at_least=-1,
        give="a whole number, or -1",
        usual=True,
    )
    min_steps: int = key(
        0,
        "more epochs where they make fewer steps; max_steps goes over it",
        at_least=0,
        usual=True,
    )
    learning_rate: float = key(
        5e-5, "peak learning rate", at_least=0, give="a number from 0 up", usual=True
    )
    lr_scheduler_type: str = key("cosine", "learning rate schedule")
    warmup_steps: float = key(
        0,
        "steps of a linear warm-up; below 1 it is a share of all steps",
        at_least=0,
        give="a number from 0 up",
        usual=True,
    )
    weight_decay: float = key(
        0.0,
        "of matrices only, not of biases, norms and tokens",
        at_least=0,
        give="a number from 0 up",
    )
    max_grad_norm: float = key(
        1.0, "norm that gradients are clipped to; 0 is off", at_least=0, give="a number from 0 up"
    )
    label_smoothing_factor: float = key(0.0, "label smoothing", at_least=0, below=1)
    seed: int = key(42, "seed of the first weights", at_least=0, at_most=MAX_SEED, usual=True)
    data_seed: int | None = key(
        0, "seed of order, crops and flips; null is seed", at_least=0, at_most=MAX_SEED
    )
    eval_strategy: str = key(
        "epoch", "when to score the selection slice", choices=("no", "steps", "epoch")
    )
    save_strategy: str = key(
        "epoch", "when to write a checkpoint", choices=("no", "steps", "epoch", "best")
    )
    save_total_limit: int | None = key(
        2, "checkpoints kept; the best stays", at_least=1, note=", or null to keep all"
    )
    load_best_model_at_end: bool = key(True, "keep the selected weights, not the last ones")
    metric_for_best_model: str | None = key("top1", "what selects: a metric, or loss")
    early_stopping_patience: int | None = key(
        None,
        "stop after so many scorings without a better one",
        at_least=1,
        note=", or leave it out",
        card="early stopping after {} scorings without a better one",
        usual=True,
    )
    gradient_checkpointing: bool = key(
        # transformers 5.23 calls it activation_checkpointing, and 6 will know that name only.
        False,
        "recompute activations: less memory, slower steps",
        usual=True,
    )
    torch_compile: bool = key(False, "compile the network for training", usual=True)
    report_to: list[str] = key(["tensorboard"], "trackers; none for no tracker")
    dataloader_num_workers: int = key(
        -1,
        "processes that decode images; -1 chooses from the cores",
        at_least=-1,
        give="a whole number, or -1 to choose it from the cores",
    )
    dataloader_pin_memory: bool | None = key(
        None, "pin a batch's memory for its copy to the GPU; null: where a GPU is used"
    )
    dataloader_persistent_workers: bool = key(True, "keep workers between epochs")
    remove_unused_columns: bool = key(False, "fixed")
    # The filter replaces a NaN loss by an average and waits for the device at every step.
    logging_nan_inf_filter: bool = key(False, "fixed")
    # Every parameter of a classifier gets a gradient in every step: the extra graph pass buys nothing.
    ddp_find_unused_parameters: bool | None = key(False, "search for parameters without a gradient")


@dataclass
class RangedKeys:
    """The fields of TrainingArguments that have a range here, and the default that they have there.

    Beyond it they would fail after the data are read, or train to nothing. run.json names them only
    where a recipe does.
    """

    adam_beta1: float = key(0.9, "decay of Adam's mean of gradients", at_least=0, below=1)
    adam_beta2: float = key(0.999, "decay of Adam's mean of their squares", at_least=0, below=1)
    adam_epsilon: float = key(1e-8, "Adam's epsilon", at_least=0, give="a number from 0 up")
    neftune_noise_alpha: float | None = key(
        None, "noise on the embeddings (NEFTune)", at_least=0, give="a number from 0 up"
    )
    torch_empty_cache_steps: int | None = key(
        None, "steps between two times that the GPU's cache is emptied", at_least=1
    )
    logging_strategy: str = key(
        "steps", "when to log the training loss", choices=("no", "steps", "epoch")
    )
    logging_steps: float = key(
        500,
        "steps between two lines of the log; below 1 a share of all steps",
        above=0,
        give="a number of steps, or below 1 a share of all",
    )
    eval_steps: float | None = key(
        None,
        "steps between two scorings, with eval_strategy steps; null is logging_steps",
        above=0,
        give="a number of steps, or below 1 a share of all",
    )
    eval_delay: float = key(
        0,
        "epochs or steps before the first scoring",
        at_least=0,
        give="a number of epochs or steps, as eval_strategy counts",
    )
    eval_accumulation_steps: int | None = key(
        None, "batches that are scored before their answers leave the device", at_least=1
    )
    save_steps: float | None = key(
        None,
        "steps between two checkpoints, with save_strategy steps; null is eval_steps, or 500",
        above=0,
        give="a number of steps, or below 1 a share of all",
    )
    dataloader_prefetch_factor: int | None = key(
        None, "batches that each worker prepares ahead; null is 4", at_least=1
    )
    ddp_bucket_cap_mb: int | None = key(
        None, "MB of gradients that processes exchange at once", at_least=1
    )
    ddp_timeout: int = key(1800, "seconds that processes wait for each other", at_least=1)
