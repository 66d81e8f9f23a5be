"""An exponential moving average of the weights, beside the weights that are trained."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.common.errors import UserError
from training.engine.extension import Extension
from training.engine.method import Method
from training.engine.training_arguments import Settings
from training.model.network import Network


class MovingAverage(Extension):
    """Scores and keeps a moving average of the weights; `WeightAverage` holds it while training."""

    key = "ema_decay"
    # The trained weights of a checkpoint, whose model.safetensors holds the averaged ones.
    file = "trained_weights.safetensors"

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: WeightAverage | None = None  # until training begins
        self.method: Method | None = None

    @classmethod
    def build(cls, network: Network, settings: Settings) -> MovingAverage | None:
        """Make the extension where `ema_decay` is set; None where it is not."""
        decay = settings.extensions.ema_decay
        return None if decay is None else cls(decay)

    def refuse_shards(self) -> None:
        """Refuse FSDP and DeepSpeed.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"ema_decay {self.decay} with FSDP or DeepSpeed: each process holds a part of the "
            "weights only; use accelerate_config.yaml, or leave ema_decay out"
        )

    def prepare(self, method: Method) -> None:
        """Start the average from the first weights."""
        self.method, self.average = method, WeightAverage(method.model, self.decay)

    def after_step(self, step: int) -> None:
        """Take the new weights into the average."""
        self.average.update(step)

    def scoring(self) -> contextlib.AbstractContextManager[None]:
        """Put the average into the model."""
        return self.average.in_model()

    def save(self, folder: Path) -> None:
        """Write the trained weights beside the averaged ones."""
        self.method.save_state(folder / self.file)

    def load(self, folder: Path) -> None:
        """Take the average from the model, and the trained weights from the checkpoint."""
        self.average.restart()
        self.method.load_state(folder / self.file)

    def finish(self, loaded_best: bool) -> None:
        """Keep the average; the selected checkpoint's weights are averaged already."""
        if not loaded_best:
            self.average.swap()


class WeightAverage:
    """An average of a model's trained parameters and floating-point buffers; further buffers are copied.

    It starts from the weights as they are. With torch's `AveragedModel` the network would be copied
    and a counter read back from the device at every step; the arithmetic is torch's.

    Args:
        model: is on its device; every process has the same weights (DDP keeps them so).
        decay: share of the old average in the new one, after the warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        tensors = list(itertools.chain(trained, model.buffers()))
        self._live = sorted(tensors, key=lambda tensor: not tensor.is_floating_point())
        self._floats = sum(tensor.is_floating_point() for tensor in tensors)
        self._average = [tensor.detach().clone() for tensor in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 1; nothing waits for the device."""
        live = [tensor.detach() for tensor in self._live]
        mix = get_ema_multi_avg_fn(warmed_up(self.decay, step))
        mix(self._average[: self._floats], live[: self._floats], None)
        for average, tensor in zip(
            self._average[self._floats :], live[self._floats :], strict=True
        ):
            average.copy_(tensor)

    @torch.no_grad()
    def restart(self) -> None:
        """Set the average to what the model holds now."""
        for average, tensor in zip(self._average, self._live, strict=True):
            average.copy_(tensor)

    def swap(self) -> None:
        """Exchange the weights of the model and of the average; no value is copied."""
        for i, tensor in enumerate(self._live):
            tensor.data, self._average[i] = self._average[i], tensor.data

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Put the averaged weights into the model inside the `with`, then swap them back."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def warmed_up(decay: float, step: int) -> float:
    """Return min(decay, (1 + step) / (10 + step)), so that the first weights are soon forgotten.

    As tf.train.ExponentialMovingAverage does with `num_updates`.
    """
    return min(decay, (1 + step) / (10 + step))
