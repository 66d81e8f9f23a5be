"""Stochastic depth for the residual networks of transformers that have none of their own.

A block's two residual branches, attention and MLP, are dropped image by image while training, and
what is kept is scaled up so that the mean stays (https://arxiv.org/abs/1603.09382). The rate rises
linearly from 0 in the first block to `drop_path` in the last, as in timm.

Forward hooks do it: the network's class, its parameters' names and its saved files stay those of
stock transformers, and `eval()` switches it off. What is drawn for an image comes with the image,
like its crop: the same in any number of processes, however the batch is cut, and after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.engine.extension import Extension
from training.engine.training_arguments import Settings
from training.model.network import Network

# Modules of ViTLayer and DeiTLayer whose outputs are added to the residual.
BRANCHES = ("attention", "mlp")


@dataclass(frozen=True)
class DrawBranches:
    """Draws "drop_path" (num_branches,) for an image: float32, uniform in [0, 1), a number a branch."""

    num_branches: int
    stream: int = 4
    per_pair: bool = False

    def __call__(self, rng: np.random.Generator, epoch: int) -> dict[str, np.ndarray]:
        """Draw for one image; the epoch does not matter."""
        return {"drop_path": rng.random(self.num_branches, dtype=np.float32)}


class DropPath(Extension):
    """Drops residual branches image by image while a network trains.

    Attributes:
        drawn: (batch, num_branches), uniform in [0, 1), for the batch at hand; None before the first.
    """

    key = "drop_path"

    def __init__(self, num_branches: int) -> None:
        self.draws = DrawBranches(num_branches)
        self.drawn: torch.Tensor | None = None

    @classmethod
    def build(cls, network: Network, settings: Settings) -> DropPath | None:
        """Hook every block of the network where `drop_path` is above 0; None where it is 0.

        Raises:
            UserError: as `add_drop_path`.
        """
        rate = settings.extensions.drop_path
        return add_drop_path(network.model, rate) if rate else None

    def before_forward(self, batch: dict[str, torch.Tensor]) -> None:
        """Take "drop_path" out of the batch into `drawn`; batches that are scored have none."""
        self.drawn = batch.pop("drop_path", None)


class DroppedBranch:
    """Forward hook that zeroes a branch's output for a share of the images of a training batch.

    Args:
        drop_path: holds what was drawn for the batch at hand.
        column: the branch's column of `drop_path.drawn`.
        rate: the share, above 0 and below 1.
    """

    def __init__(self, drop_path: DropPath, column: int, rate: float) -> None:
        self.drop_path, self.column, self.rate = drop_path, column, rate

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Return `output` with the drawn images zeroed; unchanged where `module` does not train.

        Raises:
            RuntimeError: nothing was drawn for the batch.
        """
        if not module.training:
            return output
        if self.drop_path.drawn is None:
            raise RuntimeError("DropPath.drawn is not set: the network trains without its trainer")
        drawn = self.drop_path.drawn[:, self.column]
        if isinstance(output, tuple):  # attention returns its weights as well
            return (drop_rows(output[0], drawn, self.rate), *output[1:])
        return drop_rows(output, drawn, self.rate)


def drop_rows(branch: torch.Tensor, drawn: torch.Tensor, rate: float) -> torch.Tensor:
    """Zero the rows of `branch` whose `drawn` is below `rate`, and divide the others by 1 - `rate`.

    Args:
        branch: (batch, ...).
        drawn: (batch,), uniform in [0, 1).
        rate: 0 to below 1.
    """
    keep = (drawn >= rate).to(branch.dtype) / (1 - rate)
    return branch * keep.view(-1, *[1] * (branch.ndim - 1))


def rates_by_depth(drop_path: float, depth: int) -> list[float]:
    """Give each of `depth` blocks its rate, linearly from 0 to `drop_path`; a single block has `drop_path`."""
    return [drop_path * i / (depth - 1) if depth > 1 else drop_path for i in range(depth)]


def add_drop_path(model: PreTrainedModel, drop_path: float) -> DropPath:
    """Hook every block of a ViT or DeiT, in place; `drop_path` is the last block's rate, above 0.

    Returns:
        The extension that the hooks read what was drawn from.

    Raises:
        UserError: the blocks are not known, or have a stochastic depth of their own.
    """
    layers = getattr(model.base_model, "layers", [])
    if not len(layers) or not all(hasattr(block, name) for block in layers for name in BRANCHES):
        raise UserError(
            f"drop_path is {drop_path}: only ViT's and DeiT's blocks are known, and "
            f"{type(model).__name__} has none of them; leave drop_path at 0"
        )
    if any(hasattr(block, "drop_path") for block in layers):
        raise UserError(
            f"drop_path is {drop_path}: {type(model).__name__} has a stochastic depth of its own, and both "
            "would act; leave drop_path at 0"
        )
    rates = zip(layers, rates_by_depth(drop_path, len(layers)), strict=True)
    branches = [(getattr(block, name), rate) for block, rate in rates if rate for name in BRANCHES]
    shared = DropPath(len(branches))
    for column, (branch, rate) in enumerate(branches):
        branch.register_forward_hook(DroppedBranch(shared, column, rate))
    return shared
