# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are a ViT in other clothes, whole and spoilt, and what they compute."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests.unit.toys import LABELS
from training.common.errors import UserError
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.network import Network

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
# model_type -> (class, values of its config beside `SHAPE`): patches of 14, 6 x 6 of them
KINDS = {
    "dinov2": ("Dinov2Model", {"mlp_ratio": 2}),
    "vit_mae": ("ViTMAEModel", {"intermediate_size": 48, "layer_norm_eps": 1e-5}),
    "vit_msn": ("ViTMSNModel", {"intermediate_size": 48}),
}
SIZE, PATCH = 84, 14
STAGES = dict.fromkeys(("out_features", "out_indices", "stage_names"))


def save(folder: Path, kind: str = "dinov2", name: str | None = None, **values: object) -> Path:
    """A checkpoint with weights that are nowhere 0 or 1, gamma within +-2."""
    name = name or KINDS[kind][0]
    cls = getattr(transformers, name)
    shape = {**SHAPE, **KINDS[kind][1], "image_size": SIZE, "patch_size": PATCH}
    torch.manual_seed(0)
    model = cls(cls.config_class(**{**shape, **values}))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_matrix = parameter.ndim > 1 and key.endswith("weight")
            if key.endswith("lambda1"):
                parameter.uniform_(-2, 2)
            else:
                parameter.normal_(0, 0.2 if is_matrix else 1)
    model.save_pretrained(folder)
    crop = {"crop_size": {"height": 56, "width": 56}, "size": {"shortest_edge": 64}}
    transformers.BitImageProcessorPil(**crop).save_pretrained(folder)
    return folder


def build(folder: Path, labels: list[str] = LABELS, seed: int = 0, **values: object) -> Network:
    return build_network(ModelArguments(model=str(folder), as_vit=True, **values), labels, seed)


def edited(folder: Path, source: Path, **values: object) -> Path:
    """A copy with other values in config.json; None takes a key away."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = {**json.loads((source / "config.json").read_text()), **values}
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def with_weights(folder: Path, source: Path, change) -> Path:
    """A copy whose weights are what `change` makes of them."""
    edited(folder, source)
    state = change(load_file(source / "model.safetensors"))
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def original(folder: Path) -> torch.nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    return AutoModel.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def tokens(folder: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of noise, and the class token of the checkpoint as transformers computes it."""
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = original(folder)
    how = {} if "Dinov2" in type(model).__name__ else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        return pixels, model(pixel_values=pixels, **how)[0][:, 0]


def refused(folder: Path, message: str, **values: object) -> None:
    with pytest.raises(UserError, match=message) as error:
        build(folder, **values)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
