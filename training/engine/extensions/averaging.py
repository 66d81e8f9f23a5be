"""An exponential moving average of the weights, beside the weights that are trained."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

# The trained weights of a checkpoint, whose model.safetensors holds the averaged ones.
TRAINED_WEIGHTS = "trained_weights.safetensors"


class WeightAverage:
    """Average of a model's trained parameters and floating-point buffers; further buffers are copied.

    It starts from the weights as they are. With torch's `AveragedModel` the network would be copied
    and a counter read back from the device at every step; the arithmetic is torch's.

    Args:
        model: on its device; every process has the same weights (DDP keeps them so).
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
        """After optimizer step number `step`, counted from 1; nothing waits for the device."""
        live = [tensor.detach() for tensor in self._live]
        mix = get_ema_multi_avg_fn(warmed_up(self.decay, step))
        mix(self._average[: self._floats], live[: self._floats], None)
        for average, tensor in zip(
            self._average[self._floats :], live[self._floats :], strict=True
        ):
            average.copy_(tensor)

    @torch.no_grad()
    def restart(self) -> None:
        """The average becomes what the model holds now."""
        for average, tensor in zip(self._average, self._live, strict=True):
            average.copy_(tensor)

    def swap(self) -> None:
        """The model gets the average and the average the model's; no value is copied."""
        for i, tensor in enumerate(self._live):
            tensor.data, self._average[i] = self._average[i], tensor.data

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        self.swap()
        try:
            yield
        finally:
            self.swap()


def warmed_up(decay: float, step: int) -> float:
    """min(decay, (1 + step) / (10 + step)), so that the first weights are soon forgotten.

    As tf.train.ExponentialMovingAverage does with `num_updates`.
    """
    return min(decay, (1 + step) / (10 + step))
