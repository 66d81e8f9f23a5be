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

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from transformers import Trainer

from training.common.errors import UserError
from training.common.files import write_json
from training.data.splits import Splits
from training.engine.arguments import FineTuningArguments
from training.engine.checkpoints import HEAD, PROBE_RESULT
from training.engine.loss import losses_of
from training.engine.trainer import FoodTrainer, kept_step
from training.evaluation.classification import classification_metrics
from training.evaluation.metrics import LESS_IS_BETTER, SUMMARY
from training.input.batch import EpochSampler, collate
from training.model.head import head_of
from training.model.network import Network
from training.probe.features import Features, image_features
from training.probe.heads import Heads, copy_head, load_heads, save_head

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
        refuse_shards(self)
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


def refuse_shards(trainer: FoodTrainer) -> None:
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError(
            f"tune {trainer.args.tune} with FSDP or DeepSpeed: the heads are small and on every device; "
            "use accelerate_config.yaml, or tune full"
        )
