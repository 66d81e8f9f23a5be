# SPDX-License-Identifier: Apache-2.0
"""Other networks than ViT with the same command: CNNs above all, to compare with."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import pipeline

from tests.unit.backbones import BACKBONES, save_backbone
from tests.unit.toys import LABELS, tiny_settings, train, write_recipe
from training.common.errors import UserError
from training.compare.runs import compare_runs
from training.compare.speed import measure_throughput
from training.compare.text import render
from training.engine.extensions.averaging import MovingAverage
from training.engine.extensions.drop_path import add_drop_path
from training.engine.extensions.layer_decay import layer_ids
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.head import heads_of
from training.model.network import load_network

OTHERS = ["x", "y", "z"]  # as many labels as the toy data: a new head has the shape of the old one


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: save_backbone(root / name, name, OTHERS) for name in BACKBONES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_data, checkpoints) -> dict[str, Path]:
    """`food101 train RECIPE --model FOLDER`, once each."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    values = {"dataset": tiny_data, "model_config": None, "num_train_epochs": 1}
    recipe = write_recipe(root / "mine.yaml", **values)
    for name in ("resnet", "convnext", "swin"):
        found[name] = root / name
        train(recipe, "--model", checkpoints[name], "--output_dir", found[name])
    return found


def network_of(folder: Path, labels: list[str] = LABELS, **values: object):
    return build_network(ModelArguments(model=str(folder), **values), labels, seed=0)


# ---- the whole way ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "patch"),
    [("resnet", "ResNet", None), ("convnext", "ConvNext", None), ("swin", "Swin", 4)],
)
@pytest.mark.slow
def test_a_run_says_what_it_is(runs, name, kind, patch):
    model = json.loads((runs[name] / "run.json").read_text())["model"]
    assert model["architecture"] == f"{kind}ForImageClassification"
    assert (model["patch_size"], model["image_size"], model["head"]) == (patch, 32, "new")
    card = (runs[name] / "release" / "README.md").read_text(encoding="utf-8")
    assert f"# {kind} fine-tuned on dishes" in card and f"- {kind.lower()}\n" in card
    assert ("patches of" in card) == (patch is not None)
    assert "vit" not in card.lower().replace("vit-food101", "")


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin"])
def test_the_release_gives_the_evaluated_answer(runs, name):
    row = (runs[name] / "predictions.csv").read_text().splitlines()[1].split(",")
    stock = pipeline("image-classification", model=str(runs[name] / "release"), device="cpu")
    scores = {r["label"]: r["score"] for r in stock(str(runs[name] / "example.jpg"))}
    assert set(scores) == set(LABELS)
    assert scores[row[2]] == pytest.approx(float(row[3]), abs=0.02)


def test_a_vit_and_a_cnn_beside_each_other(tiny_run, runs):
    report = compare_runs([str(tiny_run), str(runs["convnext"])])
    models = [("vit", tiny_run), ("cnn", runs["convnext"])]
    report["speed"] = measure_throughput(models, rounds=1, batch_size=1)
    assert [row["architecture"][:3] for row in report["runs"]] == ["ViT", "Con"]
    pair = report["pairs"][0]
    assert pair["both_right"] + pair["only_first_right"] == 18 * report["runs"][0]["top1"]
    assert "DIFFERENT PRE-TRAINING" in render(report) and "ConvNext" in render(report)


# ---- the head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_the_head_is_found_where_the_backbone_is_as_wide(tmp_path, name):
    """64 labels: ConvNeXt and DeiT have inner layers of just this width."""
    labels = [f"dish {i}" for i in range(64)]
    model = load_network(save_backbone(tmp_path / name, name, labels)).model
    (head,) = heads_of(model)
    last = model.classifier[-1] if name == "resnet" else model.classifier
    assert head is last and head.out_features == 64


@pytest.mark.parametrize("name", BACKBONES)
def test_a_new_head_of_the_old_shape(checkpoints, name):
    before, after = load_network(checkpoints[name]).model, network_of(checkpoints[name]).model
    (old,), (new,) = heads_of(before), heads_of(after)
    assert old.weight.shape == new.weight.shape and not torch.equal(old.weight, new.weight)
    backbone = after.base_model.state_dict()
    assert all(torch.equal(v, backbone[k]) for k, v in before.base_model.state_dict().items())


def test_a_distilled_deit_has_two_heads(tmp_path):
    kind = "DeiTForImageClassificationWithTeacher"
    folder = save_backbone(tmp_path / "deit", "deit", OTHERS, architecture=kind)
    saved = load_network(folder).model
    assert type(saved).__name__ == kind and len(heads_of(saved)) == 2
    renewed = network_of(folder, head_init_scale=0)
    assert all(not p.any() for head in heads_of(renewed.model) for p in head.parameters())
    moved = heads_of(network_of(folder, OTHERS[::-1]).model)
    for before, after in zip(heads_of(saved), moved, strict=True):
        assert torch.equal(after.weight, before.weight.flip(0))


