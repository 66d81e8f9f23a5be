"""A linear probe by logistic regression, for few images: what a run does with it.

The strength of the L2 penalty is chosen by cross-validation (see `sweep`), then one head is fitted on
all images and folded into the network's linear layer. `tune: linear_probe` learns from the training and
the selection images together, so that no labelled photograph is wasted; the scores that choose are
those of heads which have not seen the image. A probe before another phase leaves the
selection images to that.

probe.json then holds solver, why, strength (per image, see `logistic`), metric, top1 and nll (out of
fold, at that strength), strengths (a list of {strength, top1, nll}), at_end, folds, num_images,
num_scored, fitted_on, steps, optimizer, precision, rounding (the largest difference that float32
makes to a logit), bias and width.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from training.common.errors import UserError
from training.common.files import write_json
from training.data.splits import Splits
from training.engine.checkpoints import HEAD, OUT_OF_FOLD, PROBE_RESULT
from training.engine.trainer import BaseTrainer
from training.engine.training_arguments import Settings
from training.evaluation.features import Features, image_features
from training.evaluation.metrics import SUMMARY
from training.input.batch import EpochSampler
from training.model.head import head_of
from training.model.network import Network
from training.probe.folds import ALWAYS_TRAINED, split_into_folds
from training.probe.heads import Heads, HeadsMethod, copy_head, save_head
from training.probe.logistic import Fitted, Problem
from training.probe.solver import LOGISTIC
from training.probe.sweep import CrossValidation, Sweep, choose_strength, fit_on_main

logger = logging.getLogger(__name__)

# What chooses the strength. Top-1 moves in steps of one image: chosen by it, heads were no more often
# right (see docs/recipes.md), and much too sure of themselves.
METRIC = "nll"

# Keys of run.json's block "training" that have no part in it.
UNUSED = (
    "total_train_batch_size",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
)


class LogisticTrainer(BaseTrainer):
    """Fits a head on features; afterwards it is in the network. Nothing is trained step by step.

    Args:
        network: its features are used, and its head is replaced, whatever it is.
        settings: their training arguments are as `probe_arguments` gives them.
        why: why this is the solver, for the record.
        with_selection: whether the selection images are learned from.
        eval_cache_gb: limit of the cache that features are kept in; 0 keeps none.
        num_workers: processes that decode, on each process.

    Raises:
        UserError: no label has two different photographs, or one has none.
    """

    def __init__(
        self,
        network: Network,
        splits: Splits,
        settings: Settings,
        why: str,
        with_selection: bool,
        eval_cache_gb: float,
        num_workers: int,
    ) -> None:
        args, head = settings.training, head_of(network.model)
        self.parts = [splits.originals] + [splits.selection] * with_selection
        self.why, self.with_selection, self.eval_cache_gb = why, with_selection, eval_cache_gb
        self.labels = np.concatenate([np.asarray(part.dataset["label"][:]) for part in self.parts])
        self.num_labels, self.with_bias = len(splits.label_names), head.bias is not None
        check_labels(self.labels, splits.label_names)
        content = [sha256 for part in self.parts for sha256 in part.content]
        self.folds = split_into_folds(self.labels, content, args.seed)
        scored = self.labels[self.folds != ALWAYS_TRAINED].tolist()
        if not scored:
            raise UserError(
                "a linear probe has to choose on photographs that it has not learned from, and no label has "
                "two different ones: add photographs"
            )
        num_images = len(self.labels)
        self.num_folds = int(self.folds.max()) + 1
        self.cross_validation = {"folds": self.num_folds, "images": num_images}
        self.sweep: Sweep | None = None  # until a strength is chosen
        super().__init__(
            network=network,
            method=HeadsMethod(Heads(head, 1, network.model.config), settings.method.tune),
            args=args,
            # Every step sees all images.
            sampler=EpochSampler(num_images, num_images, args.order_seed),
            num_workers=num_workers,
            train_dataset=Features(self.labels.tolist()),
            eval_dataset=Features(scored),
        )

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """Compute or find the features, choose the strength, fit the head and put it into the network.

        Raises:
            UserError: a checkpoint to resume from is given, which heads that learn by SGD have written.
        """
        if resume_from_checkpoint is not None:
            raise UserError(
                f"checkpoint {resume_from_checkpoint} is of heads that learned by SGD, and here the head is "
                f"fitted by logistic regression ({self.why}): choose another --output_dir"
            )
        features = np.concatenate(
            [
                image_features(self.network, part, self.eval_cache_gb, self.num_workers).numpy()
                for part in self.parts
            ]
        )
        shape = self.labels, self.folds, self.num_labels, self.with_bias
        self.sweep = choose_strength(CrossValidation(features, *shape), METRIC)
        problem = Problem(features, self.labels, self.num_labels, self.with_bias)
        fitted = fit_on_main(problem, self.sweep.strength)
        self.state.global_step = fitted.steps
        for strength, scores in self.sweep.scores.items():
            self.log({"strength": strength, **{f"out_of_fold_{k}": scores[k] for k in SUMMARY}})
        self._keep(fitted, features)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the out-of-fold scores of the chosen strength: there are no other held-out images."""
        scores = self.sweep.scores[self.sweep.strength]
        return {f"eval_{key}": scores[key] for key in SUMMARY}

    @property
    def chosen_by(self) -> str:
        """Name the metric that chooses, which the recipe does not decide."""
        return METRIC

    def kept_scores(self) -> dict[str, float]:
        """Return the number of steps and what `evaluate` does."""
        return {"step": self.state.global_step, **self.evaluate()}

    def facts(self) -> dict[str, Any]:
        """Return null for what has no part in it, float32 for the network, and the solver's name."""
        return {
            **dict.fromkeys(UNUSED),
            "mixed_precision": "no",
            "augmentation": {},
            "optimizer": "lbfgs",
        }

    def _keep(self, fitted: Fitted, features: np.ndarray) -> None:
        """Put the head into the network and the folder; probe.json is written last."""
        weight, bias = fitted.folded()
        head = {"weight": torch.from_numpy(weight)}
        head |= {"bias": torch.from_numpy(bias)} if self.with_bias else {}
        copy_head(head, self.network)
        if PartialState().is_main_process:
            folder, plain = Path(self.args.output_dir), torch.from_numpy(features)
            folder.mkdir(parents=True, exist_ok=True)
            scores = torch.nn.functional.linear(plain, **head).numpy()
            save_head(head, folder / HEAD)
            if self.with_selection:
                save_head(self._out_of_fold(), folder / OUT_OF_FOLD)
            result = self._result(fitted, float(np.abs(scores - fitted.scores(features)).max()))
            write_json(folder / PROBE_RESULT, result)
            log_strengths(result)
        PartialState().wait_for_everyone()

    def _out_of_fold(self) -> dict[str, torch.Tensor]:
        rows = self.sweep.rows
        return {
            "logits": torch.from_numpy(self.sweep.logits.astype(np.float32)),
            "labels": torch.from_numpy(self.labels[rows]),
            "fold": torch.from_numpy(self.folds[rows]),
            "row": torch.from_numpy(rows),
        }

    def _result(self, fitted: Fitted, rounding: float) -> dict[str, Any]:
        chosen = self.sweep.scores[self.sweep.strength]
        return {
            "solver": LOGISTIC,
            "why": self.why,
            "strength": self.sweep.strength,
            "metric": METRIC,
            "top1": chosen["top1"],
            "nll": chosen["nll"],
            "strengths": [
                {"strength": each, "top1": scores["top1"], "nll": scores["nll"]}
                for each, scores in self.sweep.scores.items()
            ],
            "at_end": self.sweep.at_end,
            "folds": self.num_folds,
            "num_images": len(self.labels),
            "num_scored": len(self.sweep.rows),
            "fitted_on": "train and selection" if self.with_selection else "train",
            "steps": fitted.steps,
            "optimizer": "L-BFGS (scikit-learn), on standardised features",
            "precision": "float64, rounded to float32 once",
            "rounding": rounding,
            "bias": self.with_bias,
            "width": head_of(self.network.model).in_features,
        }


def check_labels(labels: np.ndarray, label_names: list[str]) -> None:
    """Refuse a label without an image to learn from.

    Raises:
        UserError: there is one; it is named.
    """
    lacking = sorted(set(range(len(label_names))) - set(labels.tolist()))
    if lacking:
        raise UserError(
            f"no photograph of {label_names[lacking[0]]} to learn from: add some, or take the label away"
        )


def log_strengths(result: dict[str, Any]) -> None:
    """Log a line for each strength, from the contents of probe.json, and mark the chosen one."""
    for row in result["strengths"]:
        mark = ", chosen" if row["strength"] == result["strength"] else ""
        logger.info(
            "strength %.3g: out-of-fold top-1 %.2f%%, loss %.3f%s",
            row["strength"], 100 * row["top1"], row["nll"], mark,
        )  # fmt: skip
    logger.info(
        "%s-fold cross-validation over %s images chose strength %.3g; the head is fitted on all of them (%s)",
        result["folds"], f"{result['num_images']:,}", result["strength"], result["fitted_on"],
    )  # fmt: skip
