"""Layer-wise learning rates, and which values the keys of the optimisation may have."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from training.errors import UserError

if TYPE_CHECKING:
    from training.config import FineTuningArguments

# What FSDP, activation checkpointing, DDP and torch.compile put into parameter names.
_WRAPPERS = re.compile(r"\b(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module)\.")
_EMBEDDINGS = re.compile(r"\w+\.embeddings\.")
_BLOCK = re.compile(r"\w+\.layers\.(\d+)\.(attention|mlp|layernorm_before|layernorm_after)\.")
_TOP = re.compile(r"(\w+\.layernorm|(\w+_)?classifier)\.")


@dataclass
class OptimizationArguments:
    """What timm's recipes have beside an optimizer and a schedule; each is off by default."""

    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "learning rate of each ViT block as a share of the next one's (BEiT, "
            "arXiv:2106.08254; 0.65 to 0.9); 1 for one rate"
        },
    )
    drop_path: float = field(
        default=0.0,
        metadata={
            "help": "stochastic depth, the rate of the last ViT block (arXiv:1603.09382; 0.1 to 0.3)"
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "score and keep a moving average of the weights (0.999 to 0.9999; warmed up as in "
            "tf.train.ExponentialMovingAverage); null for the weights themselves"
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "stop after so many scorings without a better one; null never stops"},
    )


# ---- layer-wise learning rates -------------------------------------------------------------------


def layer_ids(model: nn.Module) -> dict[str, int]:
    """Depth of every parameter of a ViT or DeiT, by its name in `model.named_parameters()`.

    0 for the embeddings, 1..L for the encoder blocks, L+1 for the last norm and the head, as in
    BEiT and MAE; timm puts the last norm with block L.

    Raises:
        UserError: a parameter that is at none of these places.
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
    """Learning rate of every parameter as a share of `learning_rate`.

    `layer_decay ** (L + 1 - id)`: the head learns at the full rate, the embeddings at the lowest
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
        UserError: a network of unknown names, or an optimizer that hides its parameters.
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


# ---- what a recipe may say -----------------------------------------------------------------------


def check_optimization(args: FineTuningArguments) -> None:
    """Refuse what would train something else than was meant.

    Raises:
        UserError: a value outside of its range; it is named.
    """
    if not 0 < args.layer_decay <= 1:
        raise UserError(
            f"layer_decay is {args.layer_decay}: give above 0 to 1 (0.65 to 0.9 is usual)"
        )
    if not 0 <= args.drop_path < 1:
        raise UserError(f"drop_path is {args.drop_path}: give 0 to below 1 (0.1 to 0.3 is usual)")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        raise UserError(
            f"ema_decay is {args.ema_decay}: give above 0 to below 1 (0.999 is usual), or leave it out"
        )
    patience = args.early_stopping_patience
    if patience is None:
        return
    if patience < 1:
        raise UserError(f"early_stopping_patience is {patience}: give at least 1, or leave it out")
    if args.eval_strategy == "no":
        raise UserError(
            f"early_stopping_patience {patience} with eval_strategy no: nothing would be scored; give "
            "eval_strategy epoch or steps"
        )
    if args.eval_on_start:
        raise UserError(
            f"early_stopping_patience {patience} with eval_on_start true: a resumed run would count the "
            "same scoring twice; leave eval_on_start out"
        )
    if not args.load_best_model_at_end:
        raise UserError(
            f"early_stopping_patience {patience} with load_best_model_at_end false: the last weights, "
            "which are not the best, would be kept; leave load_best_model_at_end at true"
        )


def describe_optimization(args: FineTuningArguments) -> dict[str, Any]:
    """For run.json: what is not in plain fine-tuning; 1, 0 or null where it was not asked for."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(OptimizationArguments)}
