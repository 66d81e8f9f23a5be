"""Arrays that were computed once, as .npy files in one folder that does not outgrow a limit.

Decoded evaluation images and a linear probe's features are kept here. The name of a file says what
is in it, by a SHA-256 that its owner computes; a file is never changed once it has its name. Where
there is no room, the files that were used least recently are removed.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np

from training.common.locks import locked

logger = logging.getLogger(__name__)

GB = 10**9
RESERVE = 2 * GB  # of the disk, left to others


class NoRoomError(Exception):
    """The reason why an array is not kept: it is over the limit, or the disk is nearly full."""


def cache_folder() -> Path:
    """Name the folder of all caches of this project; it need not exist."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "vit-food101"


def open_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic] = np.uint8
) -> np.ndarray | None:
    """Map the array in `path` into memory; None where the file is missing, damaged or unreadable.

    The map is copy-on-write: torch wants to be able to write, and no write reaches the file. A file
    that is removed later stays readable for the process that has it open.
    """
    start = header(shape, dtype)
    try:
        with path.open("rb") as file:
            whole = file.read(len(start)) == start
        if not whole or path.stat().st_size != size_of(shape, dtype):
            return None
        values = np.memmap(path, dtype, "c", len(start), shape)
    except OSError:  # most often it is not there; whoever writes it tells the other reasons
        return None
    with contextlib.suppress(PermissionError):  # a cache that others may read and not write
        os.utime(path)  # the least recently used goes first
    return values


def header(shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> bytes:
    """Make the first bytes of a .npy file, which say that values of `shape` and `dtype` follow."""
    file = io.BytesIO()
    facts = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()


def size_of(shape: tuple[int, ...], dtype: type[np.generic] = np.uint8) -> int:
    """Count the bytes of a .npy file with values of `shape` and `dtype`, its header included."""
    return len(header(shape, dtype)) + math.prod(shape) * np.dtype(dtype).itemsize


def store(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    limit_gb: float,
    write: Callable[[], None],
) -> str:
    """Make room for an array in `path` and let `write` write the file, unless it is whole already.

    One process writes in a folder at a time, the others wait.

    Args:
        limit_gb: what all arrays in the folder may take together, in GB.
        write: writes the file, best by `write_array`.

    Returns:
        "" where the array is in the file now, else the reason why it is not kept.
    """
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
    """Be the only process that writes to `folder`, and remove what a killed one left in it."""

    def say() -> None:
        logger.info("waiting for another process that writes to %s", folder)

    with locked(folder, when_busy=say, timeout_seconds=1):
        for left_over in folder.glob(".*.npy"):
            left_over.unlink()
        yield


def make_room(folder: Path, size: int, limit_gb: float) -> None:
    """Remove the least recently used arrays of `folder` until one of `size` bytes fits.

    Raises:
        NoRoomError: it would not fit even then; nothing was removed.
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


def write_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], parts: Iterable[np.ndarray]
) -> None:
    """Write an array of `shape`, whose `parts` follow each other, and only then give it its name.

    It is written from front to end: a full disk is then an error, where a memory map would kill the
    process.

    Raises:
        OSError: the file cannot be written; nothing of it stays.
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
