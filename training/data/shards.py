"""Images with a reduced short side, in parquet files that are written whole or not at all."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features
from PIL import Image
from PIL import features as pillow_features

from inference.food_images import InvalidImageError, decode_image, resize
from training.common.errors import UserError
from training.data.splits import encoded_bytes

VERSION = 1  # part of a cache's key: raise it whenever other files would be written
QUALITY, SUBSAMPLING, RESAMPLE = 90, "4:2:0", "bicubic"
SHARD_ROWS, GROUP_ROWS = 500, 100  # what a kill costs one process; what is in memory at once
NOTES = b"vit-food101"  # a shard's counts, in its own footer


def reduce_short_side(data: bytes, short_side: int) -> bytes:
    """Encode an image again as an upright JPEG (quality 90, 4:2:0) with that short side, in pixels.

    An image whose short side is not longer is returned as it is, the same object: it is never
    enlarged and never encoded again.

    Raises:
        InvalidImageError: as `decode_image`.
    """
    pixels = decode_image(data)
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short <= short_side:
        return data
    size = (round(side * short_side / short) for side in (height, width))
    reduced = resize(pixels, *size, RESAMPLE).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(reduced).save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    return buffer.getvalue()


def made_with() -> str:
    """Return the versions of pillow, libjpeg-turbo and torch, which influence the JPEG bytes."""
    turbo = pillow_features.version("libjpeg_turbo")
    return f"pillow {version('pillow')}, libjpeg-turbo {turbo}, torch {torch.__version__}"


@dataclass(frozen=True)
class Shard:
    """One parquet file of a cache, and which rows of the split it is for, written or not."""

    path: Path
    first: int  # position in the split of its first row
    rows: int  # number of rows

    def look(self) -> dict[str, Any] | None:
        """Read a shard's row count and sizes; None without a whole file of these rows.

        Returns:
            `file` (its name), `rows`, `size` in bytes, `source_bytes` and `image_bytes` (of all
            images before and after), `num_kept` (images returned as they were) and `made_with`.
        """
        try:
            footer = pq.read_metadata(self.path)
            found = {"file": self.path.name, "rows": footer.num_rows}
            found |= {"size": self.path.stat().st_size, **json.loads(footer.metadata[NOTES])}
        except (OSError, ValueError, KeyError):  # ArrowInvalid is a ValueError
            return None
        return found if footer.num_rows == self.rows else None


def plan_shards(folder: Path, num_rows: int) -> list[Shard]:
    """Divide `num_rows` rows into shards of 500 in `folder`; nothing is written."""
    starts = range(0, num_rows, SHARD_ROWS)
    names = [f"{i:05d}-of-{len(starts):05d}.parquet" for i in range(len(starts))]
    return [
        Shard(folder / name, first, min(SHARD_ROWS, num_rows - first))
        for name, first in zip(names, starts, strict=True)
    ]


def schema_of(dataset: Dataset) -> pa.Schema:
    """Describe the columns of a shard: `image`, and `label` with the names of `dataset`.

    The description holds the features of `datasets`, so that images and names come back.
    """
    features = Features({"image": datasets.Image(), "label": dataset.features["label"]})
    return features.arrow_schema


def write_shard(dataset: Dataset, shard: Shard, short_side: int) -> int:
    """Reduce the images of one shard, write it under a temporary name, then move it.

    Args:
        dataset: the rows of the shard only.

    Returns:
        The number of rows.

    Raises:
        UserError: an image cannot be read any more.
        OSError: the shard cannot be written; nothing of it stays.
    """
    temporary = shard.path.with_name(f".{shard.path.name}.{os.getpid()}")
    schema = schema_of(dataset)
    # JPEGs do not shrink further, and the statistics of binary values are whole images.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    counts: Counter[str] = Counter(source_bytes=0, image_bytes=0, num_kept=0)
    try:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            for start in range(0, shard.rows, GROUP_ROWS):
                rows = dataset[start : start + GROUP_ROWS]
                rows["image"] = [
                    _reduced(image, shard.first + start + i, short_side, counts)
                    for i, image in enumerate(rows["image"])
                ]
                writer.write_table(pa.table(rows, schema=schema))
            writer.add_key_value_metadata(
                {NOTES: json.dumps({**counts, "made_with": made_with()}).encode()}
            )
        os.replace(temporary, shard.path)
    finally:
        temporary.unlink(missing_ok=True)
    return shard.rows


def _reduced(
    image: dict[str, Any], position: int, short_side: int, counts: Counter[str]
) -> dict[str, Any]:
    """Make the new `image` of a row; of its path no more than the file's name is kept."""
    path = image["path"]
    try:
        data = encoded_bytes(image)
        reduced = reduce_short_side(data, short_side)
    except (InvalidImageError, OSError) as error:
        raise UserError(
            f"image {position} of the training split ({path or 'no path'}) could be read before and no "
            f"longer can: {error}; repair it and start again"
        ) from error
    counts.update(source_bytes=len(data), image_bytes=len(reduced), num_kept=reduced is data)
    return {"bytes": reduced, "path": Path(path).name if path else None}


def write_shards(
    dataset: Dataset, shards: list[Shard], short_side: int, workers: int
) -> Iterator[int]:
    """Write shards in `workers` processes; yield the number of rows of each as it gets done.

    Args:
        dataset: the rows of the whole split.

    Raises:
        UserError: as `write_shard`, and where a process was killed.
        OSError: as `write_shard`. Shards that are complete stay.
    """
    jobs = ((dataset.select(range(s.first, s.first + s.rows)), s, short_side) for s in shards)
    if workers < 2:
        for job in jobs:
            yield write_shard(*job)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(write_shard, *job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that reduces images was killed (out of memory?): run the same command "
            "again, it makes what is missing"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def join_shards(shards: list[Shard], path: Path, schema: pa.Schema) -> None:
    """Write the rows of all shards to one Arrow file, under a temporary name, then move it.

    Raises:
        UserError: a shard is damaged; it is removed, so that the next call can make it again.
        OSError: the file cannot be written; nothing of it stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for shard in shards:
                writer.write_table(_read(shard).cast(schema))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(shard: Shard) -> pa.Table:
    try:
        with pq.ParquetFile(shard.path) as file:
            return file.read()
    except (OSError, pa.ArrowInvalid) as error:
        shard.path.unlink(missing_ok=True)
        raise UserError(
            f"{shard.path} was damaged and is removed: run the same command again, it makes what is missing"
        ) from error


def _start_worker() -> None:
    torch.set_num_threads(1)  # there is a process a core
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # after Ctrl-C the parent speaks for all
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent: it would wait for work for ever, and hold on to a lock."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
