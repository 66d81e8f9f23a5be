"""Stochastic depth for the residual networks of transformers that have none of their own.

A block's two residual branches, attention and MLP, are dropped image by image while training, and
what is kept is scaled up so that the mean stays (https://arxiv.org/abs/1603.09382). The rate rises
linearly from 0 in the first block to `drop_path` in the last, as in timm.

Forward hooks do it: the network's class, its parameters' names and its saved files stay those of
stock transformers, and `eval()` switches it off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from training.errors import UserError

BRANCHES = ("attention", "mlp")  # of ViTLayer and DeiTLayer: what is added to the residual


class DropPath:
    """Forward hook that zeroes a branch's output for a share `rate` of the images of a batch."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention returns its weights as well
            return (drop_rows(output[0], self.rate), *output[1:])
        return drop_rows(output, self.rate)


def drop_rows(branch: torch.Tensor, rate: float) -> torch.Tensor:
    """[batch, ...] -> the same, each row 0 with probability `rate` and else divided by 1 - `rate`.

    Drawn from the device's own generator, whose state Trainer keeps in its checkpoints.
    """
    keep = branch.new_empty((len(branch), *[1] * (branch.ndim - 1))).bernoulli_(1 - rate)
    return branch * keep.div_(1 - rate)


def rates_by_depth(drop_path: float, depth: int) -> list[float]:
    """0 in the first block to `drop_path` in the last; one block alone has `drop_path`."""
    return [drop_path * i / (depth - 1) if depth > 1 else drop_path for i in range(depth)]


def add_drop_path(model: PreTrainedModel, drop_path: float) -> None:
    """Hook every block of a ViT or DeiT; nothing for a rate of 0.

    Raises:
        UserError: a network whose blocks are not known.
    """
    if not drop_path:
        return
    layers = getattr(model.base_model, "layers", [])
    if not len(layers) or not all(hasattr(block, name) for block in layers for name in BRANCHES):
        raise UserError(
            f"drop_path is {drop_path}: only ViT's and DeiT's blocks are known, and "
            f"{type(model).__name__} has none of them; leave drop_path at 0"
        )
    for block, rate in zip(layers, rates_by_depth(drop_path, len(layers)), strict=True):
        for name in BRANCHES if rate else ():
            getattr(block, name).register_forward_hook(DropPath(rate))
