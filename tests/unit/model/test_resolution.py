# SPDX-License-Identifier: Apache-2.0
"""Another resolution: positions, image processor, and what is saved and loaded after it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    LevitConfig,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

from inference.food_classification import FoodClassificationPipeline
from inference.food_images import Preprocessing
from tests.unit.backbones import processor_of, save_backbone
from tests.unit.inference.test_food_images import MEAN_LEVELS, SIZES
from tests.unit.pictures import photo
from tests.unit.toys import LABELS, tiny_network, train, write_recipe
from training.common.errors import UserError
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.network import load_network
from training.model.resolution import at_resolution, patch_size, resize_positions, resize_processor

OTHERS = ["x", "y", "z"]


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """A ViT of 224 pixels and patches of 16, as the checkpoints of the recipes are."""
    folder = tmp_path_factory.mktemp("vit") / "vit"
    network = tiny_network(labels=OTHERS, image_size=224)
    with torch.no_grad():
        network.model.vit.embeddings.position_embeddings.normal_()
    network.model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    return folder


def network_of(folder: Path, image_size: int | None):
    args = ModelArguments(model=str(folder), image_size=image_size)
    return build_network(args, LABELS, seed=0)


# ---- positions --------------------------------------------------------------------------------


def test_the_same_size_is_the_identity(vit):
    model = load_network(vit).model
    assert at_resolution(model, 224) is model
    again = resize_positions(model, 224).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_224_to_384(vit, tmp_path):
    network = network_of(vit, 384)
    positions = network.model.vit.embeddings.position_embeddings
    assert tuple(positions.shape) == (1, 1 + 24 * 24, 32)
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    assert loaded.model.config.image_size == 384
    assert (loaded.preprocessing.height, loaded.preprocessing.width) == (384, 384)
    pixels = loaded.preprocessing.normalize(loaded.preprocessing.crop(np.asarray(photo()))[None])
    with torch.inference_mode():
        scores = [m.eval()(pixel_values=pixels).logits for m in (network.model, loaded.model)]
    assert scores[0].shape == (1, 3) and torch.equal(*scores)


def grid_of(kind: str) -> torch.Tensor:
    """(1, 32, 14, 14) of standard deviation 1."""
    torch.manual_seed(0)
    grid = torch.randn(1, 32, 14, 14)
    if kind == "smooth":
        coarse = torch.randn(1, 32, 4, 4)
        grid = torch.nn.functional.interpolate(coarse, size=(14, 14), mode="bicubic")
    return grid / grid.std()


@pytest.mark.parametrize(("kind", "difference"), [("smooth", 0.02), ("noise", 0.05)])
def test_the_difference_to_transformers_own_is_as_said(vit, kind, difference):
    """The figures in `resize_positions`."""
    config = ViTConfig.from_pretrained(vit)
    model = ViTForImageClassification(config)
    embeddings = model.vit.embeddings
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = grid_of(kind).flatten(2).transpose(1, 2)
    theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 24 * 24, 32), 384, 384)
    ours = resize_positions(model, 384).vit.embeddings.position_embeddings
    assert torch.equal(ours[:, 0], theirs[:, 0])
    assert (ours - theirs).abs().mean().item() == pytest.approx(difference, abs=0.006)


def test_deit_keeps_its_two_tokens(tmp_path):
    saved = load_network(save_backbone(tmp_path, "deit", OTHERS)).model
    with torch.no_grad():
        saved.deit.embeddings.position_embeddings.normal_()
    before = saved.deit.embeddings.position_embeddings.clone()
    after = resize_positions(saved, 64).deit.embeddings.position_embeddings
    assert tuple(after.shape) == (1, 2 + 4 * 4, 32)
    assert torch.equal(after[:, :2], before[:, :2])


# ---- the image processor ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "resized"),
    [
        ("swin", 64, {"height": 64, "width": 64, "shortest_edge": None, "resized": None}),
        ("deit", 64, {"height": 64, "width": 64, "shortest_edge": None, "resized": (72, 72)}),
        ("dinov2", 64, {"height": 64, "width": 64, "shortest_edge": 74, "resized": None}),
        ("resnet", 64, {"height": 64, "width": 64, "shortest_edge": 73, "resized": None}),
        ("resnet", 384, {"height": 384, "width": 384, "shortest_edge": None, "resized": None}),
    ],
)
def test_every_kind_of_processor_follows(tmp_path, name, size, resized):
    """A resize before a crop grows with it: the same part of the photograph is seen."""
    network = network_of(save_backbone(tmp_path / "a", name, OTHERS), size)
    network.processor.save_pretrained(tmp_path / "b")
    network.model.save_pretrained(tmp_path / "b")
    for found in (network.preprocessing, load_network(tmp_path / "b").preprocessing):
        assert {key: getattr(found, key) for key in resized} == resized
    level = network.preprocessing.rescale_factor / min(network.preprocessing.image_std)
    means = []
    for height, width in SIZES:
        image = np.asarray(photo(height, width))
        theirs = torch.as_tensor(np.asarray(network.processor(image)["pixel_values"][0]))
        ours = network.preprocessing.normalize(network.preprocessing.crop(image)[None])[0]
        assert ours.shape == theirs.shape == (3, size, size)
        means.append((ours - theirs).abs().mean() / level)
    assert np.mean(means) < MEAN_LEVELS


def test_a_processor_that_has_the_size_already_is_left_alone(tmp_path):
    network = network_of(save_backbone(tmp_path, "deit", OTHERS), 32)
    assert network.preprocessing == Preprocessing.from_processor(processor_of("deit"))


def test_the_config_follows_the_processor_although_it_has_the_size(tmp_path):
    """DINOv2's config says 48 and its processor 32: image_size 48 must not be taken for done."""
    network = network_of(save_backbone(tmp_path, "dinov2", OTHERS), 48)
    assert (network.preprocessing.height, network.preprocessing.shortest_edge) == (48, 56)


