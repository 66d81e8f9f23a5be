"""Measure how many images a second finished models label, beside each other in one process."""

from __future__ import annotations

import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from training.common.machine import device_name
from training.common.precision import full_float32
from training.common.progress import Progress
from training.model.network import Network, load_network, model_folder

logger = logging.getLogger(__name__)

BATCH_SIZES = {"cpu": 8, "cuda": 64}  # by default

ROUND_SECONDS = 0.2  # of each model in each round, at least: short passes are counted together


def measure_throughput(
    models: list[tuple[str, Path]], rounds: int, batch_size: int | None = None
) -> dict[str, Any]:
    """Time forward passes in float32 of random uint8 pixels, at each model's own image size.

    Normalisation is part of it, decoding and resizing are not. Rounds are interleaved, every other
    one in reverse order, so that what else the machine does falls on all models alike.

    Args:
        models: names with their run or release folders.
        rounds: how often each model is timed.
        batch_size: images at once; None chooses by the device (`BATCH_SIZES`).

    Returns:
        A JSON value with the keys device, threads, precision, batch_size, rounds, images_per_second
        and times_the_first. The last two hold an object a model, in the order of `models`: name,
        median, min and max over the rounds. `times_the_first` compares round by round.

    Raises:
        UserError: a folder holds no model, or it cannot be loaded.
    """
    device = PartialState().device
    size = batch_size or BATCH_SIZES.get(device.type, 8)
    networks = [load_network(model_folder(str(folder))) for _, folder in models]
    runners = [Runner(network, size, device) for network in networks]
    rates: list[list[float]] = [[] for _ in runners]
    progress = Progress(rounds)
    for i in range(rounds):
        order = range(len(runners))
        for k in order if i % 2 == 0 else reversed(order):
            rates[k].append(runners[k].images_per_second())
        if progress.is_due(i + 1):
            logger.info("speed: round %d of %d", i + 1, rounds)
    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "precision": "float32",
        "batch_size": size,
        "rounds": rounds,
        "images_per_second": [
            {"name": name, **spread(values)}
            for (name, _), values in zip(models, rates, strict=True)
        ],
        "times_the_first": [
            {"name": name, **spread([a / b for a, b in zip(values, rates[0], strict=True)])}
            for (name, _), values in zip(models, rates, strict=True)
        ],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Compute median, min and max, rounded to three decimals."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {key: round(value, 3) for key, value in found.items()}


class Runner:
    """A network on the device with a batch of random pixels of its image size, warmed up."""

    def __init__(self, network: Network, batch_size: int, device: torch.device) -> None:
        steps = network.preprocessing
        generator = torch.Generator().manual_seed(0)
        shape = batch_size, 3, steps.height, steps.width
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(
            device
        )
        self.model, self.steps, self.passes = network.model.to(device).eval(), steps, 1
        self._seconds()  # allocates, and chooses kernels
        self.passes = max(1, math.ceil(ROUND_SECONDS / self._seconds()))

    def images_per_second(self) -> float:
        """Time one round of `passes` forward passes."""
        return self.passes * len(self.pixels) / self._seconds()

    def _seconds(self) -> float:
        """Time `passes` forward passes, until the device has done them."""
        with torch.inference_mode(), full_float32():
            self._wait()
            started = time.perf_counter()
            for _ in range(self.passes):
                self.model(pixel_values=self.steps.normalize(self.pixels))
            self._wait()
            return time.perf_counter() - started

    def _wait(self) -> None:
        """Wait until the device, a GPU of any make, has done what was queued."""
        if self.pixels.device.type != "cpu":
            torch.accelerator.synchronize(self.pixels.device)
