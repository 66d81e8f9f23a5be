# SPDX-License-Identifier: Apache-2.0
"""Eight scores of "this is none of the dishes", on features and logits; higher is stranger.

max probability    Hendrycks and Gimpel 2017, arXiv:1610.02136
energy             Liu et al. 2020, arXiv:2010.03759
Mahalanobis        Lee et al. 2018, arXiv:1807.03888: the nearest dish, one covariance for all
Mahalanobis++      Mueller and Hein 2025, arXiv:2505.18032: features of length 1
relative Mahalanobis  Ren et al. 2021, arXiv:2106.09022: less the distance to all images
kNN cosine         Sun et al. 2022, arXiv:2204.06507
ViM, residual      Wang et al. 2022, arXiv:2203.10807: outside of the principal space, and logits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf, oas

NEIGHBOURS = 10
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # features, logits -> (n,)


@dataclass(frozen=True)
class Fitted:
    """Training images of a network, and its head."""

    features: np.ndarray  # (n, width)
    labels: np.ndarray  # (n,)
    weight: np.ndarray  # (num_labels, width)
    bias: np.ndarray  # (num_labels,)

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


def scores(fitted: Fitted, shrinkage: str = "oas") -> dict[str, Score]:
    """Fit every score to the training images: name -> score."""
    unit = Fitted(unit_length(fitted.features), fitted.labels, fitted.weight, fitted.bias)
    plain, plus = mahalanobis(fitted, shrinkage), mahalanobis(unit, shrinkage)
    whole = mahalanobis(
        Fitted(fitted.features, np.zeros_like(fitted.labels), fitted.weight, fitted.bias), shrinkage
    )
    residual = residual_of(fitted)
    own = fitted.logits(fitted.features)
    alpha = own.max(1).mean() / residual(fitted.features).mean()
    return {
        "max probability": lambda f, z: np.max(z, 1) * -1 + logsumexp(z, 1),
        "energy": lambda f, z: -logsumexp(z, 1),
        "Mahalanobis": lambda f, z: plain(f),
        "Mahalanobis++": lambda f, z: plus(unit_length(f)),
        "relative Mahalanobis": lambda f, z: plain(f) - whole(f),
        "kNN cosine": lambda f, z: neighbours(unit.features, unit_length(f)),
        "ViM": lambda f, z: alpha * residual(f) - logsumexp(z, 1),
        "residual": lambda f, z: residual(f),
    }


def unit_length(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def mahalanobis(fitted: Fitted, shrinkage: str) -> Callable[[np.ndarray], np.ndarray]:
    """Squared distance to the nearest mean, by one covariance within the labels.

    Args:
        shrinkage: "oas", "ledoit_wolf" or "none" (the pseudo-inverse).
    """
    kinds = np.unique(fitted.labels)
    means = np.stack([fitted.features[fitted.labels == kind].mean(0) for kind in kinds])
    inside = fitted.features - means[np.searchsorted(kinds, fitted.labels)]
    shrunk = {"oas": oas, "ledoit_wolf": ledoit_wolf}.get(shrinkage)
    if shrunk is None:
        precision = np.linalg.pinv(inside.T @ inside / len(inside), rcond=1e-10, hermitian=True)
    else:
        precision = np.linalg.inv(shrunk(inside, assume_centered=True)[0])

    def distance(features: np.ndarray) -> np.ndarray:
        away = [features - mean for mean in means]
        return np.min([np.einsum("nd,nd->n", a @ precision, a) for a in away], axis=0)

    return distance


def neighbours(bank: np.ndarray, features: np.ndarray) -> np.ndarray:
    """One less the cosine to the k-th nearest training image."""
    return 1 - np.partition(features @ bank.T, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]


def residual_of(fitted: Fitted) -> Callable[[np.ndarray], np.ndarray]:
    """Length outside of the principal space, seen from where the logits are 0.

    ViM leaves its dimension to a table by hand: here a third of the width, as it has it for 384 and
    768.
    """
    width = fitted.features.shape[1]
    origin = -np.linalg.pinv(fitted.weight) @ fitted.bias
    moved = fitted.features - origin
    _, vectors = np.linalg.eigh(moved.T @ moved / len(moved))
    outside = vectors[:, : width - width // 3]
    return lambda features: np.linalg.norm((features - origin) @ outside, axis=1)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The chance that one of `outside` scores higher than one of `inside`; a tie is half."""
    order = np.sort(inside)
    below = np.searchsorted(order, outside, "left") + np.searchsorted(order, outside, "right")
    return float(below.mean() / 2 / len(inside))


def passed(selection: np.ndarray, outside: np.ndarray, keep: float = 0.95) -> float:
    """The share of `outside` below the threshold that keeps so much of the selection images."""
    return float((outside <= np.quantile(selection, keep)).mean())
