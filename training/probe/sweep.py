"""The strength of a logistic regression, chosen by cross-validation on the images that it is fitted on.

Each fold's images are scored by heads that learned from the others, and the scores of all folds
together choose. As in CLIP's protocol (arXiv:2103.00020, A.3) a coarse grid comes first, and then
the interval around the best is halved, down to four strengths a decade. A best one at the edge of the
grid widens it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from training.common.machine import usable_cores
from training.evaluation.classification import classification_metrics
from training.evaluation.metrics import LESS_IS_BETTER
from training.probe.folds import ALWAYS_TRAINED
from training.probe.logistic import ROUGH, Fitted, Problem, steady

logger = logging.getLogger(__name__)

# Decimal logarithms of strengths: what is tried first, how far it is widened, how fine it becomes.
COARSE = (-3.0, -2.0, -1.0, 0.0, 1.0)
LOWEST, HIGHEST = -8.0, 4.0
HALVINGS = (0.5, 0.25)


@dataclass(frozen=True)
class Sweep:
    """The strengths that were tried, and what chose among them."""

    strength: float  # the chosen one
    scores: dict[float, dict[str, float]]  # strength -> its metrics, from the weakest
    rows: np.ndarray  # the images that were scored, of those that are fitted on
    logits: np.ndarray  # theirs at the chosen strength, float64 (num_scored, num_labels)
    at_end: bool  # whether a strength beyond all that may be tried could be better


class CrossValidation:
    """Scores images by heads that have not learned from them; processes share the folds.

    Args:
        features: (num_images, width).
        labels: class ids, (num_images,).
        folds: what `split_into_folds` gave.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        num_labels: int,
        with_bias: bool = True,
    ) -> None:
        state = PartialState()
        self.features, self.labels, self.folds = features, labels, folds
        self.rows = np.flatnonzero(folds != ALWAYS_TRAINED)
        self.own = range(state.process_index, folds.max() + 1, state.num_processes)
        self.num_labels, self.with_bias = num_labels, with_bias
        # fold -> exponent -> its solution, where the next one begins
        self.fitted: dict[int, dict[float, Fitted]] = {fold: {} for fold in self.own}

    def logits_of(self, exponents: list[float]) -> dict[float, np.ndarray]:
        """Score the images of `rows` at strengths of 10**exponent; all processes call this together.

        Returns:
            exponent -> float64 (num_scored, num_labels), the same on every process.
        """
        share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        with steady(), ThreadPoolExecutor(max(1, share)) as pool:
            own = list(pool.map(lambda fold: self._path(fold, exponents), self.own))
        found = dict(gather_object(list(zip(self.own, own, strict=True))))
        order = np.argsort(np.concatenate([self._held_out(fold) for fold in sorted(found)]))
        return {
            exponent: np.concatenate([found[fold][i] for fold in sorted(found)])[order]
            for i, exponent in enumerate(exponents)
        }

    def _held_out(self, fold: int) -> np.ndarray:
        return np.flatnonzero(self.folds == fold)

    def _path(self, fold: int, exponents: list[float]) -> list[np.ndarray]:
        """Fit one fold from the strongest on, each from the nearest that is there; score its images."""
        fitted, left = self.fitted[fold], self.folds != fold
        # Made anew each time: a copy of the features for every fold would be kept otherwise.
        problem = Problem(self.features[left], self.labels[left], self.num_labels, self.with_bias)
        for exponent in sorted(exponents, reverse=True):
            near = min(fitted, key=lambda each: abs(each - exponent), default=None)
            start = None if near is None else fitted[near]
            fitted[exponent] = problem.fit(10**exponent, start, ROUGH)
        held_out = self.features[self._held_out(fold)]
        return [fitted[exponent].scores(held_out) for exponent in exponents]


def fit_on_main(problem: Problem, strength: float) -> Fitted:
    """Fit on the main process and send the solution to all, so that every process has the same bits.

    Args:
        problem: is only used on the main process.
    """
    fitted: list[Fitted | None] = [None]
    if PartialState().is_main_process:
        with steady():
            fitted = [problem.fit(strength)]
    return broadcast_object_list(fitted)[0]


def choose_strength(validation: CrossValidation, metric: str) -> Sweep:
    """Sweep the strength: a coarse grid, wider where its best is at an edge, then finer around the best.

    All processes call this together.

    Args:
        metric: a key of `classification_metrics`, or "loss", which is their nll. Of equals the lower
            nll is better, then the stronger.
    """
    logits: dict[float, np.ndarray] = {}
    scores: dict[float, dict[str, float]] = {}
    labels = validation.labels[validation.rows]

    def score(exponents: Iterable[float]) -> float:
        """Score what is not scored yet; return the exponent of the best."""
        new = [each for each in exponents if each not in logits]
        logits.update(validation.logits_of(new))
        scores.update({each: classification_metrics(logits[each], labels) for each in new})
        return best_exponent(scores, metric)

    best = score(COARSE)
    while best in (min(scores), max(scores)) and LOWEST < best < HIGHEST:
        wider = best - 1 if best == min(scores) else best + 1
        _warn(best, f"the grid is widened to {10**wider:g}")
        best = score([wider])
    if at_end := best in (LOWEST, HIGHEST):
        _warn(best, "and nothing beyond it is tried: the features hardly tell the labels apart")
    for step in HALVINGS:
        best = score(each for each in (best - step, best + step) if LOWEST <= each <= HIGHEST)
    ordered = {10**each: scores[each] for each in sorted(scores)}
    return Sweep(10**best, ordered, validation.rows, logits[best], at_end)


def best_exponent(scores: dict[float, dict[str, float]], metric: str) -> float:
    """Choose the exponent that is best by `metric`; of equals the lower nll, then the stronger."""
    metric = "nll" if metric == "loss" else metric
    sign = 1 if metric in LESS_IS_BETTER else -1
    return min(scores, key=lambda each: (sign * scores[each][metric], scores[each]["nll"], -each))


def _warn(exponent: float, what: str) -> None:
    if PartialState().is_main_process:
        logger.warning(
            f"the best strength of the logistic regression, {10**exponent:g}, is at the edge of the "
            f"grid: {what}"
        )
