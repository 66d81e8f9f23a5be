"""LoRA by peft: a small update of chosen matrices is trained, and merged into them at the end.

W + alpha / r * B A (https://arxiv.org/abs/2106.09685), B (out, r) from zeros and A (r, in) at random;
the head is trained in full and everything else is frozen. peft puts its layers into the network
in place: class, config and the other parameters' names stay those of stock transformers, so that
Trainer has no PeftModel to treat otherwise, and after the merge nothing of peft is left.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from training.common.errors import UserError
from training.engine.arguments import ADAPTERS, MethodArguments
from training.engine.checkpoints import LORA_WEIGHTS
from training.engine.training_arguments import Settings
from training.model.head import heads_of
from training.model.network import Network

_ADDED = ".lora_"  # in the names of peft's parameters


class LoRA:
    """Trains low-rank updates of chosen matrices and the head in full, until they are merged.

    Args:
        network: its model has peft's layers in it.
        tuner: peft's own object around the model.
        tune: the method's name in the recipe.
    """

    adapts = True

    def __init__(self, network: Network, tuner: Any, tune: str = "lora") -> None:
        self.model, self._tuner, self.tune = network.model, tuner, tune
        # Positions are frozen too, but interpolated for another image_size, which another processor
        # may round otherwise; like the buffers, they are saved, as they are small.
        frozen = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if not parameter.requires_grad and not name.endswith("position_embeddings")
        }
        self._frozen = set(frozen)
        self.frozen_sha256 = _sha256(frozen)

    def refuse_shards(self) -> None:
        """Refuse FSDP and DeepSpeed.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"tune is {self.tune} with FSDP or DeepSpeed: adapters are merged where the whole matrix is; use "
            "accelerate_config.yaml, whose processes hold all the weights"
        )

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that training changes, by its name in the network with adapters."""
        state = self.model.state_dict()
        return {name: value for name, value in state.items() if name not in self._frozen}

    def save(self, folder: Path) -> None:
        """Write lora.safetensors: the adapters and the head; the rest is in `model` still."""
        self.save_state(folder / LORA_WEIGHTS)

    def load(self, folder: Path) -> None:
        """Load a checkpoint's adapters and head; errors as in `load_state`."""
        self.load_state(folder / LORA_WEIGHTS)

    def save_state(self, path: Path) -> None:
        """Write `state` with the SHA-256 of the frozen weights, which a resume takes from `model` again."""
        save_file(self.state(), path, {"format": "pt", "frozen_sha256": self.frozen_sha256})

    def load_state(self, path: Path) -> None:
        """Load every tensor that `save_state` wrote.

        Raises:
            UserError: the file holds other adapters, or adapters of other frozen weights.
        """
        try:
            saved, state = load_file(path), self.state()
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"checkpoint {path.parent}: {path.name} is damaged ({error}): resume from another checkpoint"
            ) from error
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

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        """Put the layers themselves back in the places of the adapted ones, inside the block.

        The network then has the names and weights of one without adapters, so that its features are
        found where another run has kept them.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        modules = dict(self.model.named_modules())
        adapted = {k: each for k, each in modules.items() if isinstance(each, BaseTunerLayer)}

        def place(name: str, layer: nn.Module) -> None:
            parent, _, last = name.rpartition(".")
            setattr(modules[parent], last, layer)

        for name, layer in adapted.items():
            place(name, layer.get_base_layer())
        try:
            yield
        finally:
            for name, layer in adapted.items():
                place(name, layer)

    def finish(self) -> None:
        """Add the updates to their matrices, in float32, and take peft out of the network."""
        self._tuner.merge_and_unload()
        self.model.requires_grad_(True)


def _sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def add_adapters(network: Network, settings: Settings) -> LoRA:
    """Freeze the network but for its head, and adapt the named linear layers.

    The first values come from `seed` alone, and nothing else that is drawn later changes.

    Raises:
        UserError: a name that no linear layer has, or a rank that does not fit.
    """
    model, args, method = network.model, settings.training, settings.method
    checkpointing = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {})
    if checkpointing and checkpointing.get("use_reentrant"):
        raise UserError(
            f"gradient_checkpointing_kwargs has use_reentrant with tune {method.tune}: below frozen embeddings no "
            "adapter would get a gradient; leave use_reentrant out"
        )
    from peft import LoraConfig, LoraModel  # optional: the extra `lora`

    heads = heads_of(model)  # two in a distilled DeiT
    config = LoraConfig(
        r=method.lora_rank,
        lora_alpha=method.lora_alpha,
        lora_dropout=method.lora_dropout,
        target_modules=find_layers(model, heads, method),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        tuner = LoraModel(model, config, "default")
    for head in heads:
        head.requires_grad_(True)
    return LoRA(network, tuner, method.tune)


def find_layers(model: nn.Module, heads: list[nn.Linear], method: MethodArguments) -> list[str]:
    """Find the full names of the linear layers that end with one of `lora_target_modules`; each must match.

    Raises:
        UserError: no layer has such a name (the message lists names that there are), or `lora_rank` is
            more than the smallest of the layers has.
    """
    wanted, rank = method.lora_target_modules, method.lora_rank
    # No subclasses: the one inside torch's MultiheadAttention is never called, only its weight read.
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer not in heads
    }
    network = type(model).__name__
    if not linear:
        raise UserError(
            f"tune is {method.tune} and {network} has no linear layer beside its head: LoRA adapts linear layers, "
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


def describe_lora(method: MethodArguments) -> dict[str, Any] | None:
    """Describe the adapters for run.json; None where `tune` has none.

    Returns:
        "rank", "alpha", "dropout", "target_modules" and "peft", its version.
    """
    if method.tuning.trains != ADAPTERS:
        return None
    return {
        "rank": method.lora_rank,
        "alpha": method.lora_alpha,
        "dropout": method.lora_dropout,
        "target_modules": list(method.lora_target_modules),
        "peft": version("peft"),
    }


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count a network's parameters: (those that are trained, those of the network as it is released).

    Adapters are merged in the end, so they count as trained only.
    """
    named = list(model.named_parameters())
    trained = sum(parameter.numel() for _, parameter in named if parameter.requires_grad)
    return trained, sum(parameter.numel() for name, parameter in named if _ADDED not in name)
