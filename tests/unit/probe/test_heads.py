# SPDX-License-Identifier: Apache-2.0
"""Several heads on the same features: their scores, gradients and files."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.unit.toys import tiny_network
from training.common.errors import UserError
from training.engine.loss import Criterion
from training.model.head import head_of
from training.probe.heads import (
    Heads,
    HeadsMethod,
    copy_head,
    refuse_shards,
    save_head,
    zero_unless_finite,
)


def test_a_head_for_something_else_is_refused():
    network = tiny_network()
    values = {"weight": torch.zeros(5, 32), "bias": torch.zeros(5)}
    with pytest.raises(UserError, match="for 5 labels and 32 features, the network's for 3 and 32"):
        copy_head(values, network)


def heads(num_heads: int = 3, bias: bool = True) -> Heads:
    """Different heads for 5 labels on features of width 4."""
    torch.manual_seed(0)
    made = Heads(nn.Linear(4, 5, bias=bias), num_heads, None)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


@pytest.mark.parametrize("bias", [True, False])
def test_every_head_scores_as_it_would_alone(bias):
    made, features = heads(bias=bias), torch.randn(7, 4)
    logits = made(features)
    assert logits.shape == (7, 3, 5)
    for i in range(3):
        own = made.parameters_of(i)
        assert set(own) == ({"weight", "bias"} if bias else {"weight"})
        torch.testing.assert_close(logits[:, i], nn.functional.linear(features, **own))


def test_all_heads_start_as_the_networks_own():
    head = nn.Linear(4, 5)
    made = Heads(head, 2, None)
    for i in range(2):
        assert torch.equal(made.parameters_of(i)["weight"], head.weight)
        assert torch.equal(made.parameters_of(i)["bias"], head.bias)
    with torch.no_grad():
        made.parameters_of(0)["weight"].zero_()
    assert head.weight.any() and made.parameters_of(1)["weight"].any()  # copies


def test_a_gradient_that_is_not_finite_becomes_zero():
    gradient = torch.tensor([1.0, 2.0])
    assert torch.equal(zero_unless_finite(gradient), gradient)
    for bad in (torch.nan, torch.inf):
        assert torch.equal(zero_unless_finite(torch.tensor([1.0, bad])), torch.zeros(2))
    made = heads(2)
    with torch.no_grad():
        made.parameters_of(0)["weight"].fill_(torch.inf)
    labels = torch.zeros(14, dtype=torch.int64)
    Criterion()(made(torch.randn(7, 4)).flatten(0, 1), labels, "none").sum().backward()
    wild, sane = (made.parameters_of(i)["weight"].grad for i in range(2))
    assert not wild.any() and sane.isfinite().all() and sane.any()


def test_heads_come_back_from_a_checkpoint(tmp_path):
    one, two = HeadsMethod(heads()), HeadsMethod(heads())
    with torch.no_grad():
        for value in two.state().values():  # the tensors themselves
            value.zero_()
    one.save(tmp_path)
    two.load(tmp_path)
    assert one.state().keys() == two.state().keys() and len(one.state()) == 6
    assert all(torch.equal(value, one.state()[name]) for name, value in two.state().items())
    assert set(load_file(tmp_path / "model.safetensors")) == set(one.state())


def test_other_heads_are_not_loaded(tmp_path):
    HeadsMethod(heads(2)).save(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"{}")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "broken"):
        with pytest.raises(UserError, match="does not hold 3 heads of this probe"):
            HeadsMethod(heads()).load(folder)


def test_a_chosen_head_is_put_into_the_network(tmp_path):
    network = tiny_network()
    values = {"weight": torch.randn(3, 32), "bias": torch.randn(3)}
    save_head({name: nn.Parameter(value) for name, value in values.items()}, tmp_path / "head")
    assert [path.name for path in tmp_path.iterdir()] == ["head"]  # nothing temporary is left
    own = head_of(network.model).weight
    copy_head(load_file(tmp_path / "head"), network)
    assert head_of(network.model).weight is own and torch.equal(own, values["weight"])
    assert torch.equal(head_of(network.model).bias, values["bias"])
    with pytest.raises(UserError, match="resume with the recipe and the data"):
        copy_head({"weight": values["weight"]}, network)  # without the bias


def test_shards_are_refused_with_the_name_of_the_method():
    for refuse in (
        HeadsMethod(heads(), "linear_probe").refuse_shards,
        lambda: refuse_shards("linear_probe"),
    ):
        with pytest.raises(UserError, match="^tune linear_probe with FSDP or DeepSpeed"):
            refuse()
