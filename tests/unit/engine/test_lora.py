# SPDX-License-Identifier: Apache-2.0
"""LoRA: what is adapted and trained, and that nothing of peft is left after the merge."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
)

from tests.unit.adapted import LORA, adapted, pixels, same, shake, trained_names, weights
from tests.unit.toys import TINY_VIT, tiny_network, tiny_settings
from training.common.errors import UserError
from training.engine.arguments import MethodArguments
from training.engine.lora import add_adapters, count_parameters, find_layers
from training.engine.trainer import BaseTrainer
from training.engine.wiring import build_trainer
from training.model.head import heads_of

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


def method_of(names: list[str], rank: int, tune: str = "lora") -> MethodArguments:
    return MethodArguments(tune=tune, lora_target_modules=names, lora_rank=rank)


# ---- what is adapted ----------------------------------------------------------------------------


def test_the_named_layers_and_the_head_are_trained_and_nothing_else(tmp_path):
    model, _ = adapted(tmp_path)
    expected = {"classifier.weight", "classifier.bias"} | {
        f"vit.layers.{i}.attention.{name}.lora_{side}.default.weight"
        for i in range(2)
        for name in ("q_proj", "v_proj")
        for side in "AB"
    }
    assert trained_names(model) == expected
    # 4 matrices of 32 x 32 with A (4, 32) and B (32, 4); a head of 3 x 32 + 3.
    plain = tiny_network().model.num_parameters()
    assert count_parameters(model) == (4 * 2 * 4 * 32 + 99, plain)
    assert count_parameters(tiny_network().model) == (plain, plain)


def test_at_first_the_network_says_what_it_said(tmp_path):
    plain = tiny_network().model.eval()(pixel_values=pixels()).logits
    model, _ = adapted(tmp_path, lora_dropout=0.5)
    assert torch.equal(model.eval()(pixel_values=pixels()).logits, plain)


def test_the_first_values_come_from_the_seed_alone(tmp_path):
    def first(seed: int, noise: int) -> dict[str, torch.Tensor]:
        network = tiny_network()
        torch.manual_seed(noise)  # as if something else had drawn before
        state = adapted(tmp_path, network, seed=seed)[1].state()
        assert torch.equal(torch.rand(3), torch.manual_seed(noise) and torch.rand(3))
        return {name: value for name, value in state.items() if "lora_A" in name}

    one, again, other = first(0, 1), first(0, 2), first(1, 1)
    assert len(one) == 4 and same(one, again)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_only_the_layers_that_were_meant_among_many(tmp_path):
    """From 20 names on peft shortens the list; 11 must not be taken for 1."""
    network = tiny_network(num_hidden_layers=12)
    wanted = ["layers.1.attention.k_proj", "fc1", "attention.q_proj"]
    model, _ = adapted(tmp_path, network, lora_target_modules=wanted)
    found = {name.split(".lora_")[0] for name in trained_names(model) if "lora_" in name}
    each = {f"vit.layers.{i}.{name}" for i in range(12) for name in ("attention.q_proj", "mlp.fc1")}
    assert found == each | {"vit.layers.1.attention.k_proj"}


def test_a_convnext_with_its_own_names(splits, tmp_path):
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
    torch.manual_seed(0)
    network = tiny_network()
    model = ConvNextForImageClassification(config)
    network = type(network)(model, network.processor, network.preprocessing, None, None, "new")
    args = tiny_settings(tmp_path, **LORA, **NO_CHECKPOINTS)
    with pytest.raises(
        UserError, match="has 'q_proj', 'v_proj', and ConvNext.*give some of pwconv1"
    ):
        build_trainer(network, splits, args)
    names = ["pwconv1", "pwconv2"]
    args = tiny_settings(tmp_path, **LORA, **NO_CHECKPOINTS, lora_target_modules=names)
    trainer = build_trainer(network, splits, args)
    before = {n.replace(".base_layer", ""): v for n, v in weights(model).items()}
    trainer.train()
    after = weights(model)
    assert set(after) == {name for name in before if "lora_" not in name}
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    adapted = {name for name in after if "pwconv" in name and name.endswith("weight")}
    assert len(adapted) == 4
    assert moved == adapted | {"classifier.weight", "classifier.bias"}


def test_both_heads_of_a_distilled_network_are_trained(tmp_path):
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**TINY_VIT, num_labels=3))
    add_adapters(SimpleNamespace(model=model), tiny_settings(tmp_path, **LORA))
    plain = {name.split(".")[0] for name in trained_names(model) if "lora_" not in name}
    assert plain == {"cls_classifier", "distillation_classifier"}


def test_convolutions_are_not_adapted(tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    model = ResNetForImageClassification(config)
    args = tiny_settings(tmp_path, **LORA, lora_target_modules=["convolution"])
    with pytest.raises(UserError, match="tune is lora and ResNetFor.* no linear layer beside its"):
        add_adapters(SimpleNamespace(model=model), args)
    assert len(trained_names(model)) == len(list(model.parameters()))  # it is left as it was


def test_a_matrix_that_is_never_called_is_not_adapted():
    """MultiheadAttention reads the weight of its out_proj, and would leave an adapter out."""
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "fc": nn.Linear(8, 8)})
    with pytest.raises(UserError, match="has 'out_proj', and .*give some of fc"):
        find_layers(model, [], method_of(["fc", "out_proj"], 4))


@pytest.mark.parametrize(
    ("names", "rank", "message"),
    [
        (
            ["q_proj", "query"],
            4,
            "has 'query', and ViTFor.*give some of fc1, fc2, k_proj, o_proj, q_",
        ),
        (["proj"], 4, "has 'proj', and ViTFor"),
        (
            ["classifier"],
            4,
            "has 'classifier', and .* beside its head, which is trained in any case",
        ),
        (["projection"], 4, "has 'projection', and"),  # the patch embedding, a convolution
        (["all-linear"], 4, "has 'all-linear', and"),
        ([""], 4, "has '', and"),
        (["fc1"], 33, "lora_rank is 33: fc1 of ViTFor.* have rank 32 at most"),
    ],
)
def test_a_name_that_fits_nothing_is_refused(names, rank, message):
    model = tiny_network().model
    with pytest.raises(UserError, match=message):
        find_layers(model, heads_of(model), method_of(names, rank))


def test_the_whole_rank_of_a_matrix_is_taken():
    model = tiny_network().model
    assert len(find_layers(model, heads_of(model), method_of(["fc1"], 32))) == 2


def test_reentrant_checkpointing_is_refused(trainer_for):
    reentrant = {"gradient_checkpointing_kwargs": {"use_reentrant": True}}
    with pytest.raises(UserError, match="use_reentrant with tune lora"):
        trainer_for(**LORA, gradient_checkpointing=True, **reentrant)
    trainer_for(**LORA, **reentrant)  # nothing is recomputed
    trainer_for(**LORA, gradient_checkpointing=True)


def test_shards_are_refused(trainer_for, monkeypatch):
    monkeypatch.setattr(BaseTrainer, "is_sharded", True)
    for tune in ("lora", "probe_then_lora"):
        with pytest.raises(UserError, match=f"tune is {tune} with FSDP or DeepSpeed"):
            trainer_for(**{**LORA, "tune": tune})


# ---- before there are adapters ------------------------------------------------------------------


def test_set_aside_the_network_is_as_it_was(tmp_path):
    model, adapters = adapted(tmp_path, lora_target_modules=["q_proj", "fc1"])
    shake(model)
    before, trained, plain = weights(model), trained_names(model), tiny_network().model
    head = model.classifier.state_dict()
    plain.classifier.load_state_dict(head)  # it is trained, and stays
    scores = model.eval()(pixel_values=pixels()).logits
    with pytest.raises(KeyError), adapters.set_aside():
        assert same(weights(model), weights(plain))
        assert torch.equal(model.eval()(pixel_values=pixels()).logits, plain(pixels()).logits)
        with torch.no_grad():
            model.classifier.weight.zero_()
        raise KeyError  # an interruption
    assert not model.classifier.weight.any()  # what was put into the head is there
    with torch.no_grad():
        model.classifier.weight.copy_(before["classifier.weight"])
    assert same(weights(model), before) and trained_names(model) == trained
    assert torch.equal(model(pixel_values=pixels()).logits, scores)
    adapters.finish()
    assert not any("lora" in name or "base_layer" in name for name in model.state_dict())


# ---- the merge ----------------------------------------------------------------------------------


def test_merged_is_the_update_added_to_its_matrix(tmp_path):
    model, adapters = adapted(tmp_path)
    shake(model)
    before, plain = weights(model), tiny_network().model
    scores = model.eval()(pixel_values=pixels()).logits.softmax(-1)
    adapters.finish()
    after = weights(model)
    assert list(after) == list(plain.state_dict())
    for name, value in after.items():
        layer = name.removesuffix(".weight")
        if name in before:
            assert torch.equal(value, before[name]), name
        elif name.endswith("weight"):
            a, b = (before[f"{layer}.lora_{side}.default.weight"].double() for side in "AB")
            wanted = before[f"{layer}.base_layer.weight"].double() + 12 / 4 * (b @ a)
            assert value.dtype == torch.float32
            assert (value - wanted).abs().max() < 1e-5, name
            assert (value - before[f"{layer}.base_layer.weight"]).abs().max() > 0.1, name
    merged = model(pixel_values=pixels()).logits.softmax(-1)
    assert (merged - scores).abs().max() < 1e-5  # float32 sums in another order
    assert not hasattr(model, "peft_config") and len(trained_names(model)) == len(
        list(plain.parameters())
    )
