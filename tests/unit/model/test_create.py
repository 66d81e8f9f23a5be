# SPDX-License-Identifier: Apache-2.0
"""Networks from scratch and from saved files: which head, which labels, which resolution."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
)

from tests.unit.toys import (
    LABELS,
    TINY_VIT,
    tiny_network,
)
from training.common.errors import UserError
from training.model.arguments import ModelArguments
from training.model.config_block import read_block
from training.model.create import build_network
from training.model.names import names_of
from training.model.network import Network, label_names_from, label_names_of, load_network

REORDERED = ["pizza", "cheesecake", "cheese_plate"]
PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32).sin()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A tiny classifier as a folder: three labels, a head with a bias, somebody's pipeline."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    network = tiny_network(seed=3)
    with torch.no_grad():  # distinct everywhere, so that a wrong row or position shows
        network.model.classifier.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        network.model.vit.embeddings.position_embeddings.normal_()
    network.model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    edit_config(folder, custom_pipelines={"old-task": {"impl": "old.Old", "pt": []}})
    return folder


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def logits(model: torch.nn.Module, size: int = 32) -> torch.Tensor:
    pixels = torch.nn.functional.interpolate(PIXELS, size=(size, size))
    with torch.inference_mode():
        return model.eval()(pixel_values=pixels).logits


def state_is_equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    b = b.state_dict()
    return all(torch.equal(value, b[key]) for key, value in a.state_dict().items())


# ---- from scratch -----------------------------------------------------------------------------


def test_from_scratch():
    network = tiny_network()
    config = network.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (32, 2, 32)
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert config.problem_type == "single_label_classification"
    assert (network.head, network.revision, network.license) == ("new", None, None)
    assert (network.preprocessing.height, network.preprocessing.width) == (32, 32)
    assert all(p.dtype == torch.float32 for p in network.model.parameters())
    assert logits(network.model).shape == (2, 3)


def test_image_size_overrides_the_mapping():
    args = ModelArguments(model_config=dict(TINY_VIT), image_size=48)
    network = build_network(args, LABELS, 0)
    assert network.model.config.image_size == network.preprocessing.height == 48


def test_the_seed_decides_the_weights():
    torch.manual_seed(123)  # what was drawn before must not matter
    assert state_is_equal(tiny_network(seed=1).model, tiny_network(seed=1).model)
    assert not state_is_equal(tiny_network(seed=1).model, tiny_network(seed=2).model)


def test_an_unknown_key_gets_a_suggestion():
    with pytest.raises(UserError, match="unknown key hiden_size: did you mean hidden_size?"):
        tiny_network(hiden_size=32)


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 5},  # 32 is no multiple
        {"hidden_size": "wide"},
        {"patch_size": 0},
        {"hidden_act": "nope"},
        {"num_hidden_layers": -1},
        {"intermediate_size": 0},  # a ViT without MLPs
        {"image_size": 0},
        {"image_size": [32, 32]},
        {"num_channels": 1},
        {"patch_size": 64},  # larger than the image: no patch at all
    ],
)
def test_an_impossible_network_is_one_line(config):
    with pytest.raises(UserError, match="makes no ViT") as error:
        tiny_network(**config)
    assert "\n" not in str(error.value)


# ---- from saved files -------------------------------------------------------------------------


def test_a_head_for_the_same_labels_is_kept(saved):
    network = build_network(ModelArguments(model=str(saved)), LABELS, seed=0)
    assert network.head == "kept"
    original = AutoModelForImageClassification.from_pretrained(saved)
    assert state_is_equal(original, network.model)


def test_a_kept_head_follows_the_order_of_the_labels(saved):
    """food101's order is not the sorted one of a folder; a label must keep its weights."""
    network = build_network(ModelArguments(model=str(saved)), REORDERED, seed=0)
    assert network.head == "kept"
    assert network.model.config.id2label == dict(enumerate(REORDERED))
    before = logits(load_network(saved).model)
    after = logits(network.model)
    for i, name in enumerate(REORDERED):
        assert torch.equal(after[:, i], before[:, LABELS.index(name)])


def test_other_labels_get_a_new_head(saved):
    network = build_network(ModelArguments(model=str(saved)), ["sushi", "waffles"], seed=0)
    assert network.head == "new"
    assert network.model.config.id2label == {0: "sushi", 1: "waffles"}
    original = AutoModelForImageClassification.from_pretrained(saved)
    assert state_is_equal(original.vit, network.model.vit)
    assert network.model.classifier.weight.shape == (2, 32)


