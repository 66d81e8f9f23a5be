# SPDX-License-Identifier: Apache-2.0
"""Pictures whose label is one patch of them, and a small ViT that has learnt it."""

import functools

import torch
from transformers import ViTConfig, ViTForImageClassification

SIDE, PATCH, DISHES = 32, 8, 4


def scene(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with one pattern in it: pictures, which of `DISHES` patterns, and its patch (row, column).

    It lies in the middle columns, which are what is left of a picture beside another.
    """
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randn(DISHES, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(9)) * 2
    pixels = torch.randn(count, 3, SIDE, SIDE, generator=draw) * 0.3
    labels = torch.randint(DISHES, (count,), generator=draw)
    places = torch.stack(
        [torch.randint(4, (count,), generator=draw), torch.randint(1, 3, (count,), generator=draw)],
        1,
    )
    for each, label, (row, column) in zip(pixels, labels, places.tolist(), strict=True):
        each[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += patterns[
            label
        ]
    return pixels, labels, places


@functools.cache
def trained() -> ViTForImageClassification:
    """A small ViT that has learnt to name the pattern."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
        image_size=SIDE, patch_size=PATCH, num_labels=DISHES, initializer_range=0.05,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(90):
        pixels, labels, _ = scene(48, step)
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()
