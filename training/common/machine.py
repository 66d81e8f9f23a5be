"""What this process may use of the machine, and what is installed on it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version

import torch
from accelerate import PartialState

from training import __version__

IMAGES_A_WORKER = 256  # fewer are decoded sooner than a process is started

LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "numpy",
    "pillow",
)


def usable_cores() -> int:
    """Count the cores that this process may run on: in a container often not all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_decoders(num_images: int) -> int:
    """Choose how many worker processes decode `num_images` once.

    There is one a core, or fewer where they would not be worth their start, or none.
    """
    return min(usable_cores(), num_images // IMAGES_A_WORKER)


@contextlib.contextmanager
def local_main_first() -> Iterator[None]:
    """Let the first process of each machine do the work inside the `with` before the others.

    It fills a cache, which they then read.
    """
    with PartialState().local_main_process_first():
        yield


def device_name() -> str:
    """Name the device of this process: the GPU's product name, or `cpu`."""
    device = PartialState().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """List versions by name: `vit-food101`, `python`, and each of `LIBRARIES`."""
    installed = {name: version(name) for name in LIBRARIES}
    return {"vit-food101": __version__, "python": platform.python_version(), **installed}


def now() -> str:
    """Tell the time in UTC to the second, as `2025-01-31T12:00:00Z`."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
