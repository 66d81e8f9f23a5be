# SPDX-License-Identifier: Apache-2.0
"""Mixup and cutmix as an extension: the batch that it mixes, and the loss of mixed labels."""

import pytest
import torch
from torch import nn

from tests.unit.toys import tiny_network, tiny_settings
from training.engine.extensions.mixing import Mixing
from training.engine.loss import Criterion
from training.input.mixing import DrawMixing, mix


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


def test_a_batch_is_mixed_by_what_was_drawn_for_it():
    pixels = torch.randn(4, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    lambdas = torch.tensor([0.7, 0.7, 1.0, 1.0])
    boxes = torch.tensor([[0] * 4, [0] * 4, [2, 1, 4, 3], [2, 1, 4, 3]])
    batch = {"pixel_values": pixels.clone(), "mix_lambda": lambdas, "mix_box": boxes}
    Mixing(None, Criterion()).before_forward(batch)
    assert torch.equal(batch["pixel_values"], mix(pixels, lambdas, boxes))
    assert not torch.equal(batch["pixel_values"], pixels)
    torch.testing.assert_close(batch["own_share"], torch.tensor([0.7, 0.7, 0.75, 0.75]))


def test_a_batch_without_draws_is_left_alone():
    """As every batch that is scored is, and those behind `mix_off_epoch`."""
    batch = {"pixel_values": torch.randn(4, 3, 8, 6)}
    before = batch["pixel_values"].clone()
    Mixing(None, Criterion()).before_forward(batch)
    assert set(batch) == {"pixel_values"} and torch.equal(batch["pixel_values"], before)


def test_it_is_made_where_the_recipe_mixes(tmp_path):
    network = tiny_network()
    assert Mixing.build(network, tiny_settings(tmp_path)) is None
    assert Mixing.build(network, tiny_settings(tmp_path, mixup=0.8, mix_off_epoch=1)) is not None
    keys = {"cutmix": 0.5, "label_smoothing_factor": 0.1}
    settings = tiny_settings(tmp_path, **keys, loss="generalized_cross_entropy", gce_q=0.6)
    mixing = Mixing.build(network, settings)
    assert mixing.draws == DrawMixing(32, 32, settings.augmentation)
    assert mixing.criterion == Criterion(0.1, 0.6)