def test_a_distilled_deit_is_trained_and_scored(tmp_path, splits):
    """Its forward takes no labels, and gives the scores of each head beside their mean."""
    kind = "DeiTForImageClassificationWithTeacher"
    network = network_of(save_backbone(tmp_path / "deit", "deit", OTHERS, architecture=kind))
    before = [head.weight.detach().clone() for head in heads_of(network.model)]
    trainer = build_trainer(network, splits, tiny_settings(tmp_path / "run", num_train_epochs=1))
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_top1"] <= 1
    after = [head.weight for head in heads_of(network.model)]
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert moved == [True, True]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trained_parameter_gets_a_gradient(checkpoints, name):
    """DDP would wait for the others: DINOv2 and BEiT keep the mask token of their pretraining."""
    network = network_of(checkpoints[name])
    model, size = network.model.train(), network.preprocessing
    model(pixel_values=torch.randn(2, 3, size.height, size.width)).logits.square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    frozen = {n.rsplit(".", 1)[-1] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({"mask_token"} if name == "dinov2" else set())


def test_a_head_that_is_not_linear_is_refused(checkpoints):
    model = load_network(checkpoints["convnext"]).model
    model.classifier = nn.Conv1d(16, 3, 1)
    with pytest.raises(UserError, match="ConvNextForImageClassification has no linear layer"):
        heads_of(model)


def test_a_multi_label_checkpoint_becomes_single_label(tmp_path):
    """The stock pipeline would otherwise give sigmoids, which do not sum to 1."""
    kind = {"problem_type": "multi_label_classification"}
    folder = save_backbone(tmp_path / "convnext", "convnext", OTHERS, **kind)
    assert network_of(folder).model.config.problem_type == "single_label_classification"


def test_a_checkpoint_that_needs_a_missing_library_is_one_line(tmp_path):
    timm = {"architecture": "resnet18", "model_type": "timm_wrapper", "num_classes": 3}
    (tmp_path / "config.json").write_text(json.dumps(timm))
    with pytest.raises(UserError, match="cannot be loaded.*timm") as error:
        network_of(tmp_path)
    assert "\n" not in str(error.value)


# ---- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin", "dinov2"])
def test_what_is_made_for_vit_is_refused_in_one_line(checkpoints, name):
    model = load_network(checkpoints[name]).model
    kind = type(model).__name__
    with pytest.raises(UserError, match=f"layer_decay: .*{kind}.*leave layer_decay at 1"):
        layer_ids(model)
    with pytest.raises(UserError, match=f"drop_path is 0.1: .*{kind}.*leave drop_path at 0"):
        add_drop_path(model, 0.1)


@pytest.mark.parametrize("key", ["layer_decay", "drop_path"])
def test_a_refusal_leaves_no_folder(checkpoints, tiny_data, tmp_path, key):
    recipe = write_recipe(tmp_path / "a.yaml", dataset=tiny_data, model_config=None)
    words = ["--model", checkpoints["resnet"], f"--{key}", "0.5", "--output_dir", tmp_path / "run"]
    with pytest.raises(UserError, match=key):
        train(recipe, *words)
    assert not (tmp_path / "run").exists()


VECTORS = ("cls_token", "mask_token", "position_embeddings", "distillation_token")
VECTORS += ("relative_position_bias_table", "grn.weight", "grn.bias", "layer_scale_parameter")


@pytest.mark.parametrize("name", BACKBONES)
def test_weight_decay_is_for_matrices(checkpoints, name):
    model = load_network(checkpoints[name]).model
    decayed = set(FoodTrainer.get_decay_parameter_names(SimpleNamespace(), model))
    for key, parameter in model.named_parameters():
        is_vector = parameter.squeeze().ndim < 2 or key.endswith(VECTORS)
        assert (key in decayed) == (not is_vector), key
    assert any("classifier" in key for key in decayed)


def test_batch_statistics_are_averaged_and_resumed(checkpoints, splits, tmp_path):
    """ResNet's running means are no parameters: weights, average and buffers, bit for bit."""

    def trained(folder: str, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        values = {"ema_decay": 0.5, "load_best_model_at_end": False, "save_strategy": "steps"}
        arguments = tiny_settings(tmp_path / folder, save_steps=1, save_total_limit=9, **values)
        network = network_of(checkpoints["resnet"])
        trainer = build_trainer(network, splits, arguments)
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return {k: v.clone() for k, v in trainer.model.state_dict().items()}

    whole = trained("whole")
    resumed = trained("resumed", tmp_path / "whole" / "checkpoint-2")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    last = load_file(tmp_path / "whole" / "checkpoint-4" / MovingAverage.file)
    counts = [key for key in last if key.endswith("num_batches_tracked")]
    assert counts and all(int(last[key]) == int(whole[key]) == 4 for key in counts)
    means = [key for key in last if key.endswith("running_mean")]
    assert any(not torch.equal(last[key], whole[key]) for key in means)  # the average's own
