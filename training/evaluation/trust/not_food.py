"""Say "this may be no food": a distance of features from the training images, and shares of food refused.

The statistics are fitted on training images as evaluation sees them, a threshold on selection images
that they were not fitted on. What is promised is how much real food is refused, for that can be
measured; what else is refused cannot: nobody has all other pictures. The distance itself is
`inference.food_distance`, which is uploaded with the model.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from sklearn.covariance import oas

from inference.food_distance import FILE, FORMAT, SCORE, FoodDistance
from training.evaluation.intervals import wilson_interval
from training.evaluation.section import Scored
from training.model.config_block import read_block

SHARES = (0.01, 0.02, 0.05, 0.1)  # of real food that is refused
MAX_FITTED = 20_000  # training images
MIN_HELD_OUT = 59  # selection images: with fewer a share of 0.05 says little


@dataclass(frozen=True)
class NotFood:
    """What a model's folder needs to tell pictures without food."""

    data: bytes  # content of not_food.safetensors
    facts: dict[str, Any]  # what the config's block says under "not_food"
    width: int  # of a feature

    def write(self, folder: Path) -> None:
        """Write the file into a model's folder, whole or not at all."""
        temporary = folder / f".{FILE}"
        temporary.write_bytes(self.data)
        os.replace(temporary, folder / FILE)


def rows_to_fit(labels: np.ndarray, limit: int = MAX_FITTED, seed: int = 0) -> np.ndarray:
    """Draw `limit` rows or a few less, of each label its share, but two at least; sorted.

    Args:
        labels: class ids, (num_images,).
    """
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        its = order[labels[order] == label]
        chosen.append(its[: max(2, len(its) * limit // len(labels))])
    return np.sort(np.concatenate(chosen))


def too_few(train_labels: np.ndarray, num_labels: int, num_held_out: int) -> str | None:
    """Say in words what is lacking, with the numbers; None where there is enough."""
    counts = np.bincount(train_labels, minlength=num_labels)
    if counts.min() < 2:
        return f"not_food needs at least 2 training images of each label, one has {counts.min()}"
    if num_held_out < MIN_HELD_OUT:
        return f"not_food needs at least {MIN_HELD_OUT} selection images, there are {num_held_out}"
    return None


def fit(features: np.ndarray, labels: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Fit centre, whitening and means of `FoodDistance` to training images, in float32.

    The covariance within the dishes is shrunk towards a multiple of the identity by as much as is
    best where the features are normal (OAS: Chen et al. 2010, arXiv:0907.4698): of fewer images than a
    few times the width it could not be inverted otherwise.

    Args:
        features: (num_images, width).
        labels: class ids, (num_images,).

    Returns:
        The arrays, and the shrinkage, from 0 (none) to 1.
    """
    features = features.astype(np.float64)
    centre = features.mean(0)
    kinds, which = np.unique(labels, return_inverse=True)
    means = np.stack([features[which == i].mean(0) for i in range(len(kinds))])
    covariance, shrinkage = oas(features - means[which], assume_centered=True)
    # A feature that never moves would have no inverse: units that are dead, pictures all alike.
    floor = 1e-9 + 1e-6 * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices_from(covariance)] += floor
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    arrays = {"centre": centre, "whitening": whitening, "means": (means - centre) @ whitening}
    return {name: each.astype(np.float32) for name, each in arrays.items()}, float(shrinkage)


def choose_thresholds(distances: np.ndarray) -> dict[str, float | None]:
    """Choose for each share of `SHARES` the distance above which so much food is refused, or less.

    A threshold is the order statistic that makes the share hold on average over draws of the held-out
    images, for photographs like them (split conformal); null: it would need more of them.

    Args:
        distances: of held-out images of food, (n,).
    """
    n, ordered = len(distances), np.sort(distances)
    ranks = {share: math.ceil((n + 1) * (1 - share) - 1e-9) for share in SHARES}
    return {
        f"{share:g}": float(ordered[rank - 1]) if rank <= n else None
        for share, rank in ranks.items()
    }


def settle(
    features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, head: str, num_train: int
) -> NotFood:
    """Fit statistics and thresholds.

    Args:
        features, labels: of training images, (n, width) and (n,).
        held_out: features of selection images, (m, width).
        head: the name of the layer whose input the features are.
        num_train: training images that the features were drawn from.
    """
    arrays, shrinkage = fit(features, labels)
    # One entry: several would come in an order of their own each time, and the file's sum with them.
    data = safetensors.numpy.save(arrays, {"not_food": f"{SCORE}, format {FORMAT}"})
    facts = {
        "format": FORMAT,
        "file": FILE,
        "sha256": hashlib.sha256(data).hexdigest(),
        "score": SCORE,
        "head": head,
        "shrinkage": shrinkage,
        # From the arrays as they were written: the pipeline has no others.
        "thresholds": choose_thresholds(FoodDistance(arrays)(held_out)),
        "n_fitted": len(features),
        "n_train": num_train,
        "n_held_out": len(held_out),
    }
    return NotFood(data, facts, features.shape[1])


class RefusedFood:
    """How much of the test images, which are food, is called no food."""

    key = "not_food"

    def measure(self, scored: Scored) -> dict[str, Any] | None:
        """Return score, n_fitted, n_held_out and shares; null: the model does not tell what is no food.

        Each share that has a threshold has promised, threshold, refused (share of the test images) and
        its interval.
        """
        if scored.distances is None:
            return None
        facts = read_block(scored.network.model.config)["not_food"]
        n = len(scored.distances)
        shares = []
        for share, threshold in facts["thresholds"].items():
            if threshold is not None:
                refused = int((scored.distances > threshold).sum())
                shares.append(
                    {
                        "promised": float(share),
                        "threshold": threshold,
                        "refused": refused / n,
                        "interval": list(wilson_interval(refused, n)),
                    }
                )
        return {key: facts[key] for key in ("score", "n_fitted", "n_held_out")} | {"shares": shares}
