"""Look at every image once before the first step: what is in it, and whether it can be decoded.

Content decides, never a file's name or time: every image is read and hashed at each start (a
gigabyte takes seconds), and decoded where nobody decoded the same bytes before. Verdicts are kept
below datasets' cache, by SHA-256 and by the code that decodes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import DataLoader

from inference import food_images
from inference.food_images import InvalidImageError, decode_image
from training.common.machine import num_decoders
from training.common.progress import Progress
from training.data.array_store import cache_folder
from training.data.splits import encoded_bytes

logger = logging.getLogger(__name__)

BATCH = 64  # images that a worker looks at before it hands them on


@dataclass(frozen=True)
class Look:
    """What was seen of one image."""

    sha256: str  # of its encoded bytes; of nothing where it could not be read
    error: str  # "" where it can be decoded
    num_bytes: int
    size: tuple[int, int] | None = None  # (width, height), upright; None where that is not known


def scan_images(dataset: Dataset, split: str) -> list[Look]:
    """Look at every image of `dataset`, in the order of its rows.

    All processes call this together; the main one looks, and tells the others.

    Args:
        split: names the images in the lines about progress.
    """
    state, found = PartialState(), [None]
    if state.is_main_process:
        found = [_look_at_all(dataset, split)]
    if state.num_processes > 1:
        broadcast_object_list(found, from_process=0)
    return found[0]


def look_at(image: dict[str, Any] | None, known: dict[str, str] | None = None) -> Look:
    """Read and hash a row's image, and decode it unless the verdict of its content is known.

    Args:
        known: SHA-256 -> error, "" for an image that can be decoded; None knows nothing.
    """
    image = image or {}
    if image.get("bytes") is None and not image.get("path"):
        return Look(hashlib.sha256().hexdigest(), "the row has no image", 0)
    try:
        if image.get("bytes") is None and not os.path.isabs(image["path"]):
            # Of a row whose file was not found; what lies there in the working folder is another.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        data = encoded_bytes(image)
    except (OSError, ValueError) as error:  # no name that a file can have
        reason = getattr(error, "strerror", None) or str(error)
        return Look(hashlib.sha256().hexdigest(), f"cannot be read: {reason}", 0)
    digest = hashlib.sha256(data).hexdigest()
    if known is not None and digest in known:
        return Look(digest, known[digest], len(data))
    try:
        pixels = decode_image(data)
    except InvalidImageError as problem:
        return Look(digest, str(problem), len(data))
    return Look(digest, "", len(data), (pixels.shape[1], pixels.shape[0]))


class _Looks:
    """Rows of a data set, for a DataLoader: positions -> what was seen of each."""

    def __init__(self, dataset: Dataset, known: dict[str, str]) -> None:
        self.dataset, self.known = dataset, known

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, positions: list[int]) -> list[Look]:
        return [look_at(image, self.known) for image in self.dataset[positions]["image"]]


def _look_at_all(dataset: Dataset, split: str) -> list[Look]:
    verdicts = Verdicts(cache_folder() / "verdicts.sqlite")
    known = verdicts.read()
    loader = DataLoader(
        _Looks(dataset.select_columns("image"), known),
        batch_size=BATCH,
        num_workers=num_decoders(len(dataset)),
        collate_fn=list,
    )
    looks: list[Look] = []
    progress = Progress(len(dataset))
    for batch in loader:
        looks += batch
        if progress.is_due(len(looks)):
            logger.info(
                "checked %d of %d %s images, %.0f images/s, %.0f s left",
                len(looks), len(dataset), split, progress.rate, progress.seconds_left,
            )  # fmt: skip
    # A file that cannot be read today may be readable tomorrow: only contents are remembered.
    new = {look.sha256: look.error for look in looks if look.num_bytes and look.sha256 not in known}
    verdicts.add(new)
    return looks


class Verdicts:
    """Which contents can be decoded, in an SQLite file; where it cannot be used, nothing is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        code = Path(food_images.__file__).read_bytes()
        # With pi-heif installed since, a photograph that was refused can be read.
        heif = "" if food_images.pi_heif is None else version("pi-heif")
        with_ = f"{version('pillow')} {heif}".encode()
        self.decoder = hashlib.sha256(code + with_).hexdigest()[:16]

    def read(self) -> dict[str, str]:
        """Read every verdict of the present decoder: SHA-256 -> error, "" for none."""
        if not self.path.is_file():
            return {}
        try:
            with contextlib.closing(self._connect()) as file:
                query = "SELECT sha256, error FROM verdicts WHERE decoder = ?"
                return dict(file.execute(query, (self.decoder,)))
        except sqlite3.Error as error:
            self._say(error)
            return {}

    def add(self, new: dict[str, str]) -> None:
        """Remember verdicts: SHA-256 -> error."""
        if not new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(self._connect()) as file, file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts "
                    "(decoder TEXT, sha256 TEXT, error TEXT, PRIMARY KEY (decoder, sha256))"
                )
                rows = self._rows(new)
                file.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._say(error)

    def _rows(self, new: dict[str, str]) -> Iterator[tuple[str, str, str]]:
        return ((self.decoder, sha256, error) for sha256, error in new.items())

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)

    def _say(self, error: Exception) -> None:
        logger.warning(
            f"{self.path} cannot be used ({error}): every image is decoded at each start"
        )
