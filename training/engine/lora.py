"""LoRA by peft: a small update of chosen matrices is trained, and merged into them at the end.

W + alpha / r * B A (https://arxiv.org/abs/2106.09685), B (out, r) from zeros and A (r, in) at random;
the head is trained in full and everything else is frozen. peft puts its layers into the network
in place: class, config and the other parameters' names stay those of stock transformers, so that
Trainer has no PeftModel to treat otherwise, and after the merge nothing of peft is left.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.engine.arguments import FineTuningArguments
from training.model.head import heads_of

# In a checkpoint instead of model.safetensors: what is trained, without what is frozen.
LORA_WEIGHTS = "lora.safetensors"

_ADDED = ".lora_"  # in the names of peft's parameters


class Adapters:
    """The adapters in a network, until they are merged into it.

    Args:
        model: with peft's layers in it.
        tuner: peft's own object around `model`.
    """

    def __init__(self, model: PreTrainedModel, tuner: Any) -> None:
        self.model, self._tuner = model, tuner
        # Positions are frozen too, but interpolated for another image_size, which another processor
        # may round otherwise; like the buffers, they are saved, as they are small.
        frozen = {
            name: parameter
            for name, parameter in model.named_parameters()
            if not parameter.requires_grad and not name.endswith("position_embeddings")
        }
        self._frozen = set(frozen)
        self.frozen_sha256 = _sha256(frozen)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that training changes, by its name in the network with adapters."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if name not in self._frozen}

    def save(self, path: Path) -> None:
        """Write `state` with the sum of the frozen weights, which a resume takes from `model` again."""
        save_file(self.state(), path, {"format": "pt", "frozen_sha256": self.frozen_sha256})

    def load(self, path: Path) -> None:
        """Load what `save` wrote, every tensor of it.

        Raises:
            UserError: it was trained with other adapters, or on other frozen weights.
        """
        saved, state = load_file(path), self.state()
        shapes = [{name: value.shape for name, value in each.items()} for each in (saved, state)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"checkpoint {path.parent} holds other adapters than the recipe asks for: resume with the "
                "lora_rank, lora_target_modules and labels that it was written with"
            )
        with safe_open(path, "pt") as file:
            on = (file.metadata() or {}).get("frozen_sha256")
        if on != self.frozen_sha256:
            raise UserError(
                f"checkpoint {path.parent} was trained on other frozen weights than model now has: give "
                "the model and model_revision that the run was started with, unchanged"
            )
        self.model.load_state_dict(saved, strict=False)  # the names were compared above

    def merge(self) -> None:
        """Add the updates to their matrices, in float32, and take peft out of the network."""
        self._tuner.merge_and_unload()
        self.model.requires_grad_(True)


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def add_adapters(model: PreTrainedModel, args: FineTuningArguments) -> Adapters | None:
    """Freeze the network but for its head, and adapt the named linear layers; none for other `tune`.

    The first values come from `args.seed` alone, and nothing else that is drawn later changes.

    Raises:
        UserError: a name that no linear layer has, or a rank that does not fit.
    """
    if args.tune != "lora":
        return None
    checkpointing = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {})
    if checkpointing and checkpointing.get("use_reentrant"):
        raise UserError(
            "gradient_checkpointing_kwargs has use_reentrant with tune lora: below frozen embeddings no "
            "adapter would get a gradient; leave use_reentrant out"
        )
    from peft import LoraConfig, LoraModel

    heads = heads_of(model)  # two in a distilled DeiT
    config = LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=find_layers(model, heads, args.lora_target_modules, args.lora_rank),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        tuner = LoraModel(model, config, "default")
    for head in heads:
        head.requires_grad_(True)
    return Adapters(model, tuner)


def find_layers(
    model: nn.Module, heads: list[nn.Linear], wanted: list[str], rank: int
) -> list[str]:
    """Full names of the linear layers whose name ends with one of `wanted`; every one must match.

    Raises:
        UserError: a name without a layer; it is named, with names that there are.
    """
    # No subclasses: the one inside torch's MultiheadAttention is never called, only its weight read.
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer not in heads
    }
    network = type(model).__name__
    if not linear:
        raise UserError(
            f"tune is lora and {network} has no linear layer beside its head: LoRA adapts linear layers, "
            "not convolutions; choose another model, or another tune"
        )
    found = {end: [name for name in linear if f".{name}".endswith(f".{end}")] for end in wanted}
    if missing := [end for end, names in found.items() if not names]:
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UserError(
            f"lora_target_modules has {', '.join(map(repr, missing))}, and {network} has no such linear layer beside "
            f"its head, which is trained in any case: give some of {', '.join(known[:8])}"
        )
    names = sorted({name for names in found.values() for name in names})
    smallest = min(min(linear[name].weight.shape) for name in names)
    if rank > smallest:
        raise UserError(
            f"lora_rank is {rank}: {', '.join(wanted)} of {network} have rank {smallest} at most; give less"
        )
    return names


# ---- what run.json says --------------------------------------------------------------------------


def describe_lora(args: FineTuningArguments) -> dict[str, Any] | None:
    """None where `tune` is something else."""
    if args.tune != "lora":
        return None
    return {
        "rank": args.lora_rank,
        "alpha": args.lora_alpha,
        "dropout": args.lora_dropout,
        "target_modules": list(args.lora_target_modules),
        "peft": version("peft"),
    }


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trained, of the network as it is released): adapters are merged, and only count as trained."""
    named = list(model.named_parameters())
    trained = sum(parameter.numel() for _, parameter in named if parameter.requires_grad)
    return trained, sum(parameter.numel() for name, parameter in named if _ADDED not in name)


def trained_line(facts: dict[str, Any], num_parameters: int) -> str:
    """What is trained, for the line that a run starts with; empty where it is everything."""
    if (lora := facts["lora"]) is None:
        return ""
    return (
        f"; LoRA of rank {lora['rank']} on {', '.join(lora['target_modules'])} trains "
        f"{facts['num_trainable_parameters']:,} of {num_parameters:,} parameters"
    )
