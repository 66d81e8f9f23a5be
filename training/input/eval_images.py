"""Evaluation images, decoded once: a uint8 memory map that later evaluations read, in any process.

One numpy file per (contents of the images in order, preprocessing, decoder) below the cache of
`datasets`. Labels are not in it: they come from the data set, so a relabelled one needs no new
pixels. A file is never changed once it has its name; other contents have another name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader

from inference import food_images
from inference.food_images import Preprocessing, decode_image
from training.common.errors import UserError
from training.common.machine import local_main_first, num_decoders
from training.common.progress import with_progress
from training.data.array_store import GB, cache_folder, open_array, size_of, store, write_array
from training.data.splits import Split, encoded_bytes, in_arrow, rows_at
from training.input.batch import collate

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it where the layout of the file changes
BATCH = 32  # images that a worker decodes before it hands them on


class CachedImages(torch.utils.data.Dataset):
    """Decoded images in memory-mapped `pixels`: positions -> a batch as `collate` makes it.

    A batch is {"pixel_values": uint8 (batch, 3, height, width), "labels": int64 (batch,)}; no
    worker is needed. Consecutive positions give a view of the memory map: the one copy is that to
    the device.
    """

    def __init__(self, pixels: np.ndarray, labels: Sequence[int]) -> None:
        self.pixels = torch.from_numpy(pixels)
        self.labels = torch.tensor(list(labels), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixels[position], "labels": self.labels[position]}

    def __getitems__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        first, last = positions[0], positions[-1]
        consecutive = positions == list(range(first, last + 1))
        rows = slice(first, last + 1) if consecutive else torch.tensor(positions)
        return {"pixel_values": self.pixels[rows], "labels": self.labels[rows]}


def evaluation_images(
    split: Split, preprocessing: Preprocessing, limit_gb: float
) -> EvalImages | CachedImages:
    """Open the images of `split` in the cache, which is filled first if they fit into `limit_gb`.

    All processes call this together; the first of each machine decodes while the others wait.

    Args:
        limit_gb: what all arrays in the cache may take together, in GB; 0 touches no cache.

    Returns:
        `CachedImages`, or `EvalImages`, which decode at every pass, where the cache has no room.

    Raises:
        UserError: an image is not the one that was checked when the data was loaded.
    """
    decoded = EvalImages(split.dataset, preprocessing)
    if limit_gb == 0:
        return decoded
    shape = shape_of(split, preprocessing)
    path = cache_folder() / f"eval-{cache_key(split.content, preprocessing)}.npy"
    with local_main_first():
        pixels = open_array(path, shape)
        if pixels is None and PartialState().is_local_main_process:
            build(path, split, preprocessing, limit_gb)
            pixels = open_array(path, shape)
    return decoded if pixels is None else CachedImages(pixels, split.dataset["label"][:])


def shape_of(split: Split, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Say the shape of the decoded images: (num_images, 3, height, width)."""
    return len(split), 3, preprocessing.height, preprocessing.width


def cache_key(content: Sequence[str], preprocessing: Preprocessing) -> str:
    """Compute the SHA-256 over everything that decides the pixels before they are normalised.

    Args:
        content: the SHA-256 of each image's encoded bytes, in order.
    """
    after = ("image_mean", "image_std", "rescale_factor")
    fields = dataclasses.asdict(preprocessing)
    facts = {
        "format": FORMAT,
        "images": hashlib.sha256("\n".join(content).encode()).hexdigest(),
        "preprocessing": {name: value for name, value in fields.items() if name not in after},
        "decoder": decoder_name(),
        "pillow": version("pillow"),
        "torch": str(torch.__version__),
        # torch resizes with other code, and other rounding, on processors without AVX2.
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "code": hashlib.sha256(Path(food_images.__file__).read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def decoder_name() -> str:
    """Name the library that decodes JPEGs, with its version: `simplejpeg 1.9.0`."""
    fast = food_images.simplejpeg is not None
    return f"simplejpeg {version('simplejpeg')}" if fast else f"pillow {version('pillow')}"


def build(path: Path, split: Split, preprocessing: Preprocessing, limit_gb: float) -> None:
    """Decode `split` into the file `path`; where it is not kept, log the reason in one line."""
    shape = shape_of(split, preprocessing)
    size = size_of(shape) / GB

    def write() -> None:
        logger.info(f"decoding {len(split)} {split.name} images once, {size:.2g} GB in {path}")
        write_pixels(path, split, preprocessing)

    reason = store(path, shape, np.uint8, limit_gb, write)
    if reason:
        logger.warning(
            f"the {len(split)} {split.name} images are decoded at each evaluation, for the cache "
            f"does not take their {size:.2g} GB: {reason}"
        )


def write_pixels(path: Path, split: Split, preprocessing: Preprocessing) -> None:
    """Decode `split` into the file `path`, on all cores of this machine and a batch at a time.

    Raises:
        UserError: an image is not the one that was checked when the data was loaded.
        OSError: the file cannot be written; nothing of it stays.
    """
    loader = DataLoader(
        CheckedImages(split, preprocessing),
        batch_size=BATCH,
        num_workers=num_decoders(len(split)),
        collate_fn=collate,
    )

    def batches() -> Iterator[np.ndarray]:
        for batch in with_progress(loader, "decoded", f"{split.name} images", len(split)):
            refuse_changed(batch["changed"].tolist(), split)
            yield batch["pixel_values"].numpy()

    write_array(path, shape_of(split, preprocessing), np.uint8, batches())


class CheckedImages(torch.utils.data.Dataset):
    """Compares images with the content that the scan found, then decodes them.

    positions -> {"pixel_values": uint8 (batch, 3, height, width), "changed": int64 (num_changed,)},
    where "changed" has the positions of the images with another content and "pixel_values" is empty
    if there are any. The key of a cache names the contents that were scanned: a file that was
    replaced since then would put other pixels under that name.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing) -> None:
        self.dataset, self.content = split.dataset, split.content
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows = self.dataset.__getitems__(positions)
        encoded = [_bytes_or_none(row["image"]) for row in rows]
        changed = [
            position
            for position, data in zip(positions, encoded, strict=True)
            if hashlib.sha256(data).hexdigest() != self.content[position]
        ]
        crops = [] if changed else [self.preprocessing.crop(decode_image(d)) for d in encoded]
        return {
            "pixel_values": torch.stack(crops) if crops else torch.empty(0, dtype=torch.uint8),
            "changed": torch.tensor(changed, dtype=torch.int64),
        }


def _bytes_or_none(image: dict[str, Any]) -> bytes:
    """Read the encoded bytes of a row's image; none, b"", where its file has gone."""
    try:
        return encoded_bytes(image)
    except OSError:
        return b""


def refuse_changed(positions: list[int], split: Split) -> None:
    """Stop where images of `split` have changed since the scan; `positions` says which.

    Raises:
        UserError: `positions` is not empty.
    """
    if positions:
        raise UserError(
            f"image {positions[0]} of {split.name} is not the one that was checked when this started: "
            "leave the data alone, and start again"
        )


class EvalImages(torch.utils.data.Dataset):
    """Images that are decoded at every pass, with the transform of the saved image processor.

    position -> {"pixel_values": uint8 (3, height, width), "labels": int}.
    """

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
