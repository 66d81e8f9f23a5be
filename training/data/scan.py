"""Every image is decoded once before the first step: what is in it, and whether it can be read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import datasets
from datasets import Dataset

from inference.food_classification import InvalidImageError, decode_image
from training.common.machine import local_main_first

_SCAN_VERSION = 1  # part of the scan's cache key: a changed decoder must look again


def scan_images(dataset: Dataset, split: str) -> dict[str, list]:
    """sha256, decode error (or "") and path of every image, in order; one process of a machine looks."""
    from accelerate import PartialState  # where a launcher runs, local rank 0 scans and caches

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
    """sha256, decode error (or "") and path of each encoded image."""
    del version
    rows = [_check_image(image or {}) for image in batch["image"]]
    return {key: [row[key] for row in rows] for key in ("sha256", "error", "path")}


def _check_image(image: dict) -> dict[str, str]:
    path, data, error = image.get("path") or "", image.get("bytes"), ""
    if data is None and not path:
        return {
            "sha256": hashlib.sha256(b"").hexdigest(),
            "error": "the row has no image",
            "path": "",
        }
    try:
        data = data if data is not None else Path(path).read_bytes()
        decode_image(data)
    except (InvalidImageError, OSError) as problem:
        error = str(problem)
    return {"sha256": hashlib.sha256(data or b"").hexdigest(), "error": error, "path": path}
