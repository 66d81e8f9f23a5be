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

BRANCHES = ("attention", "mlp")  # of ViTLayer and DeiTLayer: what is added to the residual


@dataclass(frozen=True)
class DrawBranches:
    """Draws for an image one number a branch: "drop_path" (num_branches,), uniform in [0, 1)."""

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
        """Hook every block of the network where `drop_path` is above 0.

        Raises:
            UserError: a network whose blocks are not known.
        """
        rate = settings.extensions.drop_path
        return add_drop_path(network.model, rate) if rate else None

    def before_forward(self, batch: dict[str, torch.Tensor]) -> None:
        """Take what was drawn out of the batch; batches that are scored have none."""
        self.drawn = batch.pop("drop_path", None)


class DroppedBranch:
    """Forward hook that zeroes a branch's output for a share `rate` of the images of a batch."""

    def __init__(self, drop_path: DropPath, column: int, rate: float) -> None:
        self.drop_path, self.column, self.rate = drop_path, column, rate

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if self.drop_path.drawn is None:
            raise RuntimeError("DropPath.drawn is not set: the network trains without its trainer")
        drawn = self.drop_path.drawn[:, self.column]
        if isinstance(output, tuple):  # attention returns its weights as well
            return (drop_rows(output[0], drawn, self.rate), *output[1:])
        return drop_rows(output, drawn, self.rate)


def drop_rows(branch: torch.Tensor, drawn: torch.Tensor, rate: float) -> torch.Tensor:
    """[batch, ...] -> the same, each row 0 where `drawn` < `rate` and else divided by 1 - `rate`."""
    keep = (drawn >= rate).to(branch.dtype) / (1 - rate)
    return branch * keep.view(-1, *[1] * (branch.ndim - 1))


def rates_by_depth(drop_path: float, depth: int) -> list[float]:
    """0 in the first block to `drop_path` in the last; one block alone has `drop_path`."""
    return [drop_path * i / (depth - 1) if depth > 1 else drop_path for i in range(depth)]


def add_drop_path(model: PreTrainedModel, drop_path: float) -> DropPath:
    """Hook every block of a ViT or DeiT; `drop_path` is the last block's rate, above 0.

    Raises:
        UserError: a network whose blocks are not known.
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
