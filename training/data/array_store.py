"""TODO."""

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
from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

GB = 10**9

RESERVE = 2 * GB  # of the disk, left to others


def cache_folder() -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "vit-food101"


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
