"""Evaluation images, decoded once: a uint8 memory map that later evaluations read, in any process.

One numpy file per (contents of the images in order, preprocessing, decoder) below the cache of
`datasets`. Labels are not in it: they come from the data set, so a relabelled one needs no new
pixels. A file is never changed once it has its name; other contents have another name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

from inference import food_classification
from inference.food_classification import Preprocessing, decode_image
from training.data import Split
from training.errors import UserError
from training.machine import usable_cores
from training.progress import with_progress
from training.scan import local_main_first
from training.transforms import EvalImages, collate, image_bytes

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the key: raise it where the layout of the file changes
GB = 10**9
RESERVE = 2 * GB  # of the disk, left to others
BATCH = 32
IMAGES_A_WORKER = 256  # fewer are decoded sooner than a process is started


class CachedImages(torch.utils.data.Dataset):
    """positions -> a whole batch, as `collate` makes it of `EvalImages`; no worker is needed.

    Consecutive positions give a view of the memory map: the one copy is that to the device.
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
    """The images of `split` from the cache, which is filled first if they fit into `limit_gb`.

    If they do not, or it is 0: images that are decoded at every pass. All processes call this
    together; the local main process builds while the others wait.

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
    return len(split), 3, preprocessing.height, preprocessing.width


def cache_folder() -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "vit-food101"


def cache_key(content: Sequence[str], preprocessing: Preprocessing) -> str:
    """sha256 over everything that decides the pixels; normalisation happens after the cache."""
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
        "code": hashlib.sha256(Path(food_classification.__file__).read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def decoder_name() -> str:
    fast = food_classification.simplejpeg is not None
    return f"simplejpeg {version('simplejpeg')}" if fast else f"pillow {version('pillow')}"


def open_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8
) -> np.ndarray | None:
    """Memory map of `shape`; None where the file is missing, damaged or unreadable.

    Mapped copy-on-write: torch wants to be able to write, and no write reaches the file. Removing
    the file later does not disturb a process that has it open.
    """
    start = header(shape, dtype)
    try:
        with path.open("rb") as file:
            whole = file.read(len(start)) == start
        if not whole or path.stat().st_size != size_of(shape, dtype):
            return None
        values = np.memmap(path, dtype, "c", len(start), shape)
    except OSError:  # most often it is not there; `build` tells the other reasons
        return None
    with contextlib.suppress(PermissionError):  # a cache that others may read and not write
        os.utime(path)  # the least recently used goes first
    return values


def header(shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> bytes:
    """The first bytes of a .npy file with values of `shape`."""
    file = io.BytesIO()
    facts = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()


def size_of(shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> int:
    """Bytes of such a file."""
    return len(header(shape, dtype)) + math.prod(shape) * np.dtype(dtype).itemsize


# ---- building ---------------------------------------------------------------------------------


class NoRoomError(Exception):
    """Why the decoded images are not kept."""


def build(path: Path, split: Split, preprocessing: Preprocessing, limit_gb: float) -> None:
    """Decode `split` into `path`, or say in one line why it is not kept."""
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


def store(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    limit_gb: float,
    write: Callable[[], None],
) -> str:
    """Make room for a file and let `write` make it; empty, or why it is not kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(path.parent):
            if open_array(path, shape, dtype) is not None:  # another process was faster
                return ""
            if path.exists():
                logger.warning("%s is damaged or unreadable: it is made again", path)
                path.unlink()
            make_room(path.parent, size_of(shape, dtype), limit_gb)
            write()
    except (NoRoomError, OSError) as error:
        return str(error)
    return ""


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One build at a time in this folder; the system frees the lock of a killed process."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for another process that writes to %s", folder)
        lock.acquire()
    try:
        for left_over in folder.glob(".*.npy"):  # of a build that was killed
            left_over.unlink()
        yield
    finally:
        lock.release()


def make_room(folder: Path, size: int, limit_gb: float) -> None:
    """Remove the least recently used files until `size` bytes fit.

    Raises:
        NoRoomError: they never would; nothing was removed.
    """
    limit = limit_gb * GB
    if size > limit:
        raise NoRoomError(f"eval_cache_gb is {limit_gb:g}")
    files = [(path, path.stat()) for path in folder.glob("[!.]*.npy")]
    files.sort(key=lambda file: file[1].st_mtime_ns)
    total, freed, victims = sum(stat.st_size for _, stat in files), 0, []
    for path, stat in files:
        if total - freed + size <= limit:
            break
        freed += stat.st_size
        victims.append(path)
    free = shutil.disk_usage(folder).free
    if free + freed < size + RESERVE:
        raise NoRoomError(f"the disk has {free / GB:.2f} GB free, {RESERVE / GB:g} are left alone")
    for path in victims:
        logger.info("removing %s, used least recently", path)
        path.unlink()


def write_pixels(path: Path, split: Split, preprocessing: Preprocessing) -> None:
    """Decode on all cores of this machine, a batch at a time."""
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


def write_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], parts: Iterable[np.ndarray]
) -> None:
    """Write `parts`, together `shape`, under a temporary name.

    Written from front to end: on a full disk that is an error, where a memory map would kill the
    process.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(header(shape, dtype))
            for part in parts:
                part.tofile(file)
            file.flush()
            os.fsync(file.fileno())  # after a power cut the name must not stand for zeros
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class CheckedImages(torch.utils.data.Dataset):
    """positions -> a batch as `EvalImages` decodes it, and which of its images have `changed`.

    The key names the contents that were read when the data was loaded. A file that was replaced
    since then would put other pixels under that name.
    """

    def __init__(self, split: Split, preprocessing: Preprocessing) -> None:
        self.dataset, self.content = split.dataset, split.content
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, positions: list[int]) -> dict[str, torch.Tensor]:
        rows = self.dataset.__getitems__(positions)
        encoded = [read_image(row["image"]) for row in rows]
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


def read_image(image: dict[str, Any]) -> bytes:
    """The encoded bytes; none where the file has gone."""
    source = image_bytes(image)
    try:
        return source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError:
        return b""


def refuse_changed(positions: list[int], split: Split) -> None:
    if positions:
        raise UserError(
            f"image {positions[0]} of {split.name} is not the one that was checked when this started: "
            "leave the data alone, and start again"
        )


def num_decoders(num_images: int) -> int:
    """Worker processes for decoding `num_images` once: every core, where it is worth their start."""
    return min(usable_cores(), num_images // IMAGES_A_WORKER)