# ---- other networks ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin", "dinov2"])
def test_a_network_without_a_fixed_grid_keeps_its_weights(tmp_path, name):
    folder = save_backbone(tmp_path / "a", name, OTHERS)
    before, network = load_network(folder).model, network_of(folder, 64)
    backbone = network.model.base_model.state_dict()
    assert all(torch.equal(v, backbone[k]) for k, v in before.base_model.state_dict().items())
    # What a config of a transformer says decides its shapes; what that of a CNN says, nothing.
    expected = {"convnext": 64, "swin": 32, "dinov2": 48, "resnet": None}[name]
    assert getattr(network.model.config, "image_size", None) == expected
    network.model.save_pretrained(tmp_path / "b")
    AutoModelForImageClassification.from_pretrained(tmp_path / "b")


def test_patches_must_divide(vit, tmp_path):
    with pytest.raises(UserError, match="image_size 380 is not a multiple of the patch size 16"):
        network_of(vit, 380)
    with pytest.raises(UserError, match="image_size 40 is not a multiple of the patch size 16"):
        network_of(save_backbone(tmp_path, "dinov2", OTHERS), 40)


@pytest.mark.parametrize("size", [16 * 10**9, 16 * 10**20])
@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_more_pixels_than_memory_are_one_line(vit, tmp_path, name, size):
    folder = vit if name == "vit" else save_backbone(tmp_path, name, OTHERS)
    with pytest.raises(UserError, match=f"^image_size {size}: ") as error:
        network_of(folder, size)
    assert "\n" not in str(error.value)


def test_a_network_that_does_not_run_there_is_refused():
    config = LevitConfig(image_size=64, num_labels=3, architectures=["LevitForImageClassification"])
    model = AutoModelForImageClassification.from_config(config)
    assert at_resolution(model, 64) is model
    with pytest.raises(
        UserError, match="image_size 48: Levit.* does not run at that size"
    ) as error:
        at_resolution(model, 48)
    assert "\n" not in str(error.value)


def test_only_transformers_have_patches(tmp_path):
    sizes = {"resnet": None, "convnext": None, "swin": 4, "deit": 16, "dinov2": 16}
    for name, size in sizes.items():
        model = load_network(save_backbone(tmp_path / name, name, OTHERS)).model
        assert patch_size(model.config) == size, name


def test_the_default_processor_of_the_recipes():
    processor = resize_processor(tiny_network(image_size=224).processor, 384)
    assert dict(processor.size)["height"] == dict(processor.size)["width"] == 384


def test_sides_that_are_not_one_number_are_refused():
    model = tiny_network().model
    model.config.image_size = [32, 32]
    with pytest.raises(
        UserError, match="only square images and patches .* has \\[32, 32\\] and 16"
    ):
        at_resolution(model, 64)


# ---- the whole way ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_at_another_resolution(tiny_run, tiny_data, tmp_path):
    """From 32 to 64 pixels: config, processor, card and both pipelines say and do the same."""
    values = {"model": tiny_run / "model", "model_config": None, "image_size": 64}
    recipe = write_recipe(tmp_path / "a.yaml", dataset=tiny_data, num_train_epochs=1, **values)
    train(recipe, "--output_dir", tmp_path / "run")
    release = tmp_path / "run" / "release"
    assert json.loads((release / "config.json").read_text())["image_size"] == 64
    saved = json.loads((release / "preprocessor_config.json").read_text())["size"]
    assert (saved["height"], saved["width"]) == (64, 64)
    assert json.loads((release / "run.json").read_text())["model"]["image_size"] == 64
    evaluation = json.loads((release / "evaluation.json").read_text())
    assert evaluation["preprocessing"]["height"] == 64
    card = (release / "README.md").read_text(encoding="utf-8")
    assert "images of 64 x 64 pixels, patches of 16 x 16" in card and "to 64 x 64 pixels" in card
    row = (release / "predictions.csv").read_text().splitlines()[1].split(",")
    stock = pipeline("image-classification", model=str(release), device="cpu")
    network = load_network(release)
    food = FoodClassificationPipeline(
        model=network.model, image_processor=network.processor, device="cpu"
    )
    assert food.preprocessing.height == 64
    for classify in (stock, food):
        scores = {r["label"]: r["score"] for r in classify(str(tmp_path / "run" / "example.jpg"))}
        assert scores[row[2]] == pytest.approx(float(row[3]), abs=0.02)
