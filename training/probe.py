"""A linear probe: one head for each learning rate, all trained at once on frozen features.

As DINOv2's (arXiv:2304.07193): SGD with momentum 0.9, without weight decay or clipping, on a cosine;
rates are for 256 images and scaled to the global batch. The heads share batches and one matrix
product and nothing else, so each becomes what it would alone, and one that diverges harms none. The
selection slice chooses among heads and epochs. They start from the network's own head and are
trained in float32, whatever the launcher's precision is.

`tune: linear_probe` is this alone. `tune: probe_then_full` (arXiv:2202.10054) does it first, in the
run's folder probe/, and fine-tunes all weights from there.
"""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from training.checkpoints import HEAD, PROBE, PROBE_RESULT
from training.config import LESS_IS_BETTER, FineTuningArguments
from training.data import Splits
from training.errors import UserError
from training.features import Features, check_head, image_features
from training.files import read_json, write_json
from training.heads import Heads, copy_head, load_heads, save_head
from training.losses import losses_of
from training.metrics import SUMMARY, classification_metrics
from training.model import Network, head_of
from training.run import Run
from training.trainer import FoodTrainer, build_trainer, check_trained, kept_step
from training.transforms import EpochSampler, collate

logger = logging.getLogger(__name__)

MOMENTUM = 0.9
RATE_BATCH = 256  # images a step, for which probe_learning_rates are given


