"""Training images with a reduced short side: made once, kept as parquet below datasets' own cache.

HF_DATASETS_CACHE/vit-food101/train-short-side-256-KEY/
    00000-of-00152.parquet   500 rows each: `image` (embedded bytes, file name) and `label`
    mapped.arrow             the same rows in the form that is read: parquet cannot be mapped
    cache.json               written last: what was done, with what, and the size of every file

KEY is a digest of the images, their labels and of what is done to them: a folder is never stale,
for other images have another one. Shards are written under a temporary name and moved, so whoever
comes after a kill makes the missing ones only. One process builds, under a lock; others wait.
Removing the folder loses nothing but time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset

from training.common.errors import UserError
from training.common.files import write_json
from training.common.locks import locked
from training.common.machine import now, usable_cores
from training.common.progress import Progress
from training.data.array_store import cache_folder
from training.data.shards import (
    QUALITY,
    RESAMPLE,
    SUBSAMPLING,
    VERSION,
    Shard,
    join_shards,
    plan_shards,
    schema_of,
    write_shards,
)
from training.data.splits import Split

logger = logging.getLogger(__name__)

RECORD, MAPPED = "cache.json", "mapped.arrow"


@dataclass(frozen=True)
class Cache:
    """A complete cache of reduced training images."""

    folder: Path
    record: dict[str, Any]  # the content of cache.json
    was_there: bool  # False: it was made now

    def open(self) -> Dataset:
        """Map the reduced images into memory, encoded and in the split's order; nothing is written.

        Raises:
            UserError: the mapped file is damaged.
        """
        try:
            dataset = Dataset.from_file(str(self.folder / MAPPED))
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(
                f"the cache {self.folder} is damaged ({_reason(error)}): remove the folder, it will "
                "be made again"
            ) from error
        return dataset.cast_column("image", datasets.Image(decode=False))

    def size_on_disk(self) -> int:
        """Count the bytes of all its files: the shards and the mapped copy."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def summary(self) -> dict[str, Any]:
        """Choose what the record of a run says about the images that it was trained on.

        Returns:
            `key`, `short_side`, `jpeg_quality`, `subsampling`, `resample`, `num_images`,
            `num_kept` (those that were no larger) and `made_with`, a list of library versions.
        """
        keys = ("key", "short_side", "jpeg_quality", "subsampling", "resample")
        return {key: self.record[key] for key in (*keys, "num_images", "num_kept", "made_with")}


def find_or_build(split: Split, short_side: int) -> Cache:
    """Find the cache of a scanned split; make it, or what is missing of it, where there is none.

    Args:
        short_side: in pixels; an image whose short side is not longer is kept as it is.

    Raises:
        UserError: no space, no right to write, or an image that cannot be read any more.
    """
    ingredients = _ingredients(split, short_side)
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / f"train-short-side-{short_side}-{key}"
    shards = plan_shards(folder, len(split))
    try:
        if record := _complete_record(folder, shards):
            return Cache(folder, record, was_there=True)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, when_busy=lambda: _say_busy(folder)):
            if record := _complete_record(folder, shards):  # made while this process waited
                return Cache(folder, record, was_there=True)
            _build(split, short_side, folder, shards)
            record = {"format": 1, "key": key, **ingredients, **_totals(folder, shards)}
            write_json(folder / RECORD, record)
    except OSError as error:
        raise UserError(
            f"the cache {folder} cannot be written ({_reason(error)}): free space, or choose "
            "another place with HF_DATASETS_CACHE"
        ) from error
    return Cache(folder, record, was_there=False)


def _ingredients(split: Split, short_side: int) -> dict[str, Any]:
    return {
        "version": VERSION,
        "fingerprint": split.fingerprint,
        # The fingerprint is of the labels' names, the shards hold their numbers.
        "label_names": split.label_names,
        "short_side": short_side,
        "jpeg_quality": QUALITY,
        "subsampling": SUBSAMPLING,
        "resample": RESAMPLE,
    }


def _complete_record(folder: Path, shards: list[Shard]) -> dict[str, Any] | None:
    record = _read_record(folder)
    if record is None or record["mapped_bytes"] != _size(folder / MAPPED):
        return None
    return record if record["shards"] == [shard.look() for shard in shards] else None


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _totals(folder: Path, shards: list[Shard]) -> dict[str, Any]:
    found = [shard.look() for shard in shards]
    counted = ("source_bytes", "image_bytes", "num_kept")
    totals = {key: sum(row[key] for row in found) for key in counted}
    num_images = sum(row["rows"] for row in found)
    return {
        "num_images": num_images,
        **totals,
        "mean_kB": round(totals["image_bytes"] / num_images / 1000, 2),
        "made_with": sorted({row["made_with"] for row in found}),
        "created": now(),
        "mapped_bytes": _size(folder / MAPPED),
        "shards": found,
    }


def _say_busy(folder: Path) -> None:
    _say("another process makes the cache %s: waiting for it", folder)


def _build(split: Split, short_side: int, folder: Path, shards: list[Shard]) -> None:
    """Write the missing shards and join all; the caller holds the lock of `folder`."""
    for stray in folder.glob(".*.*"):  # temporary files of a process that was killed
        stray.unlink()
    missing = _missing(folder, shards)
    (folder / RECORD).unlink(missing_ok=True)
    if missing:
        num_rows, workers = sum(shard.rows for shard in missing), min(usable_cores(), len(missing))
        _say(
            "reducing %d of %d images to a short side of %d pixels, %d at a time: %s",
            num_rows, len(split), short_side, workers, folder,
        )  # fmt: skip
        _log_progress(write_shards(split.dataset, missing, short_side, workers), num_rows)
    _say("joining %d shards in one file that can be mapped into memory", len(shards))
    join_shards(shards, folder / MAPPED, schema_of(split.dataset))


def _missing(folder: Path, shards: list[Shard]) -> list[Shard]:
    """Choose the shards to write; one whose size is not the recorded one is removed first."""
    record = _read_record(folder)
    recorded = {row["file"]: row for row in record["shards"]} if record else {}
    missing = []
    for shard in shards:
        found = shard.look()
        if found is None or recorded.get(shard.path.name, found) != found:
            shard.path.unlink(missing_ok=True)
            missing.append(shard)
    if record and missing:
        _say("%d of %d shards are damaged and made again: %s", len(missing), len(shards), folder)
    return missing


def _log_progress(written: Iterator[int], total: int, every_seconds: float = 10.0) -> None:
    progress, done = Progress(total, every_seconds), 0
    for rows in written:
        done += rows
        if progress.is_due(done) and done < total:
            _say(
                "reduced %d of %d images, %.0f images/s, %.0f s left",
                done, total, progress.rate, progress.seconds_left,
            )  # fmt: skip


def _say(text: str, *values: Any) -> None:
    if PartialState().is_main_process:
        logger.info(text, *values)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:300]
