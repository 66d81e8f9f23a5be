"""Several classifier heads on the same features, and their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from training.common.errors import UserError
from training.model.head import head_of
from training.model.network import Network


class Heads(nn.Module):
    """Copies of a linear layer that learn side by side.

    Args:
        head: (num_labels, width), and its bias if it has one.
        num_heads: how many copies.
        config: of the network below; Trainer and run.json look for it here.
    """

    def __init__(self, head: nn.Linear, num_heads: int, config: Any) -> None:
        super().__init__()
        self.config, self.num_heads = config, num_heads
        self.weights = nn.ParameterList(head.weight.detach().clone() for _ in range(num_heads))
        biases = [] if head.bias is None else [head.bias] * num_heads
        self.biases = nn.ParameterList(bias.detach().clone() for bias in biases)
        for parameter in self.parameters():
            parameter.register_hook(zero_unless_finite)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, width) -> logits (batch, num_heads, num_labels), in one matrix product."""
        weight = torch.cat(tuple(self.weights))
        bias = torch.cat(tuple(self.biases)) if len(self.biases) else None
        return nn.functional.linear(features, weight, bias).unflatten(1, (self.num_heads, -1))

    def parameters_of(self, head: int) -> dict[str, nn.Parameter]:
        """{"weight": ..., "bias": ...} of one head."""
        own = {"weight": self.weights[head]}
        return own | ({"bias": self.biases[head]} if len(self.biases) else {})


def zero_unless_finite(gradient: torch.Tensor) -> torch.Tensor:
    """A head that has diverged learns no more: the norm over all heads' gradients stays a number."""
    return torch.where(gradient.isfinite().all(), gradient, 0.0)


def load_heads(heads: Heads, checkpoint: Path) -> None:
    """Load a checkpoint's heads, every one of them.

    Raises:
        UserError: it holds something else, or other heads.
    """
    try:
        heads.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=True)
    except (RuntimeError, FileNotFoundError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {checkpoint} does not hold {heads.num_heads} heads of this probe: resume with "
            "the recipe that it was written by"
        ) from error


def copy_head(values: dict[str, torch.Tensor], network: Network) -> None:
    """{"weight": ..., "bias": ...} into the network's head, in place.

    Raises:
        UserError: it is a head for other labels, or of another network.
    """
    own = dict(head_of(network.model).named_parameters())
    if {k: v.shape for k, v in values.items()} != {k: v.shape for k, v in own.items()}:
        raise UserError(
            f"the probed head is for {len(values['weight'])} labels and {values['weight'].shape[1]} "
            f"features, the network's for {len(own['weight'])} and {own['weight'].shape[1]}: resume with "
            "the recipe and the data that it was probed with"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def save_head(values: dict[str, torch.Tensor], path: Path) -> None:
    """Write {"weight": ..., "bias": ...} under a temporary name, then move it."""
    temporary = path.with_name(f".{path.name}")
    save_file({k: v.detach().cpu().contiguous() for k, v in values.items()}, temporary)
    os.replace(temporary, path)
