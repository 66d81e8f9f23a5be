# SPDX-License-Identifier: Apache-2.0
"""Grad-CAM under the conditions of a server: compiled, made in inference mode, left in training mode."""

import copy

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from inference.food_explain import explain

SHAPE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cnn():
    torch.manual_seed(0)
    return ResNetForImageClassification(ResNetConfig(**SHAPE)).eval()


def maps_of(model):
    with torch.no_grad():
        logits = model(pixel_values=PIXELS).logits
    return explain(model, PIXELS, torch.tensor([[0, 1]] * 2), logits)[0]


def test_a_compiled_network_gives_the_same(cnn):
    expected = maps_of(cnn)
    torch.testing.assert_close(maps_of(torch.compile(cnn, backend="eager")), expected)
    cnn.forward = torch.compile(cnn.forward, backend="eager")
    torch.testing.assert_close(maps_of(cnn), expected)
    assert "forward" in vars(cnn)


def test_weights_that_were_made_in_inference_mode_give_the_same(cnn):
    expected = maps_of(cnn)
    with torch.inference_mode():
        made_inside = copy.deepcopy(cnn)
        assert torch.equal(maps_of(made_inside), expected)
    assert torch.equal(maps_of(made_inside), expected)


def test_batch_normalisation_keeps_its_statistics(cnn):
    cnn.train()
    with torch.no_grad():
        logits = cnn(pixel_values=PIXELS).logits
    before = {name: each.clone() for name, each in cnn.named_buffers()}
    explain(cnn, PIXELS, torch.tensor([[0]] * 2), logits)
    assert before and all(torch.equal(each, before[name]) for name, each in cnn.named_buffers())
