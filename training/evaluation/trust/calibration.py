"""Make scores mean what they say: one temperature, fitted on images that nothing was learned from.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599) divides all logits by one number, so no answer
changes and one number is fitted: the more flexible vector, matrix and Dirichlet scalings lose to it
at a few hundred images, and change up to 17 % of the answers (measured; docs/trust.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from training.evaluation.classification import expected_calibration_error, log_softmax

LOWEST, HIGHEST = 0.05, 20.0  # of a temperature: below 1 is normal after label smoothing or mixup
# Thirty images give a temperature of 3.55 to within 0.73, a hundred to 0.29; the negative
# log-likelihood is then within 0.003 nats of the best.
MIN_IMAGES = 100
DRAWS = 200  # of the bootstrap
SEED = 0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature whose scaled logits are likeliest, between `LOWEST` and `HIGHEST`.

    Args:
        logits: (num_images, num_classes), of images that neither weights nor temperature have seen.
        labels: class ids, (num_images,).

    Raises:
        ValueError: there is no image, or a logit is not finite.
    """
    if not len(labels) or not np.isfinite(logits).all():
        raise ValueError("a temperature needs images with finite logits")
    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), labels)

    # In the logarithm the loss has one minimum or none inside, and both ends are as far from 1.
    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Average the negative log-likelihood of the labels, in nats per image."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def measure_calibration(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compute nll, brier and ece, each as {"value": ..., "interval": [low, high]}.

    nll is the mean negative log-likelihood in nats, brier the mean squared distance of probabilities
    and labels (0 is best, 2 the worst), ece the expected calibration error. The intervals are those of
    95 % of `DRAWS` bootstrap draws of the images, always the same draws, moved so that the draws' mean is
    the value: a draw holds images twice, and its ece is larger than that of all images.
    """
    every = np.arange(len(labels))
    log_probs = log_softmax(logits.astype(np.float64))
    distance = np.exp(log_probs)
    confidence = distance.max(1)
    distance[every, labels] -= 1
    of_image = {"nll": -log_probs[every, labels], "brier": (distance**2).sum(1)}
    right = logits.argmax(1) == labels

    def measure(rows: np.ndarray) -> dict[str, float]:
        means = {name: float(values[rows].mean()) for name, values in of_image.items()}
        return {**means, "ece": expected_calibration_error(confidence[rows], right[rows])}

    rng = np.random.default_rng(SEED)
    draws = [measure(rng.integers(len(labels), size=len(labels))) for _ in range(DRAWS)]
    found = {}
    for name, value in measure(every).items():
        drawn = np.array([draw[name] for draw in draws])
        low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975]) + value
        found[name] = {"value": value, "interval": [max(0.0, float(low)), float(high)]}
    return found


def error_if_perfect(logits: np.ndarray) -> float:
    """Estimate the ece that a perfectly calibrated model of these probabilities shows with so few images.

    The answer of image i is right with the probability that it states; mean of `DRAWS` draws. An ece
    near it leaves nothing to mend: it is 0.052 for 375 photographs and 0.006 for 25,250.
    """
    confidence = np.exp(log_softmax(logits.astype(np.float64)).max(1))
    rng = np.random.default_rng(SEED)
    right = rng.random((DRAWS, len(confidence))) < confidence
    return float(np.mean([expected_calibration_error(confidence, each) for each in right]))
