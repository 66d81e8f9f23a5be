"""A linear probe: one head for each learning rate, all trained at once on frozen features.

As DINOv2's (arXiv:2304.07193): SGD with momentum 0.9, without weight decay or clipping, on a cosine;
rates are for 256 images and scaled to the global batch. The heads share batches and one matrix
product and nothing else, so each becomes what it would alone, and one that diverges harms none. The
selection slice chooses among heads and epochs; where the lowest or highest rate is the best, further
heads are trained beyond it, in passes of their own. They start from the network's own head and are
trained in float32, whatever the launcher's precision is.

`tune: linear_probe` is this alone. `tune: probe_then_full` (arXiv:2202.10054) does it first, in the
run's folder probe/, and fine-tunes all weights from there.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import shutil
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
from training.evaluation.features import Features, image_features
from training.evaluation.metrics import LESS_IS_BETTER, SUMMARY
from training.input.batch import EpochSampler
from training.model.head import head_of
from training.model.network import Network
from training.probe.arguments import MAX_RATE, ProbeArguments
from training.probe.heads import Heads, HeadsMethod, copy_head, save_head
from training.probe.solver import SGD

logger = logging.getLogger(__name__)

MOMENTUM = 0.9

# How often the grid of rates is widened, and by how many rates.
MOST_PASSES, RATES_A_PASS = 3, 3

RATE_BATCH = 256  # images a step, for which probe_learning_rates are given


# A pass over all epochs with heads of its own -> the scores of its best head.
Passes = dict["ProbeTrainer", dict[str, float]]


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
        self.settings, self.splits, self.why = settings, splits, why
        self.eval_cache_gb = eval_cache_gb
        self.rates = list(probe.probe_learning_rates)
        self.criterion = Criterion.of(settings)
        self.chosen: float | None = None  # the scaled rate of the head that was chosen
        self.kept: dict[str, float] | None = None  # its scores
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
        self._keep(*self._widen({self: super().kept_scores()}))
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

    def kept_scores(self) -> dict[str, float]:
        """Return the scores of the chosen head, which may be of a further pass."""
        return super().kept_scores() if self.kept is None else self.kept

    def facts(self) -> dict[str, Any]:
        """Return float32, no augmentation, and the rate of the chosen head, once there is one."""
        found = {"mixed_precision": "no", "augmentation": {}}
        return found if self.chosen is None else {**found, "learning_rate": self.chosen}

    def _widen(self, passes: Passes) -> tuple[ProbeTrainer, Passes]:
        """Train heads at rates beyond the grid, as long as its lowest or highest is the best.

        Further passes are not resumed but trained again: they are exact, and short.

        Args:
            passes: this trainer, with its scores; the further ones are added.

        Returns:
            The pass with the best head, and all of them.
        """
        for number in range(1, MOST_PASSES + 2):
            best = self._best_of(passes)
            rate = passes[best]["eval_probe_learning_rate"]
            rates = beyond(rate, [each for one in passes for each in one.rates])
            if not rates:
                break
            if number > MOST_PASSES:
                self._warn_of_edge(rate, "and no further ones are tried")
                break
            self._warn_of_edge(rate, f"the grid is widened by {', '.join(f'{r:g}' for r in rates)}")
            further = self._further(rates, number)
            try:
                BaseTrainer.train(further)
                passes = {**passes, further: BaseTrainer.kept_scores(further)}
            except UserError as error:  # every head diverged, on every process alike
                self._warn_of_edge(rate, f"and beyond it: {error}")
                break
            remove_folder(further.args.output_dir)
        return self._best_of(passes), passes

    def _best_of(self, passes: Passes) -> ProbeTrainer:
        metric = (self.args.metric_for_best_model or "top1").removeprefix("eval_")
        of_rate = {scores["eval_probe_learning_rate"]: one for one, scores in passes.items()}
        scores = {
            rate: {key: passes[one][f"eval_{key}"] for key in SUMMARY}
            for rate, one in of_rate.items()
        }
        return of_rate[best_rate(scores, metric)]

    def _further(self, rates: list[float], number: int) -> ProbeTrainer:
        args = copy.copy(self.args)
        args.output_dir, args.report_to = f"{self.args.output_dir}/wider-{number}", []
        args.learning_rate = scaled_rate(max(rates), args)
        remove_folder(args.output_dir)  # of a run that was interrupted in it
        further = ProbeTrainer(
            self.network,
            self.splits,
            dataclasses.replace(self.settings, training=args),
            ProbeArguments(rates),
            self.why,
            self.eval_cache_gb,
            self.num_workers,
        )
        further.train_dataset.features = self.train_dataset.features
        further.eval_dataset.features = self.eval_dataset.features
        return further

    def _warn_of_edge(self, rate: float, what: str) -> None:
        if PartialState().is_main_process:
            logger.warning(
                f"the best of probe_learning_rates, {rate:g}, is at the edge of the grid: {what}"
            )

    def _keep(self, best: ProbeTrainer, passes: Passes) -> None:
        """Put the chosen head into the network and into the folder; the result is written last."""
        self.kept = scores = passes[best]
        rate = scores["eval_probe_learning_rate"]
        chosen = best.model.parameters_of(best.rates.index(rate))
        copy_head(chosen, self.network)
        self.chosen = scaled_rate(rate, self.args)
        tried = {each: one for one in passes for each in one.rates}
        result = {
            "solver": SGD,
            "why": self.why,
            "learning_rate": rate,
            "scaled_learning_rate": self.chosen,
            "top1": scores["eval_top1"],
            "step": scores["step"],
            "epochs": self.args.num_train_epochs,
            "selection_top1": [
                {"learning_rate": each, "top1": passes[one].get(f"eval_{top1_name(each)}")}
                for each, one in sorted(tried.items())
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


def remove_folder(folder: str) -> None:
    """Remove a folder, or nothing, while the other processes wait."""
    if PartialState().is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
    PartialState().wait_for_everyone()


def beyond(best: float, rates: list[float]) -> list[float]:
    """List rates further on where the best is the lowest or highest of several, at the same ratio; else none."""
    ordered = sorted(rates)
    if len(rates) < 2 or best not in (ordered[0], ordered[-1]):
        return []
    neighbour = ordered[1] if best == ordered[0] else ordered[-2]
    further = [float(f"{best * (best / neighbour) ** k:.3g}") for k in range(1, RATES_A_PASS + 1)]
    return [rate for rate in further if 0 < rate < MAX_RATE]


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
