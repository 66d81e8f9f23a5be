"""The order of an epoch, examples stacked to a batch, and a batch made ready on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from inference.food_images import Preprocessing


class EpochSampler(torch.utils.data.Sampler[int]):
    """The keys of one epoch: a seeded permutation, cut to whole batches of all processes.

    A key is `epoch * num_images + position`, for a worker is told nothing else. Cutting here, and
    not batch by batch, is what makes 1 x 8, 1 x 4 accumulated twice and 2 x 4 see the same images
    in the same steps.
    """

    def __init__(self, num_images: int, total_train_batch_size: int, seed: int) -> None:
        self.num_images, self.seed, self.epoch = num_images, seed, 0
        self.num_used = num_images // total_train_batch_size * total_train_batch_size
        self.steps_per_epoch = num_images // total_train_batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which counts from 0, that the next iteration goes through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_used

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_images)
        yield from (self.epoch * self.num_images + order[: self.num_used]).tolist()


def collate(
    examples: list[dict[str, Any]] | dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Stack the examples of a batch: the keys stay, every value gets a first axis (batch,).

    A data set that reads whole batches has stacked them already. In a worker torch's own function
    stacks straight into shared memory, which saves a copy.
    """
    return examples if isinstance(examples, dict) else default_collate(examples)


def to_model_input(
    batch: dict[str, torch.Tensor], preprocessing: Preprocessing
) -> dict[str, torch.Tensor]:
    """Flip and normalise a batch on the device that it is on.

    Args:
        batch: what `collate` makes of the examples of `TrainImages` or `EvalImages`.

    Returns:
        The batch without "flip", and with "pixel_values" float32 (batch, 3, height, width).
    """
    rest = {name: value for name, value in batch.items() if name != "flip"}
    pixels = batch["pixel_values"]
    if "flip" in batch:
        pixels = torch.where(batch["flip"].view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    return {**rest, "pixel_values": preprocessing.normalize(pixels)}
