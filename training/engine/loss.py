"""The training loss: cross-entropy or a noise-robust one.

Labels stay class ids, also where images are mixed (`extensions.mixing`), so no soft target ever
reaches the network, whose `problem_type` stays `single_label_classification`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.engine.training_arguments import Settings


@dataclass(frozen=True)
class Criterion:
    """A loss of logits (batch, classes) in float32 and class ids (batch,).

    Attributes:
        smoothing: label smoothing, 0 to below 1.
        q: q of the generalised cross-entropy; None takes the plain cross-entropy.
    """

    smoothing: float = 0.0
    q: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Criterion:
        """Make the loss that a recipe trains on."""
        return cls(settings.training.label_smoothing_factor, settings.loss.generalized_q)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean"
    ) -> torch.Tensor:
        """Compute the mean loss of a batch, or with reduction "none" the loss of each image, (batch,)."""
        if self.q is None:
            return nn.functional.cross_entropy(
                logits, labels, label_smoothing=self.smoothing, reduction=reduction
            )
        losses = generalized_cross_entropy(logits, labels, self.q, self.smoothing)
        return losses.mean() if reduction == "mean" else losses


def generalized_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, q: float, smoothing: float = 0.0
) -> torch.Tensor:
    """Compute the generalised cross-entropy of each image (Zhang & Sabuncu 2018, arXiv:1805.07836).

    With p for the label's probability the loss is (1 - p^q) / q. Its gradient is the cross-entropy's
    times p^q: an image whose label the network does not believe counts less. For q -> 0 the loss is
    the cross-entropy, for q = 1 the mean absolute error.

    Args:
        logits: (batch, classes).
        labels: class ids, (batch,).
        q: above 0, at most 1.
        smoothing: share of the loss that is spread over all classes, 0 to below 1.

    Returns:
        (batch,).
    """
    # expm1 keeps what 1 - p^q would round away.
    of_class = -torch.expm1(q * logits.log_softmax(-1)) / q
    losses = of_class.gather(1, labels[:, None])[:, 0]
    return losses if smoothing == 0 else torch.lerp(losses, of_class.mean(-1), smoothing)
