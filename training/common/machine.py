"""What this process may use of the machine."""

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


def usable_cores() -> int:
    """Cores, as the system counts them, that this process may run on; containers often limit them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def local_main_first() -> Iterator[None]:
    """Local rank 0 does the work and fills the cache; the others wait, then read it."""
    from accelerate import PartialState

    with PartialState().local_main_process_first():
        yield


IMAGES_A_WORKER = 256  # fewer are decoded sooner than a process is started


def num_decoders(num_images: int) -> int:
    """Worker processes for decoding `num_images` once: every core, where it is worth their start."""
    return min(usable_cores(), num_images // IMAGES_A_WORKER)


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


def device_name() -> str:
    device = PartialState().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    installed = {name: version(name) for name in LIBRARIES}
    return {"vit-food101": __version__, "python": platform.python_version(), **installed}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
