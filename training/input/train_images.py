"""Encoded bytes to a uint8 crop in the workers; the rest is for the whole batch on the device.

On the device an image is flipped, normalised, erased, mixed, in this order. RandAugment,
TrivialAugment and colour jitter belong to Pillow, so they are done on the crop in the worker.

What is drawn at random for an image depends on (data_seed, epoch, position in the data set) and on
nothing else: the same in any number of workers and processes, and after a resume. The key that
the sampler hands to a worker carries the epoch for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset

from inference.food_images import Preprocessing, decode_image, resize
from training.data.splits import in_arrow, rows_at
from training.input.arguments import REDUCED_DECODING, Augmentation
from training.input.policies import augment_crop

POLICY = 1  # the stream of `auto_augment` and `color_jitter`; draws have the numbers above


class Draw(Protocol):
    """Draws, in a worker, random values for one image beside crop and flip; must be picklable.

    Attributes:
        stream: number of its own stream of random numbers, so that switching one kind of
            augmentation on leaves the others as they are. 1 is taken.
        per_pair: whether it is drawn once for two neighbours (2k, 2k + 1) of the order.
    """

    stream: int
    per_pair: bool

    def __call__(self, rng: np.random.Generator, epoch: int) -> dict[str, Any]:
        """Draw arrays or numbers that are put beside the image, under names of their own."""


class TrainImages(torch.utils.data.Dataset):
    """Training images that are decoded, cropped and augmented by the random numbers of their key.

    key -> {"pixel_values": uint8 (3, height, width), "labels": int, "flip": bool}, and what `draws`
    put beside it. `key = epoch * len(dataset) + position`, as `EpochSampler` makes them.

    Args:
        dataset: encoded images and labels.
        seed: decides, with epoch and position, everything that is drawn.
        draws: what is drawn beside crop, flip, policy and jitter.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        draws: Sequence[Draw] = (),
    ) -> None:
        self.dataset, self.preprocessing = in_arrow(dataset), preprocessing
        self.augmentation, self.seed, self.draws = augmentation, seed, draws

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int]) -> list[dict[str, Any]]:
        rows = rows_at(self.dataset, [key % len(self) for key in keys])
        examples = [
            self._augment(image, label, *divmod(key, len(self)))
            for key, (image, label) in zip(keys, rows, strict=True)
        ]
        for first in range(0, len(keys), 2):
            drawn = self._drawn(*divmod(keys[first], len(self)), per_pair=True)
            for example in examples[first : first + 2]:
                example.update(drawn)
        return examples

    def _augment(self, image: bytes | str, label: int, epoch: int, position: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, epoch, position))
        crop = self._crop(image, rng)
        size, wanted = self.preprocessing, self.augmentation
        pixels = resize(crop, size.height, size.width, size.resample)
        if wanted.auto_augment != "off" or wanted.color_jitter:
            pixels = augment_crop(
                pixels, wanted, self._fill(), self._stream(epoch, position, POLICY)
            )
        return {
            "pixel_values": pixels,
            "labels": label,
            "flip": bool(rng.random() < wanted.horizontal_flip),
            **self._drawn(epoch, position, per_pair=False),
        }

    def _drawn(self, epoch: int, position: int, per_pair: bool) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for draw in self.draws:
            if draw.per_pair == per_pair:
                drawn |= draw(self._stream(epoch, position, draw.stream), epoch)
        return drawn

    def _stream(self, epoch: int, position: int, kind: int) -> np.random.Generator:
        entropy = (self.seed, epoch, position)
        return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(kind,)))

    def _fill(self) -> tuple[int, ...]:
        """The mean colour: what a shift or a rotation uncovers is zero once normalised."""
        scale = self.preprocessing.rescale_factor
        return tuple(min(255, round(mean / scale)) for mean in self.preprocessing.image_mean)

    def _crop(self, image: bytes | str, rng: np.random.Generator) -> np.ndarray:
        box, full = (0, 0, 0, 0), (0, 0)

        def choose(height: int, width: int) -> int:
            nonlocal box, full
            full = height, width
            box = random_resized_crop(height, width, self.augmentation.crop_scale, rng)
            return self._reduction(*box[2:])

        pixels = decode_image(image, reduce=choose)
        # A JPEG decoded at 1/2 is half as large: the box shrinks with it.
        y, x = pixels.shape[0] / full[0], pixels.shape[1] / full[1]
        top, left, height, width = box
        bottom, right = round((top + height) * y), round((left + width) * x)
        return pixels[round(top * y) : bottom, round(left * x) : right]

    def _reduction(self, height: int, width: int) -> int:
        share = REDUCED_DECODING[self.augmentation.reduced_decoding]
        if share is None:
            return 1
        room = min(height / self.preprocessing.height, width / self.preprocessing.width) / share
        return next((factor for factor in (8, 4, 2) if room >= factor), 1)


def random_resized_crop(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the box of a crop by the law of torchvision's RandomResizedCrop.

    Ten tries at a uniform share of the area and a log-uniform aspect ratio between 3/4 and 4/3,
    then the largest central crop within that ratio (Szegedy et al. 2015, arXiv:1409.4842).

    Args:
        height: of the whole image, in pixels, as `width`.
        scale: least and greatest share of the area, 0 to 1.

    Returns:
        (top, left, height, width) in pixels.
    """
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * high))
    h = min(height, round(width / low))
    return (height - h) // 2, (width - w) // 2, h, w
