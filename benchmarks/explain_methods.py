# SPDX-License-Identifier: Apache-2.0
"""Ways to map what a ViT's answer rests on, to be measured beside each other by `explain.py`.

Each is a function of a `Subject`, pictures and one label of each, written from its paper (arXiv:2402.05602
and 1610.02391 as `inference.food_explain` has them, 2103.15679, 2005.00928), and gives a score for each
patch. Nobody's attention implementation is switched: `trace` does the forward pass itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from training_runs import ROOT  # noqa: F401, it puts this project's folder on the path

from inference.food_explain import (
    Block,
    VitParts,
    grid_of,
    layer_norm,
    linear,
    logit,
    on_grid,
    relevance,
    split_heads,
    vit_parts,
)

# Of a gradient rollout's matrix so many of the smallest entries are left out, as its author does.
DISCARDED = 0.9

# Deviation of the Gaussian in the middle, as a share of the picture's side.
SPREAD = 0.25


@dataclass(frozen=True)
class Subject:
    """A network that is explained, with its parts."""

    model: nn.Module
    parts: VitParts

    @classmethod
    def of(cls, model: nn.Module) -> Subject:
        """Find the parts of a network for evaluation.

        Raises:
            ValueError: it is no ViT or DeiT.
        """
        parts = vit_parts(model)
        if parts is None:
            raise ValueError(f"{type(model).__name__} is no ViT: these methods are for one")
        return cls(model.eval(), parts)

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Do the network's own forward pass."""
        with torch.inference_mode():
            return self.model(pixel_values=pixel_values).logits.clone()


Method = Callable[[Subject, torch.Tensor, torch.Tensor], torch.Tensor]


# ---- a forward pass that keeps what methods ask for ----------------------------------------------


@dataclass(frozen=True)
class Trace:
    """One forward pass; gradients with respect to everything in it can be taken."""

    tokens: torch.Tensor  # (batch, num_tokens, width) that enter the first block
    attentions: tuple[torch.Tensor, ...]  # (batch, heads, num_tokens, num_tokens) of each block
    normed: torch.Tensor  # what `layernorm_before` of the last block gives
    out: torch.Tensor  # what the last block gives
    logits: torch.Tensor  # (batch, num_classes)


