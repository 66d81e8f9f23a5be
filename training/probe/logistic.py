"""Logistic regression on features: one convex problem with one answer, folded into a linear layer.

It minimises the mean cross-entropy of the images plus `strength / 2` times the squared weights, of
features that are centred and divided by their standard deviation first. The strength is counted
per image, so that one strength means the same for 30 images and for 3,000; scikit-learn's C is
1 / (strength * images). The intercepts are free. scikit-learn's L-BFGS solves it in float64.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

logger = logging.getLogger(__name__)

# A gradient of this times the strength moves probabilities by about 1e-6: measured on 300 and 1,000
# photographs, strengths 1 to 1e-4. L-BFGS also stops where float64 has no lower loss.
TOLERANCE = 1e-6
# Moves them by about 1e-4, in a third fewer steps: to compare strengths.
ROUGH = 1e-4
MAX_STEPS = 20_000
# What is left of the gradient where float64 ends; more than this is said.
STUCK = 1e-6

# A feature that varies by less than this share of its mean is constant: float32's own noise.
CONSTANT = 1e-6


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Let linear algebra inside the `with` use one thread, and the solver keep its warnings.

    Several threads round by their number, and wait for each other where cores are shared: 30 times as
    slow was measured. Of what did not come to its end `Problem.fit` says more itself.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@dataclass(frozen=True)
class Fitted:
    """A solution, for features that are standardised by `mean` and `scale`; all in float64."""

    weight: np.ndarray  # (num_labels, width)
    bias: np.ndarray  # (num_labels,)
    mean: np.ndarray  # (width,), 0 without intercepts
    scale: np.ndarray  # (width,)
    steps: int  # of L-BFGS

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Compute the logits (num_images, num_labels) of features (num_images, width), in float64."""
        return (features.astype(np.float64) - self.mean) / self.scale @ self.weight.T + self.bias

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the linear layer on plain features, rounded to float32 once."""
        weight = self.weight / self.scale
        return weight.astype(np.float32), (self.bias - weight @ self.mean).astype(np.float32)


class Problem:
    """The images that a head is fitted on, standardised by their own mean and deviation.

    Args:
        features: (num_images, width).
        labels: class ids, (num_images,); every one of `num_labels` occurs.
        with_bias: False leaves out intercepts, and centring, which only an intercept can undo.

    Raises:
        ValueError: a class has no image.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, num_labels: int, with_bias: bool = True
    ) -> None:
        if len(np.unique(labels)) != num_labels:
            raise ValueError(f"{len(np.unique(labels))} of {num_labels} classes have images")
        self.labels, self.num_labels, self.with_bias = labels, num_labels, with_bias
        features = features.astype(np.float64)
        center, deviation = features.mean(0), features.std(0)
        constant = deviation <= CONSTANT * np.abs(center)
        self.mean = center if with_bias else np.zeros_like(center)
        self.scale = np.where(constant, 1.0, deviation)
        self.inputs = (features - self.mean) / self.scale
        if with_bias:
            self.inputs[:, constant] = 0.0

    def fit(
        self, strength: float, start: Fitted | None = None, tolerance: float = TOLERANCE
    ) -> Fitted:
        """Solve for one strength.

        Args:
            start: a solution of this problem for another strength, to begin from.
            tolerance: the largest gradient to stop at, as a share of the strength.
        """
        solver = LogisticRegression(
            # Two classes share one row of weights, w: as two rows, w / 2 and -w / 2, they weigh half.
            C=(2 if self.num_labels == 2 else 1) / (strength * len(self.labels)),
            tol=tolerance * min(1.0, strength),
            max_iter=MAX_STEPS,
            fit_intercept=self.with_bias,
            warm_start=True,
        )
        if start is not None:
            solver.coef_, solver.intercept_ = self._rows(start.weight), self._rows(start.bias)
        solver.fit(self.inputs, self.labels)
        weight, bias = solver.coef_, np.broadcast_to(solver.intercept_, len(solver.coef_))
        if self.num_labels == 2:
            weight, bias = (np.concatenate([-each / 2, each / 2]) for each in (weight, bias))
        fitted = Fitted(weight, np.array(bias), self.mean, self.scale, int(solver.n_iter_[0]))
        self._check(fitted, strength, max(STUCK, tolerance * strength))
        return fitted

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """Write a solution as scikit-learn does: two classes as one row, the second less the first."""
        return values[1:] - values[:1] if self.num_labels == 2 else values.copy()

    def _check(self, fitted: Fitted, strength: float, most: float) -> None:
        scores = self.inputs @ fitted.weight.T + fitted.bias
        rest = np.exp(scores - scores.max(1, keepdims=True))
        rest /= rest.sum(1, keepdims=True)
        rest[np.arange(len(rest)), self.labels] -= 1
        gradient = rest.T @ self.inputs / len(rest) + strength * fitted.weight
        if (left := np.abs(gradient).max()) > most:
            logger.warning(
                f"logistic regression of strength {strength:g} ended after {fitted.steps:,} steps with a "
                f"gradient of {left:.1g}, not below {most:g}: its head is not quite the best one"
            )