def test_other_labels_of_the_same_number_get_a_new_head(saved):
    """The shapes fit, so nothing but the names can tell."""
    network = build_network(ModelArguments(model=str(saved)), ["sushi", "waffles", "ramen"], 0)
    original = AutoModelForImageClassification.from_pretrained(saved)
    assert network.head == "new"
    assert not torch.equal(network.model.classifier.weight, original.classifier.weight)


def test_the_same_seed_gives_the_same_new_head(saved):
    args, labels = ModelArguments(model=str(saved)), ["sushi", "waffles"]
    first = build_network(args, labels, seed=5)
    torch.rand(7)
    assert state_is_equal(first.model, build_network(args, labels, seed=5).model)
    other = build_network(args, labels, seed=6)
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)


def test_the_config_is_cleaned(saved, tmp_path):
    network = build_network(ModelArguments(model=str(saved)), ["sushi", "waffles"], seed=0)
    network.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label2id"] == {"sushi": 0, "waffles": 1}
    assert config["problem_type"] == "single_label_classification"
    assert "custom_pipelines" not in config
    assert label_names_from(tmp_path) == ["sushi", "waffles"]


# ---- another resolution -----------------------------------------------------------------------


def test_the_same_resolution_changes_nothing(saved):
    network = build_network(ModelArguments(model=str(saved), image_size=32), LABELS, seed=0)
    assert torch.equal(logits(network.model), logits(load_network(saved).model))


def test_another_resolution_interpolates_the_positions(saved):
    network = build_network(ModelArguments(model=str(saved), image_size=64), LABELS, seed=0)
    old = load_network(saved).model.vit.embeddings.position_embeddings
    new = network.model.vit.embeddings.position_embeddings
    assert network.model.config.image_size == network.preprocessing.height == 64
    assert tuple(new.shape) == (1, 1 + 4 * 4, 32)
    assert torch.equal(new[:, 0], old[:, 0])  # the class token has no place
    grid = old[:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True)
    assert torch.allclose(new[:, 1:], grid.permute(0, 2, 3, 1).reshape(1, 16, 32))
    assert logits(network.model, 64).shape == (2, 3)
    assert torch.equal(network.model.classifier.weight, load_network(saved).model.classifier.weight)
    # What is saved says so too, and is used as such by whoever loads it.
    assert network.processor.size["height"] == 64


def test_a_resolution_that_the_patches_do_not_divide(saved):
    with pytest.raises(UserError, match="image_size 40 is not a multiple of the patch size 16"):
        build_network(ModelArguments(model=str(saved), image_size=40), LABELS, seed=0)


# ---- what cannot be loaded --------------------------------------------------------------------


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "user/nowhere"])
def test_no_such_model_is_one_line(model):
    said = "model user/nowhere cannot be loaded" if "user" in model else f"^{model} does not exist"
    with pytest.raises(UserError, match=said) as error:
        build_network(ModelArguments(model=model), LABELS, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "missing", ["config.json", "model.safetensors", "preprocessor_config.json"]
)
def test_incomplete_files_are_one_line(saved, tmp_path, missing):
    for path in saved.iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="cannot be loaded") as error:
        build_network(ModelArguments(model=str(tmp_path)), LABELS, seed=0)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_not_opened(saved, tmp_path):
    for path in saved.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"whatever")
    for load in (load_network, lambda folder: build(str(folder))):
        with pytest.raises(UserError, match="pytorch_model.bin only, a pickle, .* python -c "):
            load(tmp_path)


def build(model: str, labels: list[str] = LABELS) -> Network:
    return build_network(ModelArguments(model=model), labels, seed=0)


def test_a_head_that_is_not_in_the_files_is_new(saved, tmp_path):
    """Its labels are those of the data: only the weights tell that nobody trained it."""
    bare = shutil.copytree(saved, tmp_path / "bare")
    load_network(saved).model.vit.save_pretrained(bare)
    for labels in (LABELS, REORDERED):
        network = build(str(bare), labels)
        assert network.head == "new" and label_names_of(network.model.config) == labels
        again = build(str(bare), labels)
        assert torch.equal(network.model.classifier.weight, again.model.classifier.weight)
        assert not network.model.classifier.bias.any()
        assert state_is_equal(network.model.vit, load_network(saved).model.vit)


