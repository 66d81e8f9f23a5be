# SPDX-License-Identifier: Apache-2.0
"""Mixup and cutmix as an extension: the batch that it mixes, and the loss of mixed labels."""

import pytest
import torch
from torch import nn

from training.engine.extensions.mixing import Mixing
from training.engine.loss import Criterion


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """logits (6, 4) in float64, labels (6,)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("q", [None, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_labels_are_soft_targets(batch, q, smoothing):
    """Against the sum over all classes of target times the class's loss."""
    logits, labels = batch
    share = torch.tensor([0.9, 0.9, 0.0, 0.0, 0.3, 0.3], dtype=torch.float64)
    one_hot = nn.functional.one_hot(labels, 4).double()
    target = share[:, None] * one_hot + (1 - share[:, None]) * one_hot[[1, 0, 3, 2, 5, 4]]
    target = (1 - smoothing) * target + smoothing / 4
    p = logits.softmax(-1)
    of_class = -p.log() if q is None else (1 - p**q) / q
    expected = (target * of_class).sum(-1).mean()
    mixing = Mixing(None, Criterion(smoothing, q))
    plain = Criterion(smoothing, q)(logits, labels)
    got = mixing.loss(logits, {"labels": labels, "own_share": share}, plain)
    torch.testing.assert_close(got, expected)
    whole = {"labels": labels, "own_share": torch.ones_like(share)}
    torch.testing.assert_close(mixing.loss(logits, whole, plain), plain)
    assert mixing.loss(logits, {"labels": labels}, plain) is plain
