# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are a ViT in other clothes: the same class token, and what is refused by name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTForImageClassification

from tests.unit.clothes import (
    KINDS,
    PATCH,
    SIZE,
    build,
    edited,
    original,
    save,
    tokens,
    with_weights,
)
from tests.unit.pictures import encode, photo
from tests.unit.toys import LABELS, tiny_network
from training.model import as_vit
from training.model.arguments import ModelArguments
from training.model.as_vit import (
    CONVERTED,
    REFUSED,
    config_side,
    fold_layer_scale,
    interpolate_positions,
    load_as_vit,
    plain_name,
    vit_values,
)
from training.model.create import build_network
from training.model.network import load_network

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clothes")
    return {kind: save(root / kind, kind) for kind in KINDS}


@pytest.fixture
def dinov2(checkpoints) -> Path:
    return checkpoints["dinov2"]


# ---- the same class token ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, 56, 112])
@pytest.mark.parametrize("kind", KINDS)
def test_the_class_token_is_the_same(checkpoints, kind, size):
    network = build(checkpoints[kind], image_size=size)
    model = network.model.eval()
    assert type(model) is ViTForImageClassification and model.config.model_type == "vit"
    assert model.config._attn_implementation == "sdpa"
    assert model.config.image_size == network.preprocessing.height == size
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert not any(p.is_meta for p in model.parameters())
    pixels, wanted = tokens(checkpoints[kind], size)
    with torch.no_grad():
        found = model.vit(pixel_values=pixels)[0][:, 0]
        logits = model(pixel_values=pixels).logits
    assert (found - wanted).abs().max() < 1e-5 < wanted.abs().max()
    assert torch.allclose(logits, model.classifier(found))
    done = network.as_vit
    assert done["positions"] == [SIZE // PATCH, size // PATCH] and done["difference"] < 1e-5
    assert (done["model_type"], done["head"], network.head) == (kind, False, "new")


def test_the_size_is_the_processors_crop_and_not_the_configs(dinov2):
    network = build(dinov2)
    found = network.preprocessing
    assert (found.height, found.width, found.shortest_edge) == (56, 56, 64)
    assert network.model.config.image_size == 56 and network.as_vit["positions"] == [6, 4]
    assert tuple(network.model.vit.embeddings.position_embeddings.shape) == (1, 17, 32)
    assert network.model.config.layer_norm_eps == 1e-6  # ViT's own is 1e-12


ELSEWHERE = """
import json, sys, torch
from transformers import AutoModelForImageClassification, pipeline
assert not [name for name in sys.modules if name.split(".")[0] in ("training", "inference")]
folder, pixels = sys.argv[1], torch.load(sys.argv[2])
model = AutoModelForImageClassification.from_pretrained(folder).eval()
with torch.no_grad():
    token = model.vit(pixel_values=pixels)[0][:, 0]
scores = pipeline("image-classification", model=folder, device="cpu")(sys.argv[3])
modules = sorted({type(m).__module__ for m in model.modules() if "models" in type(m).__module__})
print(json.dumps({"token": token.tolist(), "labels": [r["label"] for r in scores], "modules": modules}))
"""


def test_saved_and_loaded_by_the_stock_pipeline_elsewhere(dinov2, tmp_path):
    """In a process without this project: no code of Dinov2 is left, and the class token is the same."""
    network = build(dinov2)
    network.model.save_pretrained(tmp_path / "vit")
    network.processor.save_pretrained(tmp_path / "vit")
    pixels, wanted = tokens(dinov2, 56)
    torch.save(pixels, tmp_path / "pixels.pt")
    (tmp_path / "photo.png").write_bytes(encode(photo(), "PNG"))
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    words = [tmp_path / name for name in ("elsewhere.py", "vit", "pixels.pt", "photo.png")]
    done = subprocess.run(
        [sys.executable, "-I", *map(str, words)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (torch.tensor(said["token"]) - wanted).abs().max() < 1e-5
    assert sorted(said["labels"]) == sorted(LABELS)
    assert said["modules"] == ["transformers.models.vit.modeling_vit"]
    names = " ".join(load_file(tmp_path / "vit" / "model.safetensors"))
    assert "lambda" not in names and "dinov2" not in names


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_the_names_of_any_version(checkpoints, tmp_path, kind):
    """save_pretrained writes those of transformers 4, as the published files have; modules are called otherwise."""
    files = load_file(checkpoints[kind] / "model.safetensors")
    assert any("encoder.layer.0.attention.attention.query.weight" in name for name in files)
    modules = original(checkpoints[kind]).state_dict()
    assert {plain_name(name) for name in files} == {plain_name(name) for name in modules}
    folder = with_weights(tmp_path / "a", checkpoints[kind], lambda _: modules)
    before, after = build(checkpoints[kind]).model, build(folder).model
    for key, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key


def test_half_precision_and_shards(dinov2, tmp_path):
    half = with_weights(
        tmp_path / "half", dinov2, lambda state: {k: v.half() for k, v in state.items()}
    )
    network = build(half)
    pixels, wanted = tokens(half, 56)
    with torch.no_grad():
        found = network.model.eval().vit(pixel_values=pixels)[0][:, 0]
    assert found.dtype == torch.float32 and (found - wanted).abs().max() < 1e-5
    shards = edited(tmp_path / "shards", dinov2)
    (shards / "model.safetensors").unlink()
    original(dinov2).save_pretrained(shards, max_shard_size="20KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    assert torch.equal(
        build(shards).model.vit.embeddings.position_embeddings,
        build(dinov2).model.vit.embeddings.position_embeddings,
    )


def test_attention_without_biases_is_carried_over(tmp_path):
    folder = save(tmp_path / "a", qkv_bias=False, hidden_act="relu")
    network = build(folder)
    assert network.model.vit.layers[0].attention.q_proj.bias is None
    pixels, wanted = tokens(folder, 56)
    with torch.no_grad():
        found = network.model.eval().vit(pixel_values=pixels)[0][:, 0]
    assert (found - wanted).abs().max() < 1e-5


def test_a_vit_is_left_alone(tmp_path):
    """DINO v1 and plain DeiT are saved as ViT."""
    network = tiny_network()
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    same = build(tmp_path)
    assert same.as_vit is None and same.head == "kept"
    state = network.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in same.model.state_dict().items())


# ---- the head -----------------------------------------------------------------------------------


def test_a_head_on_class_token_and_patches_is_left_out(tmp_path, caplog):
    """Even where its labels are those of the data: it is twice as wide."""
    labels = {"id2label": dict(enumerate(LABELS))}
    folder = save(tmp_path / "a", name="Dinov2ForImageClassification", **labels)
    with caplog.at_level("INFO"):
        network = build(folder)
    assert network.head == "new" and network.as_vit["head"]
    assert "its own head is left out, a new one reads the class token" in caplog.text
    assert tuple(network.model.classifier.weight.shape) == (3, 32)
    assert not network.model.classifier.bias.any()
    assert 0.01 < network.model.classifier.weight.std() < 0.03
    assert network.model.config.id2label == dict(enumerate(LABELS))
    pixels, wanted = tokens(folder, 56)
    with torch.no_grad():
        found = network.model.eval().vit(pixel_values=pixels)[0][:, 0]
    assert (found - wanted).abs().max() < 1e-5


def test_the_seed_decides_the_head(dinov2):
    first, again, other = (build(dinov2, seed=seed).model.classifier.weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not build(dinov2, head_init_scale=0).model.classifier.weight.any()


def test_a_decoder_of_pretraining_is_left_out(checkpoints, tmp_path):
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
    decoder |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 16}
    folder = save(tmp_path / "a", "vit_mae", "ViTMAEForPreTraining", **decoder)
    assert any("decoder" in key for key in load_file(folder / "model.safetensors"))
    network = build(folder)
    assert network.as_vit["head"] is False
    assert not any("decoder" in key for key in network.model.state_dict())
    assert "masking" in network.as_vit["done"]


# ---- the parts ------------------------------------------------------------------------------------


def test_without_as_vit_it_stays_what_it_is(dinov2):
    network = build_network(ModelArguments(model=str(dinov2)), LABELS, 0)
    assert type(network.model).__name__ == "Dinov2ForImageClassification"
    assert network.as_vit is None


def test_every_key_of_a_config_is_accounted_for():
    """A key that a later transformers adds is refused, until somebody has looked at it."""
    for kind, clothes in CONVERTED.items():
        config = transformers.AutoConfig.for_model(kind)
        values = vit_values(clothes, config, "x")
        assert values["patch_size"] == config.patch_size
        assert values["layer_norm_eps"] == config.layer_norm_eps
        assert values["intermediate_size"] == 3072


def test_a_layer_scale_is_folded():
    torch.manual_seed(0)
    state = {"layers.0.attention.o_proj.weight": torch.randn(4, 4)}
    state |= {"layers.0.attention.o_proj.bias": torch.randn(4)}
    gamma, x = torch.randn(4), torch.randn(3, 4)
    weight, bias = state.values()
    wanted = gamma * (x @ weight.T + bias)
    state["layers.0.layer_scale1.lambda1"] = gamma
    fold_layer_scale(state)
    weight, bias = state.values()
    assert torch.allclose(x @ weight.T + bias, wanted, atol=1e-6)


def test_positions_are_interpolated_as_transformers_does(dinov2):
    model = original(dinov2)
    positions = model.embeddings.position_embeddings.detach()
    assert interpolate_positions(positions, 6, 6) is positions
    for side in (4, 9):
        size = side * PATCH
        theirs = model.embeddings.interpolate_pos_encoding(
            torch.zeros(1, 1 + side**2, 32), size, size
        )
        assert torch.equal(interpolate_positions(positions, 6, side), theirs)
    assert config_side(model.config, "x") == 6


def test_the_original_is_not_kept(dinov2, monkeypatch):
    """Its tensors become the ViT's; nothing but a folded matrix is copied."""
    seen, real = [], as_vit.load_weights

    def load(*args):
        loaded = real(*args)
        seen.append({k: v.data_ptr() for k, v in loaded[0].state_dict().items()})
        return loaded

    monkeypatch.setattr(as_vit, "load_weights", load)
    config = transformers.AutoConfig.from_pretrained(dinov2)
    labels = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    model, _ = load_as_vit(str(dinov2), None, config, SIZE, labels)
    kept = {value.data_ptr() for value in model.vit.state_dict().values()}
    copied = {key for key, pointer in seen[0].items() if pointer not in kept}
    ends = ("lambda1", "mask_token", "o_proj.weight", "o_proj.bias", "fc2.weight", "fc2.bias")
    assert copied and all(key.endswith(ends) for key in copied)


# ---- the table ------------------------------------------------------------------------------------


def test_the_table_for_people_is_this_one():
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\| (yes|no|is one)\b", text, re.M)
    wanted = {kind: "yes" for kind in CONVERTED} | {kind: "no" for kind in REFUSED}
    assert dict(rows) == {"vit": "is one", **wanted} and len(rows) == len(wanted) + 1


def test_a_checkpoint_as_vit_loads_like_any_other(dinov2, tmp_path):
    network = build(dinov2)
    network.model.save_pretrained(tmp_path)
    network.processor.save_pretrained(tmp_path)
    again = load_network(tmp_path)
    assert again.preprocessing == network.preprocessing
    state = network.model.state_dict()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
