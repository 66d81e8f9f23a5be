"""A line now and then from a loop that takes minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from accelerate import PartialState
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)


def with_progress(
    loader: DataLoader, did: str, what: str, total: int, every_seconds: float = 10.0
) -> Iterator[dict[str, Any]]:
    """Yield batches; on the main process log a line with rate and time left every ten seconds.

    `total` counts the images of all processes, each of which has the same share of them.
    """
    started = last = time.monotonic()
    done, share = 0, len(loader.dataset)
    for batch in loader:
        yield batch
        done += len(batch["pixel_values"])
        now = time.monotonic()
        if PartialState().is_main_process and now - last > every_seconds:
            last, everywhere = now, done * total / share
            rate = everywhere / (now - started)
            logger.info(
                "%s %d of %d %s, %.0f images/s, %.0f s left",
                did, everywhere, total, what, rate, (total - everywhere) / rate,
            )  # fmt: skip
