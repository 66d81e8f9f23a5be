# SPDX-License-Identifier: Apache-2.0
"""LoRA in a whole run: its recipe, its release, its record, and the rest of training around it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    ViTForImageClassification,
    pipeline,
)

from tests.unit.adapted import LORA, pixels, same, trained_names, weights
from tests.unit.toys import tiny_network, tiny_settings, train, write_recipe
from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.engine.lora import LoRA as Method
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.model.network import load_network

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


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


@pytest.mark.slow
def test_compiled_or_checkpointed_it_learns_the_same(splits, tmp_path):
    torch._dynamo.reset()
    runs, common = {}, {**LORA, **NO_CHECKPOINTS, "logging_steps": 1, "max_steps": 3}
    for key, values in {
        "plain": {},
        "checkpointed": {"gradient_checkpointing": True},
        "compiled": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    }.items():
        settings = tiny_settings(tmp_path / key, **common, **values)
        trainer = build_trainer(tiny_network(num_hidden_layers=1), splits, settings)
        trainer.train()
        runs[key] = losses(trainer), weights(trainer.model)
    torch._dynamo.reset()
    assert len(runs["plain"][0]) == 3
    for key in ("checkpointed", "compiled"):
        assert runs[key][0] == pytest.approx(runs["plain"][0], abs=1e-5), key
        assert runs[key][1].keys() == runs["plain"][1].keys()
        for name, value in runs[key][1].items():
            assert torch.allclose(value, runs["plain"][1][name], atol=1e-4), (key, name)


def test_without_peft_it_is_one_line_before_anything_is_read(recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r'peft is not installed: pip install -e "\.\[lora\]"'):
        train(recipe, "--output_dir", tmp_path / "run", "--dataset", tmp_path / "nothing")
    assert not (tmp_path / "run").exists()
