# SPDX-License-Identifier: Apache-2.0
"""The layers that score the labels: found, renewed, scaled, reordered."""

import pytest
import torch
from torch import nn
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

from tests.unit.toys import TINY_VIT, tiny_network
from training.common.errors import UserError
from training.model.head import head_of, heads_of, renew_head, reorder_head, scale_head


@pytest.fixture
def model():
    return tiny_network().model


def test_the_head_of_a_vit_is_its_classifier(model):
    assert heads_of(model) == [model.classifier] and head_of(model) is model.classifier


def test_a_distilled_network_has_two_and_the_last_counts():
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**TINY_VIT, num_labels=3))
    assert heads_of(model) == [model.cls_classifier, model.distillation_classifier]
    assert head_of(model) is model.distillation_classifier


def test_a_layer_of_the_backbone_is_none_though_it_is_as_wide():
    labels = [f"label {i}" for i in range(TINY_VIT["intermediate_size"])]
    model = tiny_network(labels).model
    assert heads_of(model) == [model.classifier]


def test_a_network_without_a_linear_head_is_refused(model):
    model.classifier = nn.Identity()
    with pytest.raises(UserError, match="ViTForImageClassification has no linear layer that"):
        heads_of(model)


def test_a_renewed_head_is_drawn_from_the_seed_and_nothing_else_changes(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        with torch.no_grad():
            model.classifier.bias.fill_(1)
        renew_head(model)
        drawn.append(model.classifier.weight.detach().clone())
    assert torch.equal(*drawn) and not torch.equal(drawn[0], before["classifier.weight"])
    assert drawn[0].std().item() == pytest.approx(model.config.initializer_range, rel=0.3)
    assert model.classifier.bias.tolist() == [0, 0, 0]
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == ["classifier.weight"]


def test_a_scaled_and_a_reordered_head_scores_alike(model):
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.eval()(pixel_values=pixels).logits
        reorder_head(model, [2, 0, 1])
        assert torch.equal(model(pixel_values=pixels).logits, before[:, [2, 0, 1]])
        scale_head(model, 0.5)
        scaled = model(pixel_values=pixels).logits
    torch.testing.assert_close(scaled, 0.5 * before[:, [2, 0, 1]])


def test_a_head_may_have_no_bias(model):
    for change in (renew_head, lambda m: scale_head(m, 0.5), lambda m: reorder_head(m, [1, 2, 0])):
        model.classifier = nn.Linear(TINY_VIT["hidden_size"], 3, bias=False)
        before = model.classifier.weight.clone()
        change(model)
        assert not torch.equal(model.classifier.weight, before)
