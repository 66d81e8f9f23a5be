"""What a feature of training may do: an `Extension`. `wiring` lists those that there are.

A feature that does something at these moments is one file in `extensions/` and one line in that
list. A feature that only listens is a TrainerCallback (`callbacks`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from training.engine.method import Method
from training.engine.training_arguments import Settings
from training.input.train_images import Draw
from training.model.network import Network


class Extension:
    """A feature that acts while a network is trained; every hook does nothing unless it is overridden.

    Attributes:
        key: the recipe's key that switches it on, for messages.
        file: name of the file that `save` writes into a checkpoint. A checkpoint with the file can be
            resumed with the extension only, and one without the file only without. None: no file.
        draws: draws in the workers what `before_forward` needs for each image. None: nothing is drawn.
    """

    key: ClassVar[str]
    file: ClassVar[str | None] = None
    draws: Draw | None = None

    @classmethod
    def build(cls, network: Network, settings: Settings) -> Extension | None:
        """Make the extension as the recipe asks for it; None where it does not.

        Raises:
            UserError: the network cannot do it.
        """
        raise NotImplementedError

    def refuse_shards(self) -> None:
        """Raise UserError if the extension needs all weights in every process, as FSDP and DeepSpeed forbid."""

    def prepare(self, method: Method) -> None:
        """Set up the extension, before a checkpoint is loaded and an optimizer made."""

    def parameter_groups(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Change the groups of a new optimizer, before its first step and its schedule."""

    def before_forward(self, batch: dict[str, torch.Tensor]) -> None:
        """Change a batch in place, on the device: `pixel_values` are normalised, draws are beside them.

        Batches that are scored come by here too, and have no draws.
        """

    def loss(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], loss: torch.Tensor
    ) -> torch.Tensor:
        """Return the training loss of a batch, given what it is without this extension."""
        return loss

    def after_step(self, step: int) -> None:
        """Act after optimizer step number `step`, counted from 1."""

    def before_scoring(self, step: int) -> None:
        """Act before the selection slice is scored after `step` steps."""

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        """Put other weights into the model while it is scored, and while they are saved."""
        return contextlib.nullcontext()

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what `load` needs; called on the main process only."""

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint, whose scored weights are in the model by now."""

    def finish(self, loaded_best: bool) -> None:
        """Leave in the model, after training, the weights that the run keeps.

        Args:
            loaded_best: the selected checkpoint's weights, as they were scored, are in the model.
        """