class ProbeTrainer(FoodTrainer):
    """Trains `Heads` on features; afterwards the chosen head is in the network.

    Args:
        network: its features are used; its own head is where all heads start.
        args: as `probe_arguments` gives them.
        eval_cache_gb: limit of the cache that features are kept in; 0 keeps none.
        num_workers: processes that decode, on each process that trains.
    """

    rate_key = "probe_learning_rates"

    def __init__(
        self,
        network: Network,
        splits: Splits,
        args: FineTuningArguments,
        eval_cache_gb: float,
        num_workers: int,
    ) -> None:
        self.network, self.splits = network, splits
        self.eval_cache_gb = eval_cache_gb
        self.rates = list(args.probe_learning_rates)
        self.num_finite = torch.tensor(len(self.rates))
        seed = args.seed if args.data_seed is None else args.data_seed
        super().__init__(
            model=Heads(head_of(network.model), len(self.rates), network.model.config),
            args=args,
            preprocessing=network.preprocessing,
            sampler=EpochSampler(len(splits.train), args.total_train_batch_size, seed),
            train_dataset=Features(splits.originals.dataset["label"][:]),
            eval_dataset=Features(splits.selection.dataset["label"][:]),
            data_collator=collate,
            compute_metrics=self.score_heads,
        )
        self.num_workers = num_workers
        _refuse_shards(self)
        self.accelerator.native_amp, self.accelerator.scaler = False, None  # float32

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Compute or find the features, train the heads, put the chosen one into the network."""
        for dataset, split in (
            (self.train_dataset, self.splits.originals),
            (self.eval_dataset, self.splits.selection),
        ):
            dataset.features = image_features(
                self.network, split, self.eval_cache_gb, self.num_workers
            )
        result = super().train(*args, **kwargs)
        self._keep(self._kept_scores())
        return result

    # ---- a step ----------------------------------------------------------------------------------

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return Trainer._prepare_inputs(self, inputs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum over heads, whose gradients do not meet; NaN only if no head's loss is finite."""
        logits, args = model(inputs["features"]), self.args
        labels = inputs["labels"].repeat_interleave(logits.shape[1])
        smoothing, q = (
            (args.label_smoothing_factor, args.generalized_q()) if model.training else (0.0, None)
        )
        losses = losses_of(logits.flatten(0, 1), labels, smoothing, q, "none")
        losses = losses.unflatten(0, logits.shape[:2]).mean(0)
        finite = losses.isfinite()
        self.num_finite = finite.sum()
        loss = torch.where(finite.any(), torch.where(finite, losses, 0.0).sum(), torch.nan)
        return (loss, {"logits": logits}) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """For the log, the mean over the heads whose loss is finite."""
        return super().training_step(model, inputs, num_items_in_batch) / self.num_finite

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """A group for each head; the highest rate first, for Trainer logs that of the first group."""
        if self.optimizer is None:
            highest_first = sorted(range(len(self.rates)), key=lambda head: -self.rates[head])
            groups = [
                {
                    "params": list(self.model.parameters_of(head).values()),
                    "lr": scaled_rate(self.rates[head], self.args),
                }
                for head in highest_first
            ]
            # The schedules of transformers that have a lowest rate take it as a share of the default.
            highest = self.args.learning_rate
            self.optimizer = torch.optim.SGD(groups, lr=highest, momentum=MOMENTUM)
        return self.optimizer

    # ---- the choice ------------------------------------------------------------------------------

    def score_heads(self, prediction: Any) -> dict[str, float]:
        """Metrics of the best head on the selection slice, its rate, and every head's top1.

        Raises:
            UserError: no head has finite scores.
        """
        logits, labels = prediction.predictions, prediction.label_ids
        scores = {
            rate: classification_metrics(logits[:, head], labels)
            for head, rate in enumerate(self.rates)
            if np.isfinite(logits[:, head]).all()
        }
        if not scores:
            raise UserError(
                f"no head has finite scores: lower probe_learning_rates ({self.rates}), which are scaled "
                f"by {self.args.total_train_batch_size} / {RATE_BATCH} here"
            )
        best = best_rate(scores, (self.args.metric_for_best_model or "top1").removeprefix("eval_"))
        return {
            **{key: scores[best][key] for key in SUMMARY},
            "probe_learning_rate": best,
            **{top1_name(rate): score["top1"] for rate, score in scores.items()},
        }

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The loss is that of the best head, not that of all of them."""
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics[f"{prefix}_loss"] = output.metrics[f"{prefix}_nll"]
        return output

    def _kept_scores(self) -> dict[str, float]:
        """The scoring of the heads that are loaded."""
        step = kept_step(self)
        rows = [row for row in self.state.log_history if row["step"] == step and "eval_top1" in row]
        return {"step": step, **(rows[0] if rows else self.evaluate())}

    def _keep(self, scores: dict[str, float]) -> None:
        """Put the chosen head into the network and into the folder; the result is written last."""
        rate = scores["eval_probe_learning_rate"]
        chosen = self.model.parameters_of(self.rates.index(rate))
        copy_head(chosen, self.network)
        result = {
            "learning_rate": rate,
            "scaled_learning_rate": scaled_rate(rate, self.args),
            "top1": scores["eval_top1"],
            "step": scores["step"],
            "epochs": self.args.num_train_epochs,
            "selection_top1": [
                {"learning_rate": each, "top1": scores.get(f"eval_{top1_name(each)}")}
                for each in self.rates
            ],
            "optimizer": f"SGD, momentum {MOMENTUM}",
            "precision": "float32",
            "width": head_of(self.network.model).in_features,
        }
        if PartialState().is_main_process:
            folder = Path(self.args.output_dir)
            save_head(chosen, folder / HEAD)
            write_json(folder / PROBE_RESULT, result)
            log_rates(result)
        PartialState().wait_for_everyone()

    # ---- files -----------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint holds all heads; anything else is the network with the chosen one."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
        elif self.args.should_save:
            self.network.model.save_pretrained(output_dir)
            self.network.processor.save_pretrained(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        load_heads(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_heads(self.model, Path(self.state.best_model_checkpoint))


def scaled_rate(rate: float, args: FineTuningArguments) -> float:
    return rate * args.total_train_batch_size / RATE_BATCH


def top1_name(rate: float) -> str:
    return f"top1_lr_{rate}"


def best_rate(scores: dict[float, dict[str, float]], metric: str) -> float:
    """The rate whose head is best by `metric`, of equals by the lower nll, then by the lower rate."""
    metric = "nll" if metric == "loss" else metric
    sign = 1 if metric in LESS_IS_BETTER else -1
    return min(scores, key=lambda rate: (sign * scores[rate][metric], scores[rate]["nll"], rate))


def log_rates(result: dict[str, Any]) -> None:
    for row in result["selection_top1"]:
        top1 = "not finite" if row["top1"] is None else f"{row['top1']:.2%}"
        mark = ", chosen" if row["learning_rate"] == result["learning_rate"] else ""
        logger.info("learning rate %g: selection top-1 %s%s", row["learning_rate"], top1, mark)


def _refuse_shards(trainer: FoodTrainer) -> None:
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError(
            f"tune {trainer.args.tune} with FSDP or DeepSpeed: the heads are small and on every device; "
            "use accelerate_config.yaml, or tune full"
        )


# ---- the two ways to use it ----------------------------------------------------------------------


def build_probe(
    network: Network, splits: Splits, args: FineTuningArguments, eval_cache_gb: float = 0.0
) -> ProbeTrainer:
    """The trainer of `tune: linear_probe`.

    Raises:
        UserError: fewer training images than one global batch, nothing that selects, or a network
            that has no linear head.
    """
    check_trained(splits, args)
    check_head(network)
    num_workers = args.dataloader_num_workers
    return ProbeTrainer(network, splits, probe_arguments(args), eval_cache_gb, num_workers)


def build_after_probe(
    network: Network, splits: Splits, args: FineTuningArguments, eval_cache_gb: float = 0.0
) -> FoodTrainer:
    """The trainer of the second phase of `tune: probe_then_full`; refuses what the first could not do.

    Raises:
        UserError: as `build_probe`, or as `build_trainer`.
    """
    check_head(network)
    trainer = build_trainer(network, splits, args, eval_cache_gb)
    _refuse_shards(trainer)
    return trainer


def probe_first(run: Run, network: Network, splits: Splits) -> None:
    """The first phase of `tune: probe_then_full`: put a probed head into the network.

    It is trained in probe/, found there when an interrupted run is resumed, or taken from beside
    the checkpoint of another folder.

    Raises:
        UserError: as `build_probe`, or a checkpoint without a probe beside it.
    """
    folder, args = run.folder / PROBE, run.recipe.training
    probed = folder if run.checkpoint is None else _beside(Path(run.checkpoint))
    if (probed / PROBE_RESULT).is_file():
        copy_head(load_file(probed / HEAD), network)  # refuses another's before anything is copied
        log_rates(read_json(probed / PROBE_RESULT))
        _take_over(probed, folder)
    else:
        first = first_phase(args, folder)
        trainer = build_probe(network, splits, first, run.recipe.data.eval_cache_gb)
        trainer.train(resume_from_checkpoint=run.probe_checkpoint)
    set_seed(args.seed)  # the second phase draws the same, whether or not there was a first one


def _beside(checkpoint: Path) -> Path:
    source = checkpoint.parent / PROBE
    if not (source / PROBE_RESULT).is_file():
        raise UserError(
            f"resume_from_checkpoint {checkpoint}: there is no {PROBE}/{PROBE_RESULT} beside it, so it is "
            "not of a run with tune probe_then_full"
        )
    return source


def _take_over(source: Path, folder: Path) -> None:
    if PartialState().is_main_process and source.resolve() != folder.resolve():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (HEAD, PROBE_RESULT):
            shutil.copyfile(source / name, folder / name)
    PartialState().wait_for_everyone()


def first_phase(args: FineTuningArguments, folder: Path) -> FineTuningArguments:
    """`probe_epochs` on a cosine without warm-up, scored and saved each epoch, in `folder`."""
    first = copy.copy(args)
    first.output_dir, first.num_train_epochs, first.max_steps = str(folder), args.probe_epochs, -1
    first.lr_scheduler_type, first.warmup_steps = SchedulerType.COSINE, 0
    first.lr_scheduler_kwargs, first.early_stopping_patience = None, None
    first.eval_strategy, first.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    first.load_best_model_at_end = True
    return first


def probe_arguments(args: FineTuningArguments) -> FineTuningArguments:
    """With what a probe has of its own; features need no workers, nor a network its tricks."""
    probe = copy.copy(args)
    probe.optim, probe.weight_decay, probe.max_grad_norm = OptimizerNames.SGD, 0.0, 0.0
    probe.learning_rate = scaled_rate(max(args.probe_learning_rates), args)
    probe.tf32, probe.ema_decay = False, None
    probe.gradient_checkpointing = False
    if hasattr(probe, "activation_checkpointing"):
        probe.activation_checkpointing = False
    probe.dataloader_num_workers, probe.dataloader_prefetch_factor = 0, None
    probe.dataloader_persistent_workers = False
    return probe
