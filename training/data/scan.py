"""Every image is decoded once before the first step: what is in it, and whether it can be read."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import datasets
from accelerate import PartialState
from datasets import Dataset

from inference.food_classification import InvalidImageError, decode_image
from training.common.machine import local_main_first
from training.data.splits import encoded_bytes

_SCAN_VERSION = 1  # part of the scan's cache key: a changed decoder must look again


def scan_images(dataset: Dataset, split: str) -> dict[str, list]:
    """Decode every image of `dataset`, or read from datasets' cache what that found before.

    All processes call this together; the first of each machine looks, and the others read its
    cache. `split` only names the progress bar.

    Returns:
        Lists in the order of the rows: `sha256` of the encoded bytes, `error` ("" where the image
        can be decoded) and `path` ("" where there is none).
    """
    with local_main_first():
        were_on = not datasets.are_progress_bars_disabled()
        if not PartialState().is_local_main_process:
            datasets.disable_progress_bars()
        cores = os.cpu_count() or 1
        scanned = dataset.map(
            check_images,
            batched=True,
            batch_size=64,
            num_proc=min(cores, len(dataset) // 2000) or None,
            remove_columns=dataset.column_names,
            fn_kwargs={"version": _SCAN_VERSION},
            desc=f"checking {split} images",
        )
        if were_on:
            datasets.enable_progress_bars()
    return {name: scanned[name][:] for name in ("sha256", "error", "path")}


def check_images(batch: dict[str, list], version: int) -> dict[str, list]:
    """Decode each image of a batch of rows: `sha256`, `error` and `path` as of `scan_images`.

    `version` is not used: `datasets` makes it a part of the key of its cache.
    """
    del version
    rows = [_check_image(image or {}) for image in batch["image"]]
    return {key: [row[key] for row in rows] for key in ("sha256", "error", "path")}


def _check_image(image: dict[str, Any]) -> dict[str, str]:
    path, data, error = image.get("path") or "", b"", ""
    try:
        if image.get("bytes") is None and not path:
            error = "the row has no image"
        else:
            data = encoded_bytes(image)
            decode_image(data)
    except (InvalidImageError, OSError) as problem:
        error = str(problem)
    return {"sha256": hashlib.sha256(data).hexdigest(), "error": error, "path": path}