def test_a_path_where_nothing_is_and_one_in_the_home_folder(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent.parent)
    monkeypatch.setenv("HOME", str(saved.parent))
    wrong = f"{saved.parent.name}/tin"
    with pytest.raises(UserError, match=f"^{wrong} does not exist: .* did you mean .*/tiny.$"):
        build(wrong)
    assert build("~/tiny").head == "kept"


def test_a_damaged_file_is_one_line(saved, tmp_path):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_network(tmp_path)


def test_only_a_new_head_is_scaled(tmp_path):
    def build(labels: list[str] = LABELS, **values: object) -> dict[str, torch.Tensor]:
        network = build_network(ModelArguments(**values), labels, 0)
        return network.model.state_dict()

    plain = build(model_config=TINY_VIT)
    for scale in (0.0, 0.001):
        scaled = build(model_config=TINY_VIT, head_init_scale=scale)
        for name, value in plain.items():
            wanted = value * scale if name.startswith("classifier") else value
            assert torch.equal(scaled[name], wanted), name
    assert plain["classifier.weight"].std() > 0
    network = tiny_network()
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    kept = build(model=str(tmp_path), head_init_scale=0.0)
    assert torch.equal(kept["classifier.weight"], plain["classifier.weight"])
    renewed = build(["a", "b", "c"], model=str(tmp_path), head_init_scale=0.0)
    assert not renewed["classifier.weight"].any()


@pytest.mark.parametrize("scale", [-1.0, 1.5, math.nan])
def test_impossible_scales_of_the_head(scale):
    with pytest.raises(UserError, match=f"^head_init_scale is {scale}"):
        ModelArguments(head_init_scale=scale)


@pytest.mark.parametrize(
    ("card", "license_id"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("# A model\n", None),
        ("---\nlicense: [\n---\n", None),
        (b"\xff\xfe\x00", None),
        (None, None),
    ],
)
def test_the_license_of_a_folder_is_that_of_its_card(saved, tmp_path, card, license_id):
    folder = shutil.copytree(saved, tmp_path / "copy")
    if card is not None:
        (folder / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert build(str(folder)).license == license_id


def test_attention_is_sdpa_wherever_the_network_comes_from(tmp_path):
    network = tiny_network()
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    labels = list(network.model.config.id2label.values())
    networks = [network]
    for size in (32, 64):  # as saved, and with its positions resized
        networks.append(build_network(ModelArguments(str(tmp_path), image_size=size), labels, 0))
    assert [n.model.config._attn_implementation for n in networks] == ["sdpa"] * 3


# ---- names of the labels ------------------------------------------------------------------------


def test_a_network_has_the_names_of_its_labels(saved, tmp_path):
    (tmp_path / "names.csv").write_text("label,de\nsushi,Sushi\nwaffles,Waffeln\n", "utf-8")
    for model in ({"model_config": TINY_VIT}, {"model": str(saved)}):
        network = build_network(ModelArguments(**model), LABELS, 0)
        assert read_block(network.model.config) == {"format": 1, **names_of(LABELS)}
        args = ModelArguments(**model, display_names=str(tmp_path / "names.csv"))
        block = read_block(build_network(args, ["sushi", "waffles"], 0).model.config)
        assert block["names"]["de"] == {"sushi": "Sushi", "waffles": "Waffeln"}
        assert block["names"]["ko"] == {"sushi": "초밥", "waffles": "와플"}
        with pytest.raises(UserError, match="names sushi, waffles, and no label is called so"):
            build_network(args, LABELS, 0)
        unknown = build_network(ModelArguments(**model), ["x", "y"], 0)
        assert read_block(unknown.model.config) == {}


@pytest.mark.parametrize("block", [{"format": 1, "names": {"en": {"pizza": "X"}}}, {"format": 9}])
@pytest.mark.parametrize("size", [None, 64])
def test_the_block_of_the_start_is_not_carried_over(saved, tmp_path, block, size):
    """It was of other weights and perhaps other labels; a temperature would be folded twice."""
    folder = shutil.copytree(saved, tmp_path / "release")
    edit_config(folder, food_classification={**block, "temperature": 2.0})
    for labels in (LABELS, REORDERED, ["sushi", "waffles"]):
        network = build_network(ModelArguments(model=str(folder), image_size=size), labels, 0)
        assert read_block(network.model.config) == {"format": 1, **names_of(labels)}
    assert read_block(build(str(folder), ["x", "y", "z"]).model.config) == {}
