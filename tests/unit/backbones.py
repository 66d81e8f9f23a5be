# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of other networks than ViT, each with the kind of processor that it comes with."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageClassification

SIZE = 32
ATTENTION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONV = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "image_size": SIZE}
CROP_PCT = ("ConvNext", {"size": {"shortest_edge": SIZE}, "crop_pct": 0.875})
SQUARE = ("ViT", {"size": {"height": SIZE, "width": SIZE}})
CROPPED = {"crop_size": {"height": SIZE, "width": SIZE}}
# Name -> (config, its values), (image processor, its values).
BACKBONES: dict[str, tuple[tuple[str, dict], tuple[str, dict]]] = {
    "resnet": (
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
        CROP_PCT,
    ),
    "convnext": (("ConvNext", CONV), CROP_PCT),
    "convnextv2": (("ConvNextV2", CONV), CROP_PCT),
    "swin": (
        (
            "Swin",
            {
                "image_size": SIZE,
                "patch_size": 4,
                "embed_dim": 8,
                "depths": [1, 1],
                "num_heads": [2, 2],
                "window_size": 4,
            },
        ),
        SQUARE,
    ),
    "deit": (
        ("DeiT", {**ATTENTION, "intermediate_size": 64, "image_size": SIZE, "patch_size": 16}),
        ("DeiT", {"size": {"height": 36, "width": 36}, **CROPPED}),
    ),
    "dinov2": (
        ("Dinov2", {**ATTENTION, "image_size": 48, "patch_size": 16}),
        ("Bit", {"size": {"shortest_edge": 37}, **CROPPED}),
    ),
}


def processor_of(name: str) -> Any:
    kind, values = BACKBONES[name][1]
    return getattr(transformers, f"{kind}ImageProcessorPil")(**values)


def save_backbone(
    folder: Path, name: str, labels: list[str], architecture: str | None = None, **values: Any
) -> Path:
    """A checkpoint from random weights, as `save_pretrained` leaves it on the Hub."""
    kind, config = BACKBONES[name][0]
    torch.manual_seed(0)
    built = getattr(transformers, f"{kind}Config")(
        **{**config, **values},
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        architectures=[architecture or f"{kind}ForImageClassification"],
    )
    AutoModelForImageClassification.from_config(built).save_pretrained(folder)
    processor_of(name).save_pretrained(folder)
    return folder
