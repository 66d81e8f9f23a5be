# SPDX-License-Identifier: Apache-2.0
"""LoRA: what is adapted and trained, and that nothing of peft is left after the merge."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ResNetForImageClassification,
    ViTForImageClassification,
    pipeline,
)

from tests.unit.adapted import LORA, adapted, pixels, same, shake, trained_names, weights
from tests.unit.toys import TINY_VIT, tiny_network, tiny_settings, train, write_recipe
from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.engine.lora import LoRA as Method
from training.engine.lora import add_adapters, count_parameters, find_layers
from training.engine.trainer import BaseTrainer, FoodTrainer
from training.engine.wiring import build_trainer
from training.model.head import heads_of
from training.model.network import load_network

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


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
    with pytest.raises(UserError, match="ResNetFor.* has no linear layer beside its head"):
        add_adapters(SimpleNamespace(model=model), args)
    assert len(trained_names(model)) == len(list(model.parameters()))  # it is left as it was


def test_a_matrix_that_is_never_called_is_not_adapted():
    """MultiheadAttention reads the weight of its out_proj, and would leave an adapter out."""
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "fc": nn.Linear(8, 8)})
    with pytest.raises(UserError, match="has 'out_proj', and .*give some of fc"):
        find_layers(model, [], ["fc", "out_proj"], 4)


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
        find_layers(model, heads_of(model), names, rank)


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


@pytest.fixture
def recipe(tiny_run, tiny_data, tmp_path) -> Path:
    """LoRA on the network of a finished run."""
    return write_recipe(
        tmp_path / "lora.yaml",
        dataset=tiny_data,
        model=tiny_run / "model",
        model_config=None,
        **LORA,
    )


def test_the_release_is_a_plain_vit_with_the_scores_of_training(recipe, tmp_path, monkeypatch):
    unmerged, merge = {}, Method.finish

    def note(adapters: Method) -> None:
        unmerged["logits"] = adapters.model.eval()(pixel_values=unmerged["pixels"]).logits
        merge(adapters)

    photo = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 50).convert("RGB")
    network = load_network(parse_recipe([str(recipe)]).model.model)
    unmerged["pixels"] = network.processor(photo, return_tensors="pt")["pixel_values"]
    monkeypatch.setattr(Method, "finish", note)
    run = tmp_path / "run"
    train(recipe, "--output_dir", run)
    monkeypatch.setitem(sys.modules, "peft", None)  # whoever loads the release has no peft
    release = run / "release"
    before, after = (load_file(f / "model.safetensors") for f in (run / "model", release))
    assert same(before, after)
    old = load_file(Path(network.model.config._name_or_path) / "model.safetensors")
    assert {n: v.shape for n, v in after.items()} == {n: v.shape for n, v in old.items()}
    moved = {name for name in old if not torch.equal(old[name], after[name])}
    assert moved == {name for name in old if "query.weight" in name or "value.weight" in name} | {
        "classifier.weight", "classifier.bias"
    }  # fmt: skip
    for path in (run / "model" / "config.json", release / "config.json"):
        text = path.read_text().lower()
        assert "lora" not in text and "peft" not in text
        assert json.loads(text)["architectures"] == ["vitforimageclassification"]
    classify = pipeline("image-classification", model=str(release), device="cpu")
    assert type(classify.model) is ViTForImageClassification
    names = [classify.model.config.id2label[i] for i in range(3)]
    scores = {row["label"]: row["score"] for row in classify(photo, top_k=3)}
    expected = unmerged["logits"].softmax(-1)[0]
    assert torch.tensor([scores[n] for n in names]) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_run_says_what_was_trained(recipe, tmp_path, caplog):
    run = tmp_path / "run"
    with caplog.at_level("INFO"):
        train(recipe, "--output_dir", run, "--lora_target_modules", "q_proj", "--max_steps", "1")
    record = json.loads((run / "run.json").read_text())
    training, trained = record["training"], 2 * 2 * 4 * 32 + 99
    assert training["tune"] == "lora" and training["num_trainable_parameters"] == trained
    assert training["lora"] | {"peft": ""} == {
        "rank": 4, "alpha": 12, "dropout": 0, "target_modules": ["q_proj"], "peft": ""
    }  # fmt: skip
    total = tiny_network().model.num_parameters()
    assert record["model"]["num_parameters"] == total
    assert f"LoRA of rank 4 on q_proj trains {trained:,} of {total:,} parameters" in caplog.text
    card = (run / "release" / "README.md").read_text()
    assert "LoRA, rank 4, alpha 12, on `q_proj`, and the head in full" in card
    assert f"{trained:,} of {total:,} parameters" in card


def test_full_fine_tuning_says_so_too(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    total = record["model"]["num_parameters"]
    assert record["training"]["num_trainable_parameters"] == total
    assert record["training"]["lora"] is None
    card = (tiny_run / "release" / "README.md").read_text()
    assert f"all weights; {total:,} of {total:,} parameters" in card


# ---- with the rest of a recipe ------------------------------------------------------------------


def rates(trainer: FoodTrainer) -> dict[str, tuple[float, float]]:
    """(learning rate, weight decay) by parameter."""
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for p in group["params"]
    }


def test_every_trained_parameter_has_its_decay_and_its_layers_rate(trainer_for):
    trainer = trainer_for(**LORA, weight_decay=0.05, layer_decay=0.5)
    found = rates(trainer)
    assert set(found) == trained_names(trainer.model)
    for name, (rate, decay) in found.items():
        assert decay == (0.0 if name.endswith("bias") else 0.05), name
        scale = 1 if "classifier" in name else 0.5 if "layers.1" in name else 0.25
        assert rate == pytest.approx(0.02 * scale), name


def test_stochastic_depth_drops_adapted_blocks(trainer_for):
    trainer = trainer_for(**LORA, drop_path=0.5)
    seen = []
    trainer.model.vit.layers[1].attention.register_forward_hook(
        lambda module, inputs, output: seen.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    (drop_path,) = trainer.extensions
    drop_path.drawn = torch.tensor([[0.1, 0.9], [0.9, 0.9]])
    trainer.model.train()(pixel_values=pixels(2))
    assert drop_path.draws.num_branches == 2
    assert seen[0][0].abs().max() == 0 < seen[0][1].abs().max()


def losses(trainer: FoodTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_compiled_or_checkpointed_it_learns_the_same(trainer_for):
    torch._dynamo.reset()
    runs = {}
    for key, values in {
        "plain": {},
        "checkpointed": {"gradient_checkpointing": True},
        "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    }.items():
        trainer = trainer_for(key, **LORA, **NO_CHECKPOINTS, **values, logging_steps=1)
        trainer.train()
        runs[key] = losses(trainer), weights(trainer.model)
    torch._dynamo.reset()
    assert len(runs["plain"][0]) == 4
    for key in ("checkpointed", "compiled"):
        assert runs[key][0] == pytest.approx(runs["plain"][0], abs=1e-5), key
        assert runs[key][1].keys() == runs["plain"][1].keys()
        for name, value in runs[key][1].items():
            assert torch.allclose(value, runs["plain"][1][name], atol=1e-4), (key, name)


def test_reentrant_checkpointing_is_refused(trainer_for):
    with pytest.raises(UserError, match="use_reentrant with tune lora"):
        trainer_for(**LORA, gradient_checkpointing=True,
                    gradient_checkpointing_kwargs={"use_reentrant": True})  # fmt: skip


def test_shards_are_refused(trainer_for, monkeypatch):
    monkeypatch.setattr(BaseTrainer, "is_sharded", True)
    with pytest.raises(UserError, match="tune is lora with FSDP or DeepSpeed"):
        trainer_for(**LORA)


# ---- what a recipe may say ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora_rank", "0"], "lora_rank is 0: give at least 1"),
        (["--lora_rank", "four"], "key lora_rank: invalid int value"),
        (["--lora_alpha", "nan"], "lora_alpha is nan"),
        (["--lora_dropout", "1"], "lora_dropout is 1.0"),
        (["--model", "null"], "tune lora and model is null"),
        (["--tune", "full"], "lora_alpha with tune full does nothing: it is for tune lora; leave"),
        (["--tune", "LoRA"], "tune is 'LoRA': give full"),
    ],
)
def test_what_makes_no_sense_is_one_line(recipe, words, message):
    with pytest.raises(UserError, match=message) as error:
        parse_recipe([str(recipe), *words])
    assert "\n" not in str(error.value)


def test_keys_of_lora_alone_are_refused_and_null_is_none_of_them(tmp_path):
    path = write_recipe(tmp_path / "r.yaml", lora_rank=None)
    assert parse_recipe([str(path)]).method.tune == "full"
    with pytest.raises(UserError, match="lora_dropout with tune full does nothing"):
        parse_recipe([str(path), "--lora_dropout=0.1"])


def test_without_peft_it_is_one_line_before_anything_is_read(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'peft is not installed: pip install -e "\.\[lora\]"'):
        train(recipe, "--output_dir", tmp_path / "run", "--dataset", tmp_path / "nothing")
    assert not (tmp_path / "run").exists()
