"""Layer-wise learning rates as an extension: the nearer to the input, the slower a block learns."""

from __future__ import annotations

import re

import torch
from torch import nn

from training.common.errors import UserError
from training.engine.extension import Extension
from training.engine.training_arguments import Settings
from training.model.network import Network

# What FSDP, activation checkpointing, DDP and torch.compile put into parameter names.
_WRAPPERS = re.compile(r"\b(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module)\.")
_EMBEDDINGS = re.compile(r"\w+\.embeddings\.")
_BLOCK = re.compile(r"\w+\.layers\.(\d+)\.(attention|mlp|layernorm_before|layernorm_after)\.")
_TOP = re.compile(r"(\w+\.layernorm|(\w+_)?classifier)\.")


class LayerDecay(Extension):
    """Gives each block of a ViT or DeiT a share of the next one's learning rate."""

    key = "layer_decay"

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @classmethod
    def build(cls, network: Network, settings: Settings) -> LayerDecay | None:
        """Make the extension where `layer_decay` is not 1; None where it is 1.

        Raises:
            UserError: as `layer_ids`.
        """
        decay = settings.extensions.layer_decay
        if decay == 1:
            return None
        layer_ids(network.model)
        return cls(decay)

    def parameter_groups(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Split the optimizer's groups by depth; see `decay_learning_rates`."""
        decay_learning_rates(optimizer, model, self.decay)


def layer_ids(model: nn.Module) -> dict[str, int]:
    """Map the name of every parameter of a ViT or DeiT to its depth.

    The names are those of `model.named_parameters()`. The depth is 0 for the embeddings, 1..L for the
    encoder blocks, L+1 for the last norm and the head, as in BEiT and MAE; timm puts the last norm
    with block L.

    Raises:
        UserError: a parameter is at none of these places, or there are no encoder blocks.
    """
    names = {name: _WRAPPERS.sub("", name) for name, _ in model.named_parameters()}
    blocks = {name: _BLOCK.match(plain) for name, plain in names.items()}
    depth = 1 + max((int(match[1]) for match in blocks.values() if match), default=-1)
    ids = {}
    for name, plain in names.items():
        if match := blocks[name]:
            ids[name] = int(match[1]) + 1
        elif _EMBEDDINGS.match(plain):
            ids[name] = 0
        elif _TOP.match(plain):
            ids[name] = depth + 1
        else:
            raise UserError(
                f"layer_decay: the depth of {plain} in {type(model).__name__} is not known, only that of "
                "ViT's and DeiT's parameters; leave layer_decay at 1"
            )
    if not depth:
        raise UserError(
            f"layer_decay: {type(model).__name__} has no encoder blocks; leave layer_decay at 1"
        )
    return ids


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Map the name of every parameter to its share of `learning_rate`.

    The share is `layer_decay ** (L + 1 - depth)`: the head learns at the full rate, the embeddings at the lowest
    (BEiT, https://arxiv.org/abs/2106.08254; MAE, https://arxiv.org/abs/2111.06377).
    """
    ids = layer_ids(model)
    top = max(ids.values())
    return {name: layer_decay ** (top - id_) for name, id_ in ids.items()}


def decay_learning_rates(
    optimizer: torch.optim.Optimizer, model: nn.Module, layer_decay: float
) -> None:
    """Split the optimizer's groups by depth, before its first step and before its schedule.

    Schedules multiply each group's own first rate. The head comes first: Trainer logs the rate of
    the first group, and that is the highest, the recipe's `learning_rate`.

    Raises:
        UserError: as `layer_ids`, or the optimizer has no rate for each group of parameters.
    """
    scales = layer_scales(model, layer_decay)
    by_parameter = {id(p): scales[name] for name, p in model.named_parameters()}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held <= by_parameter.keys() or any(
        group.get("lr") is None for group in optimizer.param_groups
    ):
        raise UserError(
            f"layer_decay: {type(optimizer).__name__} has no learning rate for each group of "
            "parameters; choose another optim, or leave layer_decay at 1"
        )
    groups = []
    for scale in sorted(set(scales.values()), reverse=True):
        for group in optimizer.param_groups:
            inside = [p for p in group["params"] if by_parameter[id(p)] == scale]
            if inside:
                groups.append({**group, "params": inside, "lr": group["lr"] * scale})
    optimizer.param_groups = groups
