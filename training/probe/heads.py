"""Several classifier heads on the same features, and their files."""

from __future__ import annotations

import contextlib
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
        config: the config of the network below; Trainer and run.json look for it here.
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
        """Compute the logits (batch, num_heads, num_labels) of features (batch, width) in one product."""
        weight = torch.cat(tuple(self.weights))
        bias = torch.cat(tuple(self.biases)) if len(self.biases) else None
        return nn.functional.linear(features, weight, bias).unflatten(1, (self.num_heads, -1))

    def parameters_of(self, head: int) -> dict[str, nn.Parameter]:
        """Return {"weight": (num_labels, width), "bias": (num_labels,)} of the head with index `head`.

        Without "bias" where the network's own head has none.
        """
        own = {"weight": self.weights[head]}
        return own | ({"bias": self.biases[head]} if len(self.biases) else {})


def zero_unless_finite(gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient, or zeros if any of its values is not finite.

    A head that has diverged learns no more, and the norm over all heads' gradients stays a number.
    """
    return torch.where(gradient.isfinite().all(), gradient, 0.0)


class HeadsMethod:
    """Trains `Heads` of a frozen network; a checkpoint's model.safetensors holds all of them.

    Args:
        heads: are trained in place.
        tune: the method's name in the recipe.
    """

    adapts = False

    def __init__(self, heads: Heads, tune: str = "linear_probe") -> None:
        self.model, self.tune = heads, tune

    def refuse_shards(self) -> None:
        """Refuse FSDP and DeepSpeed.

        Raises:
            UserError: always.
        """
        refuse_shards(self.tune)

    def state(self) -> dict[str, torch.Tensor]:
        """Return weights and biases of all heads."""
        return self.model.state_dict()

    def save(self, folder: Path) -> None:
        """Write model.safetensors with all heads."""
        self.save_state(folder / "model.safetensors")

    def load(self, folder: Path) -> None:
        """Load every head of a checkpoint.

        Raises:
            UserError: the checkpoint holds something else, or other heads.
        """
        self.load_state(folder / "model.safetensors")

    def save_state(self, path: Path) -> None:
        """Write all heads into one file."""
        save_file(self.state(), path, {"format": "pt"})

    def load_state(self, path: Path) -> None:
        """Load every head that `save_state` wrote.

        Raises:
            UserError: the file holds something else, or other heads.
        """
        try:
            self.model.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, FileNotFoundError, SafetensorError) as error:
            raise UserError(
                f"checkpoint {path.parent} does not hold {self.model.num_heads} heads of this probe: resume "
                "with the recipe that it was written by"
            ) from error

    def set_aside(self) -> contextlib.AbstractContextManager[None]:
        """Change nothing: the heads are outside the network."""
        return contextlib.nullcontext()

    def finish(self) -> None:
        """Change nothing: the chosen head is copied into the network by the trainer."""


def refuse_shards(tune: str) -> None:
    """Refuse FSDP and DeepSpeed.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"tune {tune} with FSDP or DeepSpeed: the heads are small and on every device; "
        "use accelerate_config.yaml, or tune full"
    )


def copy_head(values: dict[str, torch.Tensor], network: Network) -> None:
    """Copy {"weight": ..., "bias": ...} into the network's head, in place.

    Raises:
        UserError: the values are of a head for other labels, or of another network.
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
    """Write {"weight": ..., "bias": ...} into a safetensors file, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    save_file({k: v.detach().cpu().contiguous() for k, v in values.items()}, temporary)
    os.replace(temporary, path)
