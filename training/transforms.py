"""Bytes -> uint8 crop in the workers; the rest for the whole batch on the device.

On the device an image is flipped, normalised, erased, mixed, in this order. RandAugment,
TrivialAugment and colour jitter belong to Pillow, so they are done on the crop in the worker.

What is drawn at random for an image depends on (data_seed, epoch, position in the data set) and on
nothing else: the same in any number of workers and processes, and after a resume. The key that
the sampler hands to a worker carries the epoch for that reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import default_collate

from inference.food_classification import Preprocessing, decode_image, resize
from training.augmentation import REDUCED_DECODING, Augmentation
from training.mixing import erase, erasing_box, mix, mixing, own_share
from training.policies import augment_crop


def image_bytes(image: dict[str, Any]) -> bytes | str:
    """What `decode_image` takes: the embedded bytes, or the path of a local folder's file."""
    return image["bytes"] if image["bytes"] is not None else image["path"]


def in_arrow(dataset: Dataset) -> Dataset:
    """Rows as an Arrow table: datasets' own conversion to Python costs ten times the fetch."""
    return dataset.with_format("arrow", columns=["image", "label"])


def rows_at(dataset: Dataset, positions: list[int]) -> Iterator[tuple[bytes | str, int]]:
    """(encoded bytes or path, class id) of each position, from what `in_arrow` gives."""
    table = dataset[positions]
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    return zip(map(image_bytes, images), labels, strict=True)


class EvalImages(torch.utils.data.Dataset):
    """position -> {"pixel_values": uint8 (3, height, width), "labels": int}, in order."""

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing) -> None:
        self.dataset, self.preprocessing = in_arrow(dataset), preprocessing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        return [
            {"pixel_values": self.preprocessing.crop(decode_image(image)), "labels": label}
            for image, label in rows_at(self.dataset, positions)
        ]


# A stream of its own for each kind of augmentation: switching one on leaves the others as they are.
POLICY, ERASING, MIXING, DROPPING = 1, 2, 3, 4


class TrainImages(torch.utils.data.Dataset):
    """key -> {"pixel_values": uint8 (3, height, width), "labels": int, "flip": bool}.

    With random erasing also "erase_box" (4,), with mixup or cutmix "mix_lambda" and "mix_box" (4,),
    of keys 2k and 2k + 1 of one call the same, with stochastic depth "drop_path" (num_branches,),
    uniform in [0, 1). `key = epoch * len(dataset) + position`, as `EpochSampler` makes them.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
        num_branches: int = 0,
    ) -> None:
        self.dataset, self.preprocessing = in_arrow(dataset), preprocessing
        self.augmentation, self.seed, self.num_branches = augmentation, seed, num_branches

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
            drawn = self._mixing(*divmod(keys[first], len(self)))
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
        example = {
            "pixel_values": pixels,
            "labels": label,
            "flip": bool(rng.random() < wanted.horizontal_flip),
        }
        if wanted.random_erasing:
            stream = self._stream(epoch, position, ERASING)
            box = erasing_box(size.height, size.width, wanted.random_erasing, stream)
            example["erase_box"] = box
        if self.num_branches:
            stream = self._stream(epoch, position, DROPPING)
            example["drop_path"] = stream.random(self.num_branches, dtype=np.float32)
        return example

    def _mixing(self, epoch: int, position: int) -> dict[str, Any]:
        if not self.augmentation.mixes(epoch):
            return {}
        size, stream = self.preprocessing, self._stream(epoch, position, MIXING)
        return mixing(size.height, size.width, self.augmentation, stream)

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
    """(top, left, height, width) of a crop; the law of torchvision's RandomResizedCrop.

    Ten tries at a uniform share of the area and a log-uniform aspect ratio between 3/4 and 4/3,
    then the largest central crop within that ratio (Szegedy et al. 2015, arXiv:1409.4842).
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


class EpochSampler(torch.utils.data.Sampler[int]):
    """A seeded permutation a epoch, cut to whole global batches, the epoch carried in the keys.

    Cutting here, and not batch by batch, is what makes 1 x 8, 1 x 4 accumulated twice and 2 x 4
    see the same images in the same steps.
    """

    def __init__(self, num_images: int, total_train_batch_size: int, seed: int) -> None:
        self.num_images, self.seed, self.epoch = num_images, seed, 0
        self.num_used = num_images // total_train_batch_size * total_train_batch_size
        self.steps_per_epoch = num_images // total_train_batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_used

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_images)
        yield from (self.epoch * self.num_images + order[: self.num_used]).tolist()


def collate(
    examples: list[dict[str, Any]] | dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Stack examples: uint8 (batch, 3, height, width), int64 (batch,), bool (batch,) `flip`, boxes.

    A data set that reads whole batches has stacked them already. In a worker torch's own function
    stacks straight into shared memory, which saves a copy.
    """
    return examples if isinstance(examples, dict) else default_collate(examples)


def to_model_input(
    batch: dict[str, torch.Tensor], preprocessing: Preprocessing
) -> dict[str, torch.Tensor]:
    """On the device: flip, normalise, erase, mix. uint8 -> float32.

    A batch that was mixed also has "own_share" (batch,): what is left of each image's own label;
    what was drawn for stochastic depth stays as it is.
    """
    pixels = batch["pixel_values"]
    if "flip" in batch:
        pixels = torch.where(batch["flip"].view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    pixels = preprocessing.normalize(pixels)
    if "erase_box" in batch:
        pixels = erase(pixels, batch["erase_box"])
    kept = ("labels", "drop_path")
    inputs = {"pixel_values": pixels} | {key: batch[key] for key in kept if key in batch}
    if "mix_box" in batch:
        lambdas, boxes = batch["mix_lambda"], batch["mix_box"]
        inputs["pixel_values"] = mix(pixels, lambdas, boxes)
        inputs["own_share"] = own_share(lambdas, boxes, pixels[0, 0].numel())
    return inputs
