"""What happens to one photograph inside one ViT: the numbers and pictures of the page, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from inference.apps.explain.encoding import as_bytes, png_url, shares, signed, tiles
from inference.food_explain import Block, VitParts, grid_of, layer_norm, linear, split_heads

FILTERS = 28  # main directions that are shown, as in the figure of arXiv:2010.11929
# Bytes that one view of the page may take: attention between all tokens of a block grows with the
# square of their number. Beyond it only every second (third, ...) row and column of patches answers.
VIEW_BYTES = 600_000
# A patch whose vector is so many times as long as their median may be no part of the picture any more, but
# a place where the network keeps something (arXiv:2309.16588); the number is ours.
LONG = 3.0


@dataclass(frozen=True)
class Step:
    """What one block made of the tokens (num_tokens, width), all of it in float32."""

    before: torch.Tensor
    q: torch.Tensor  # (heads, num_tokens, width of a head); so are k and v
    k: torch.Tensor
    v: torch.Tensor
    attention: torch.Tensor  # (heads, num_tokens, num_tokens), rows add up to 1
    attended: torch.Tensor  # what attention adds to the tokens
    inner: torch.Tensor  # (num_tokens, intermediate), before GELU
    added: torch.Tensor  # what the MLP adds
    after: torch.Tensor


def walk(parts: VitParts, tokens: torch.Tensor) -> Iterator[Step]:
    """Take the tokens (num_tokens, width) through all blocks; one step is in memory at a time."""
    for block in parts.blocks:
        step = pass_through(block, tokens)
        yield step
        tokens = step.after


def pass_through(block: Block, tokens: torch.Tensor) -> Step:
    """Do the forward pass of one block on (num_tokens, width), and keep what happens on the way."""
    normed = layer_norm(block.layernorm_before, tokens)
    q, k, v = (
        split_heads(linear(projection, normed[None]), block.num_heads)[0]
        for projection in (block.q_proj, block.k_proj, block.v_proj)
    )
    attention = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
    attended = linear(block.o_proj, (attention @ v).transpose(0, 1).flatten(1))
    between = tokens + attended
    inner = linear(block.fc1, layer_norm(block.layernorm_after, between))
    added = linear(block.fc2, block.activation(inner))
    return Step(tokens, q, k, v, attention, attended, inner, added, between + added)


@torch.no_grad()
def anatomy(
    model: nn.Module, parts: VitParts, pixel_values: torch.Tensor, block: int
) -> dict[str, Any]:
    """Measure the steps of a ViT on one image.

    Args:
        pixel_values: (1, 3, height, width), as the network takes it.
        block: number of the block that is shown from inside, from 0.

    Returns:
        JSON values by step: "patches", "embedding", "class_token", "positions", "attention",
        "stream", "block", "head". Modules are called by their names in `model.named_modules()`.
    """
    names = {module: name for name, module in model.named_modules()}
    projection = parts.embeddings.patch_embeddings.projection
    rows, columns = grid_of(parts, pixel_values)
    tokens = parts.embeddings(pixel_values)[0].float()
    first = len(tokens) - rows * columns  # the tokens before the patches
    found = {
        "patches": {
            "rows": rows,
            "columns": columns,
            "count": rows * columns,
            "size": list(projection.kernel_size),
            "numbers": projection.weight[0].numel(),
            "tokens": len(tokens),
            "first": first,
        },
        "embedding": _embedding(projection, names[projection]),
        "class_token": _class_token(parts, names, pixel_values),
        "positions": _positions(parts, names, rows, columns),
    }
    kept = lattice(rows, columns, first, parts.blocks[0].num_heads)
    attention, stream = [], [_lengths(tokens, first)]
    for number, step in enumerate(walk(parts, tokens)):
        attention.append(step.attention[:, 0])
        stream.append(_lengths(step.after, first))
        stream[-1]["attended"], stream[-1]["added"] = (
            float(each.norm(dim=-1).mean()) for each in (step.attended, step.added)
        )
        if number == block:
            found["block"] = _block(
                parts.blocks[block], names, step, kept, block, model.config.hidden_act
            )
    found["attention"] = _attention(torch.stack(attention), first)
    found["stream"] = {
        "steps": stream,
        "long": max(each["longest"] for each in stream[1:]),
        "limit": LONG,
    }
    found["head"] = {
        "layernorm": names[parts.layernorm],
        "modules": [names[head] for head in parts.heads],
        "width": parts.heads[0].in_features,
        "labels": parts.heads[0].out_features,
        "params": sum(_count(head) for head in parts.heads),
    }
    return found


def lattice(rows: int, columns: int, first: int, num_heads: int) -> list[int]:
    """Choose the tokens that can be asked for: all, or those of every n-th row and column of patches."""
    tokens = first + rows * columns
    for every in range(1, max(rows, columns) + 1):
        patches = [
            first + row * columns + column
            for row in range(0, rows, every)
            for column in range(0, columns, every)
        ]
        if (first + len(patches)) * tokens * num_heads <= VIEW_BYTES:
            break
    return [*range(first), *patches]


# ---- steps ---------------------------------------------------------------------------------------


def _embedding(projection: nn.Conv2d, name: str) -> dict[str, Any]:
    """Find the main directions of the filters, and how much of them these hold."""
    weight = projection.weight.float()
    flat = weight.flatten(1)
    _, values, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    shown = min(FILTERS, int((values > 0).sum()))
    variance = values.square() / values.square().sum()
    sheet = tiles(directions[:shown].unflatten(1, weight.shape[1:]).numpy(), 7)
    return {
        "module": name,
        "shape": list(weight.shape),
        "width": weight.shape[0],
        "params": _count(projection),
        "shown": shown,
        "share": float(variance[:shown].sum()),
        "sheet": png_url(sheet),
        "sheet_size": [sheet.shape[1], sheet.shape[0]],
    }


def _class_token(
    parts: VitParts, names: dict[nn.Module, str], pixel_values: torch.Tensor
) -> dict[str, Any]:
    token = parts.embeddings.cls_token[0, 0].float()
    patches = parts.embeddings.patch_embeddings(pixel_values)[0].float()
    return {
        "parameter": f"{names[parts.embeddings]}.cls_token",
        "params": token.numel(),
        "length": float(token.norm()),
        "patch_length": float(patches.norm(dim=-1).mean()),
    }


def _positions(
    parts: VitParts, names: dict[nn.Module, str], rows: int, columns: int
) -> dict[str, Any]:
    """Compare every position with every other one by the cosine of their embeddings."""
    table = parts.embeddings.position_embeddings[0].float()
    unit = F.normalize(table[-rows * columns :], dim=-1)
    alike = unit @ unit.T
    others = alike.clone().fill_diagonal_(-2)
    nearest = others.argmax(1)
    own = torch.arange(len(nearest))
    down, right = (own // columns - nearest // columns).abs(), (own % columns - nearest % columns)
    kept = lattice(rows, columns, 0, 1)
    return {
        "parameter": f"{names[parts.embeddings]}.position_embeddings",
        "shape": list(parts.embeddings.position_embeddings.shape),
        "params": table.numel(),
        "length": float(table[-rows * columns :].norm(dim=-1).mean()),
        "adjacent": float(((down <= 1) & (right.abs() <= 1)).float().mean()),
        "kept": kept,
        "alike": as_bytes(alike[kept].numpy(), float(alike.min()), 1.0),
    }


def _attention(rows: torch.Tensor, first: int) -> dict[str, Any]:
    """Keep where the class token looks: (layers, heads, num_tokens), and what it gives to itself."""
    patches = rows[..., first:]
    return {
        "layers": rows.shape[0],
        "heads": rows.shape[1],
        "rows": shares((patches / patches.amax(-1, keepdim=True)).numpy()),
        "largest": patches.amax(-1).tolist(),
        "own": rows[..., 0].tolist(),
        "own_mean": rows[..., 0].mean(1).tolist(),
        # How many patches it looks at: the exponential of the entropy of what the patches get.
        "spread": _spread(patches).mean(1).tolist(),
    }


def _spread(weights: torch.Tensor) -> torch.Tensor:
    chances = weights / weights.sum(-1, keepdim=True)
    return torch.special.entr(chances).sum(-1).exp()


def _lengths(tokens: torch.Tensor, first: int) -> dict[str, float]:
    """Measure how long the vectors are: the class token's, the patches' median, the longest over it."""
    lengths = tokens.norm(dim=-1)
    middle = float(lengths[first:].median())
    return {
        "class_token": float(lengths[0]),
        "patch": middle,
        "longest": float(lengths[first:].max()) / middle,
    }


def _block(
    block: Block,
    names: dict[nn.Module, str],
    step: Step,
    kept: list[int],
    number: int,
    activation: str,  # its name in the config
) -> dict[str, Any]:
    """Keep one block from inside: Q, K, V and the softmax row of each token that can be asked for."""
    modules = [
        ("layernorm_before", block.layernorm_before),
        ("q", block.q_proj),
        ("k", block.k_proj),
        ("v", block.v_proj),
        ("o", block.o_proj),
        ("layernorm_after", block.layernorm_after),
        ("fc1", block.fc1),
        ("fc2", block.fc2),
    ]
    tokens, width = step.before.shape
    heads, _, head_width = step.q.shape
    return {
        "number": number,
        "heads": heads,
        "head_width": head_width,
        "scale": head_width**0.5,
        "modules": [
            {
                "step": key,
                "name": names[module],
                "shape": list(module.weight.shape),
                "params": _count(module),
            }
            for key, module in modules
        ],
        "params": sum(_count(module) for _, module in modules),
        "inner": block.fc1.out_features,
        "kept": kept,
        "tokens": tokens,
        "width": width,
        "qkv": {key: signed(getattr(step, key)[:, kept].numpy()) for key in ("q", "k", "v")},
        "rows": shares((step.attention / step.attention.amax(-1, keepdim=True))[:, kept].numpy()),
        "largest": step.attention[:, kept].amax(-1).tolist(),
        "before": float(step.before.norm(dim=-1).mean()),
        "attended": float(step.attended.norm(dim=-1).mean()),
        "added": float(step.added.norm(dim=-1).mean()),
        "after": float(step.after.norm(dim=-1).mean()),
        "activation": {
            "name": activation.upper(),
            "is_relu": activation == "relu",
            **_activation(block, step.inner),
        },
    }


def _activation(block: Block, inner: torch.Tensor) -> dict[str, Any]:
    """Count where the values before GELU lie, and what ReLU would have made of them."""
    low, high = -4.0, 4.0
    edges = np.linspace(low, high, 81)
    counts, _ = np.histogram(inner.clamp(low, high).numpy(), edges)
    curve = np.linspace(low, high, 161)
    outputs = block.activation(torch.from_numpy(curve).float())
    # Sums over many values: in float64 they do not depend on the order.
    ours, relu = block.activation(inner).double(), inner.relu().double()
    return {
        "num_values": inner.numel(),
        "low": low,
        "high": high,
        "counts": counts.tolist(),
        "curve": [[float(x), float(y)] for x, y in zip(curve, outputs.tolist(), strict=True)],
        "negative": float((inner < 0).float().mean()),
        # Below 0 GELU still has a slope, and ReLU none: here the difference is made.
        "bent": float(((inner < 0) & (inner > -3)).float().mean()),
        "difference": float((ours - relu).norm() / ours.norm()),
    }


def parameters(model: nn.Module) -> list[dict[str, Any]]:
    """List the parameters of a network by its parts: {"name", "params"}, equal blocks as one row."""
    counts: dict[str, int] = {}
    blocks: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        place = next((i for i, word in enumerate(words) if word.isdigit()), None)
        if place is None:
            part = ".".join(words[:-1]) if len(words) > 1 else name
        else:
            rest = words[place + 1 : place + 2]
            part = ".".join([*words[:place], "*", *rest])
            blocks.setdefault(part, set()).add(words[place])
        counts[part] = counts.get(part, 0) + parameter.numel()
    return [
        {"name": name, "params": count, "times": len(blocks.get(name, "1"))}
        for name, count in counts.items()
    ]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
