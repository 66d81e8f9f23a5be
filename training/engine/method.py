"""Which weights training changes, and how a checkpoint holds them: a `Method`, exactly one a run.

The whole network stands here, LoRA in `lora`, the heads of a linear probe in `training.probe.heads`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.common.files import read_json
from training.model.network import Network


class Method(Protocol):
    """Decides which weights of a network are trained, and how a checkpoint stores them.

    Attributes:
        tune: the method's name in the recipe and in messages.
        model: what Trainer trains.
        adapts: whether a checkpoint holds LoRA's adapters.
    """

    tune: str
    model: nn.Module
    adapts: bool

    def refuse_shards(self) -> None:
        """Raise UserError if the method needs all weights in every process, as FSDP and DeepSpeed forbid."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that training changes, by name: the tensors themselves, not copies."""

    def save(self, folder: Path) -> None:
        """Write the weights into a checkpoint folder, in the form that is scored and loaded."""

    def load(self, folder: Path) -> None:
        """Load every tensor that `save` wrote into a checkpoint folder, or raise UserError."""

    def save_state(self, path: Path) -> None:
        """Write `state` into one file."""

    def load_state(self, path: Path) -> None:
        """Load every tensor that `save_state` wrote, or raise UserError."""

    def set_aside(self) -> contextlib.AbstractContextManager[None]:
        """Give the network in the form in which it was before the method came, inside the block."""

    def finish(self) -> None:
        """Bring the network into the form in which it is released."""


class WholeNetwork:
    """Trains all weights of a network; a checkpoint is a folder for `from_pretrained`.

    Args:
        network: is trained in place.
        tune: the method's name in the recipe.
    """

    adapts = False

    def __init__(self, network: Network, tune: str = "full") -> None:
        self.model, self.processor, self.tune = network.model, network.processor, tune

    def refuse_shards(self) -> None:
        """Allow FSDP and DeepSpeed: Trainer gathers the weights."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return all parameters and buffers."""
        return self.model.state_dict()

    def save(self, folder: Path) -> None:
        """Write model.safetensors, config.json and preprocessor_config.json."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Load a checkpoint's weights strictly; see `load_weights`."""
        load_weights(self.model, folder)

    def save_state(self, path: Path) -> None:
        """Write all parameters and buffers."""
        save_file(self.model.state_dict(), path)

    def load_state(self, path: Path) -> None:
        """Load every parameter and buffer from `path`; a missing or unknown name is an error."""
        try:
            self.model.load_state_dict(load_file(path), strict=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"checkpoint {path.parent}: {path.name} is damaged or of another network ({reason}): resume "
                "from another checkpoint"
            ) from error

    def set_aside(self) -> contextlib.AbstractContextManager[None]:
        """Change nothing: the method adds nothing to the network."""
        return contextlib.nullcontext()

    def finish(self) -> None:
        """Change nothing: the network is as it is released."""


def load_weights(model: PreTrainedModel, checkpoint: Path) -> None:
    """Load every weight of a checkpoint folder into `model`, in place.

    Trainer's own loading reads the file's names as they are, non-strictly. `save_pretrained` of
    transformers 5 writes ViT under its version 4 names, so no encoder weight would match: a
    resumed run would go on from fresh weights, and "the best model" would be the last one.

    Raises:
        UserError: the checkpoint is of another network, or of the heads of a linear probe.
    """
    if not (checkpoint / "config.json").is_file():
        raise UserError(
            f"checkpoint {checkpoint} holds no whole network (a linear probe's?): resume with the recipe "
            "that it has"
        )
    written_by = read_json(checkpoint / "config.json").get("architectures")
    if written_by != [type(model).__name__]:  # transformers would draw what it cannot find
        raise UserError(
            f"checkpoint {checkpoint} is of another network, {written_by} and not {type(model).__name__}: "
            "resume with the recipe that it has"
        )
    try:
        saved = type(model).from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
        model.load_state_dict(saved.state_dict(), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {checkpoint} is of another network: {reason}") from error
