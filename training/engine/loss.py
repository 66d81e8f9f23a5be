"""The training loss: cross-entropy or a noise-robust one, of labels that may be mixed.

Labels stay class ids. A mixed image has two of them and the share of its own, so no soft target
ever reaches the network, whose `problem_type` stays `single_label_classification`.
"""

from __future__ import annotations

import torch
from torch import nn

from training.input.mixing import partners


def training_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    own_share: torch.Tensor | None = None,
    *,
    smoothing: float = 0.0,
    q: float | None = None,
) -> torch.Tensor:
    """Mean loss of a batch.

    Args:
        logits: (batch, classes), float32.
        labels: (batch,), class ids.
        own_share: (batch,), the share of its own label in each mixed image; the rest is its
            neighbour's. None: nothing was mixed.
        smoothing: label smoothing, 0 to below 1.
        q: of the generalised cross-entropy; None takes the cross-entropy.
    """
    if own_share is None:
        return losses_of(logits, labels, smoothing, q, "mean")
    own = losses_of(logits, labels, smoothing, q, "none")
    others = losses_of(logits, partners(labels), smoothing, q, "none")
    return (own_share * own + (1 - own_share) * others).mean()


def losses_of(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float, q: float | None, reduction: str
) -> torch.Tensor:
    """Of images that are not mixed: (batch,) with reduction "none", or their "mean"."""
    if q is None:
        return nn.functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction=reduction
        )
    losses = generalized_cross_entropy(logits, labels, q, smoothing)
    return losses.mean() if reduction == "mean" else losses


def generalized_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, q: float, smoothing: float = 0.0
) -> torch.Tensor:
    """(1 - p^q) / q of the label's probability p: (batch,). Zhang & Sabuncu 2018, 1805.07836.

    Its gradient is the cross-entropy's times p^q: an image whose label the network does not
    believe counts less. For q -> 0 it is the cross-entropy, for q = 1 the mean absolute error.
    """
    # expm1 keeps what 1 - p^q would round away.
    of_class = -torch.expm1(q * logits.log_softmax(-1)) / q
    losses = of_class.gather(1, labels[:, None])[:, 0]
    return losses if smoothing == 0 else torch.lerp(losses, of_class.mean(-1), smoothing)