def plain_block(
    block: Block, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do a block's forward pass; its tokens, its attention, and what its first norm gave."""
    normed = layer_norm(block.layernorm_before, tokens)
    q, k, v = (
        split_heads(linear(projection, normed), block.num_heads)
        for projection in (block.q_proj, block.k_proj, block.v_proj)
    )
    attention = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    tokens = tokens + linear(block.o_proj, (attention @ v).transpose(1, 2).flatten(2))
    inner = linear(block.fc1, layer_norm(block.layernorm_after, tokens))
    return tokens + linear(block.fc2, block.activation(inner)), attention, normed


def trace(parts: VitParts, pixel_values: torch.Tensor) -> Trace:
    """Do the forward pass of some pictures and keep what it went through."""
    tokens = entering(parts, pixel_values).requires_grad_()
    out, attentions = tokens, []
    for block in parts.blocks:
        out, attention, normed = plain_block(block, out)
        attentions.append(attention)
    return Trace(tokens, tuple(attentions), normed, out, parts.logits(out))


def entering(parts: VitParts, pixel_values: torch.Tensor) -> torch.Tensor:
    """Compute the tokens that enter the first block."""
    with torch.no_grad():
        return parts.embeddings(pixel_values).float()


def chosen(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Add up the logits of the labels that are asked for: pictures do not touch each other."""
    return logits.gather(1, labels[:, None]).sum()


def _patches(subject: Subject, tokens: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
    return on_grid(tokens, *grid_of(subject.parts, pixel_values)).detach()


# ---- methods that ask for a label ----------------------------------------------------------------


def attn_lrp(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute what `inference.food_explain` draws, before it leaves out what speaks against."""
    found, _ = relevance(subject.parts, pixel_values, labels[:, None])
    return _patches(subject, found[:, 0], pixel_values)


def attn_lrp_logit(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compute AttnLRP with the label's logit, and not its odds, as what is explained."""
    found, _ = relevance(subject.parts, pixel_values, labels[:, None], logit)
    return _patches(subject, found[:, 0], pixel_values)


def grad_cam(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute Grad-CAM at the last `layernorm_before`: each positive product, without channel weights."""
    seen = trace(subject.parts, pixel_values)
    (gradient,) = torch.autograd.grad(chosen(seen.logits, labels), seen.normed)
    return _patches(subject, (gradient * seen.normed).relu().sum(-1), pixel_values)


def hires_cam(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute HiResCAM (arXiv:2011.08891) there: products are added up with their signs."""
    seen = trace(subject.parts, pixel_values)
    (gradient,) = torch.autograd.grad(chosen(seen.logits, labels), seen.normed)
    return _patches(subject, (gradient * seen.normed).sum(-1), pixel_values)


def gradient_rollout(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compute rollout of attention times gradient, of each matrix the largest tenth only."""
    matrices = []
    for weighted in _attention_gradients(subject.parts, pixel_values, labels):
        matrix = weighted.mean(1).relu()
        smallest = int(matrix[0].numel() * DISCARDED)
        bound = matrix.flatten(1).sort(-1).values[:, smallest]
        matrices.append(matrix * (matrix >= bound[:, None, None]))
    return _patches(subject, _rolled_out(matrices)[:, 0], pixel_values)


def chefer(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute the relevance of arXiv:2103.15679 for self-attention: R = R + E_h[(dA * A)+] R."""
    found = None
    for weighted in _attention_gradients(subject.parts, pixel_values, labels):
        matrix = weighted.relu().mean(1)
        found = _identity(matrix) if found is None else found
        found = found + matrix @ found
    return _patches(subject, found[:, 0], pixel_values)


def head_on_patches(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Classify each patch's last token as if it were the class token: the label's probability."""
    parts = subject.parts
    with torch.no_grad():
        tokens = layer_norm(parts.layernorm, trace(parts, pixel_values).out)
        logits = torch.stack([linear(head, tokens) for head in parts.heads]).mean(0)
    of_label = logits.softmax(-1).gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))
    return _patches(subject, of_label[..., 0], pixel_values)


def input_x_gradient(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compute the plain gradient times its input, at the tokens that enter the first block."""
    seen = trace(subject.parts, pixel_values)
    (gradient,) = torch.autograd.grad(chosen(seen.logits, labels), seen.tokens)
    return _patches(subject, (gradient * seen.tokens).sum(-1), pixel_values)


def _attention_gradients(
    parts: VitParts, pixel_values: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """Compute attention times its gradient, of each block (batch, heads, num_tokens, num_tokens)."""
    seen = trace(parts, pixel_values)
    gradients = torch.autograd.grad(chosen(seen.logits, labels), seen.attentions)
    return [(a * gradient).detach() for a, gradient in zip(seen.attentions, gradients, strict=True)]


def _rolled_out(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Multiply a block's matrices (batch, n, n) up, each with the residual as an identity, rows to 1."""
    found = _identity(matrices[0])
    for matrix in matrices:
        matrix = matrix + _identity(matrix)
        found = matrix / matrix.sum(-1, keepdim=True) @ found
    return found


def _identity(matrix: torch.Tensor) -> torch.Tensor:
    return torch.eye(matrix.shape[-1], device=matrix.device).expand_as(matrix)


# ---- methods that do not, and controls -----------------------------------------------------------


def last_attention(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Take the class token's attention in the last block, the mean of its heads."""
    with torch.no_grad():
        attention = trace(subject.parts, pixel_values).attentions[-1]
    return _patches(subject, attention.mean(1)[:, 0], pixel_values)


def rollout(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute attention rollout (arXiv:2005.00928) of the mean of the heads."""
    with torch.no_grad():
        matrices = [a.mean(1) for a in trace(subject.parts, pixel_values).attentions]
        return _patches(subject, _rolled_out(matrices)[:, 0], pixel_values)


def centre(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Draw a Gaussian in the middle, whatever the picture is."""
    axes = [
        torch.exp(-(((torch.arange(n) + 0.5) / n - 0.5) ** 2) / (2 * SPREAD**2))
        for n in grid_of(subject.parts, pixel_values)
    ]
    return torch.outer(*axes).expand(len(pixel_values), -1, -1).clone()


def random(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Draw a random number for each patch; a picture has the same ones for all labels and networks."""
    size = grid_of(subject.parts, pixel_values)
    seeds = [zlib.crc32(each.cpu().numpy().tobytes()) for each in pixel_values]
    drawn = [torch.rand(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn)


# Name in the table -> method, and whether its map depends on the label.
METHODS: dict[str, tuple[Method, bool]] = {
    "AttnLRP, odds": (attn_lrp, True),
    "AttnLRP, logit": (attn_lrp_logit, True),
    "gradient rollout": (gradient_rollout, True),
    "Grad-CAM, last `layernorm_before`, elementwise": (grad_cam, True),
    "HiResCAM, last `layernorm_before`": (hires_cam, True),
    "Chefer 2021, generic": (chefer, True),
    "head applied to each patch token": (head_on_patches, True),
    "input x gradient": (input_x_gradient, True),
    "attention rollout, mean of heads": (rollout, False),
    "class token's attention, last block": (last_attention, False),
    "Gaussian in the middle": (centre, False),
    "random": (random, False),
}
