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

from training.common.errors import UserError
from training.common.files import write_json
from training.data.splits import Splits
from training.engine.checkpoints import HEAD, PROBE_RESULT
from training.engine.loss import Criterion
from training.engine.trainer import BaseTrainer
from training.engine.training_arguments import FineTuningArguments, Settings
from training.evaluation.classification import classification_metrics
from training.evaluation.metrics import LESS_IS_BETTER, SUMMARY
from training.input.batch import EpochSampler
from training.model.head import head_of
from training.model.network import Network
from training.probe.arguments import ProbeArguments
from training.probe.features import Features, image_features
from training.probe.heads import Heads, HeadsMethod, copy_head, save_head
from training.probe.solver import SGD

logger = logging.getLogger(__name__)

MOMENTUM = 0.9

RATE_BATCH = 256  # images a step, for which probe_learning_rates are given


class ProbeTrainer(BaseTrainer):
    """Trains `Heads` on features; afterwards the chosen head is in the network.

    Args:
        network: its features are used; all heads start as copies of its own head.
        settings: their training arguments are as `probe_arguments` gives them.
        probe: the learning rates of the heads.
        why: why this is the solver, for the record.
        eval_cache_gb: limit of the cache that features are kept in; 0 keeps none.
        num_workers: processes that decode, on each process that trains.
    """

    def __init__(
        self,
        network: Network,
        splits: Splits,
        settings: Settings,
        probe: ProbeArguments,
        why: str,
        eval_cache_gb: float,
        num_workers: int,
    ) -> None:
        args = settings.training
        self.splits, self.why, self.eval_cache_gb = splits, why, eval_cache_gb
        self.rates = list(probe.probe_learning_rates)
        self.criterion = Criterion.of(settings)
        self.chosen: float | None = None  # the scaled rate of the head that was chosen
        self.num_finite = torch.tensor(len(self.rates))
        heads = Heads(head_of(network.model), len(self.rates), network.model.config)
        super().__init__(
            network=network,
            method=HeadsMethod(heads, settings.method.tune),
            args=args,
            sampler=EpochSampler(len(splits.train), args.total_train_batch_size, args.order_seed),
            num_workers=num_workers,
            rate=("probe_learning_rates", self.rates),
            train_dataset=Features(splits.originals.dataset["label"][:]),
            eval_dataset=Features(splits.selection.dataset["label"][:]),
            compute_metrics=self.score_heads,
        )
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
        self._keep(self.kept_scores())
        return result

    # ---- a step ----------------------------------------------------------------------------------

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum the heads' finite losses; the heads learn independently. NaN if none is finite."""
        logits = model(inputs["features"])
        labels = inputs["labels"].repeat_interleave(logits.shape[1])
        criterion = self.criterion if model.training else Criterion()
        losses = criterion(logits.flatten(0, 1), labels, "none")
        losses = losses.unflatten(0, logits.shape[:2]).mean(0)
        finite = losses.isfinite()
        self.num_finite = finite.sum()
        loss = torch.where(finite.any(), torch.where(finite, losses, 0.0).sum(), torch.nan)
        return (loss, {"logits": logits}) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Train on the heads' summed loss; return the mean of the finite losses, for the log."""
        return super().training_step(model, inputs, num_items_in_batch) / self.num_finite

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make a group for each head; the highest rate first, for Trainer logs that of the first group."""
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
        """Score every head on the selection slice, and choose the best.

        Returns:
            Each name of `SUMMARY` for the best head, "probe_learning_rate", its rate, and
            "top1_lr_RATE" for every head with finite scores.

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
        """Report the loss of the best head, not that of all of them."""
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics[f"{prefix}_loss"] = output.metrics[f"{prefix}_nll"]
        return output

    def facts(self) -> dict[str, Any]:
        """Return float32, no augmentation, and the rate of the chosen head, once there is one."""
        found = {"mixed_precision": "no", "augmentation": {}}
        return found if self.chosen is None else {**found, "learning_rate": self.chosen}

    def _keep(self, scores: dict[str, float]) -> None:
        """Put the chosen head into the network and into the folder; the result is written last."""
        rate = scores["eval_probe_learning_rate"]
        chosen = self.model.parameters_of(self.rates.index(rate))
        copy_head(chosen, self.network)
        self.chosen = scaled_rate(rate, self.args)
        result = {
            "solver": SGD,
            "why": self.why,
            "learning_rate": rate,
            "scaled_learning_rate": self.chosen,
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


def scaled_rate(rate: float, args: FineTuningArguments) -> float:
    """Scale a rate that is given for 256 images a step to the recipe's global batch."""
    return rate * args.total_train_batch_size / RATE_BATCH


def top1_name(rate: float) -> str:
    """Name a head's top-1 among Trainer's metrics, as "top1_lr_0.01"."""
    return f"top1_lr_{rate}"


def best_rate(scores: dict[float, dict[str, float]], metric: str) -> float:
    """Choose the rate whose head is best by `metric`; of equals that of lower nll, then the lower rate.

    Args:
        scores: the metrics of each rate's head.
        metric: a key of these metrics, or "loss", which is their nll.
    """
    metric = "nll" if metric == "loss" else metric
    sign = 1 if metric in LESS_IS_BETTER else -1
    return min(scores, key=lambda rate: (sign * scores[rate][metric], scores[rate]["nll"], rate))


def log_rates(result: dict[str, Any]) -> None:
    """Log a line for each head of a probe, from the contents of probe.json, and mark the chosen one."""
    for row in result["selection_top1"]:
        top1 = "not finite" if row["top1"] is None else f"{row['top1']:.2%}"
        mark = ", chosen" if row["learning_rate"] == result["learning_rate"] else ""
        logger.info("learning rate %g: selection top-1 %s%s", row["learning_rate"], top1, mark)
