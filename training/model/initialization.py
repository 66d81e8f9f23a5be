"""First weights of a ViT that starts from none.

transformers draws every matrix with one standard deviation, BERT's 0.02, whatever its width.
Pretrained ViTs have a pattern in common that can be written down at once; what it buys on few
images is in docs/recipes.md.
"""

from __future__ import annotations

import math

import torch
from transformers import ViTForImageClassification

# Weights of noise and of identity in the two products, see `initialize_mimetic`; not tuned here.
QUERY_KEY, VALUE_OUTPUT = (0.7, 0.7), (0.4, -0.4)


@torch.no_grad()
def initialize_mimetic(model: ViTForImageClassification) -> None:
    """Initialise a ViT's attention to resemble a pretrained one's (mimetic, arXiv:2305.09828).

    In each block `W_query W_key^T` becomes 0.7 Z + 0.7 I, with a Z a head and cut to its rank,
    and `W_value W_output` becomes 0.4 Z - 0.4 I. Z is normal with variance 1 / hidden_size, from
    torch's global generator. So a patch first attends to patches that look like it or are near it.
    What is near the position embeddings say, which begin as sines and cosines of row and column, 0
    for the class token. All of it is learnt from there on.

    Raises:
        ValueError: the hidden size is not a multiple of 4, sine and cosine of row and column.
    """
    config = model.config
    if config.hidden_size % 4:
        raise ValueError("hidden_size is not a multiple of 4, as mimetic positions need it")
    for layer in model.vit.layers:
        attention = layer.attention
        rows = zip(
            attention.q_proj.weight.chunk(config.num_attention_heads),
            attention.k_proj.weight.chunk(config.num_attention_heads),
            strict=True,
        )
        for query, key in rows:
            left, right = factors(config.hidden_size, *QUERY_KEY, rank=len(query))
            query.copy_(left.T)
            key.copy_(right.T)
        left, right = factors(config.hidden_size, *VALUE_OUTPUT, rank=config.hidden_size)
        attention.v_proj.weight.copy_(left.T)
        attention.o_proj.weight.copy_(right)
    positions = model.vit.embeddings.position_embeddings
    side = config.image_size // config.patch_size
    positions.zero_()
    positions[0, 1:] = sine_positions(side, config.hidden_size)


def factors(
    size: int, noise: float, identity: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw Z and factor `noise` Z + `identity` I into A B^T, the nearest of that rank.

    Z (size, size) is normal with variance 1 / size, from torch's global generator.

    Returns:
        A and B, both (size, rank).
    """
    product = noise * torch.randn(size, size) / math.sqrt(size) + identity * torch.eye(size)
    left, values, right = torch.linalg.svd(product)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


def sine_positions(side: int, size: int, temperature: float = 10_000.0) -> torch.Tensor:
    """Make position embeddings (side^2, size) as MoCo v3 does (arXiv:2104.02057).

    The first half of each has sines and cosines of the row, the second those of the column.
    """
    frequencies = temperature ** -(torch.arange(size // 4) / (size // 4))
    angles = torch.arange(side)[:, None] * frequencies
    one = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = one.repeat_interleave(side, 0), one.repeat(side, 1)
    return torch.cat([rows, columns], 1)
