"""A line now and then from a loop that takes minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from accelerate import PartialState
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)


class Progress:
    """The pace of a loop over `total` things: when a line is due, how many a second, how long yet.

        progress = Progress(len(files))
        for done, file in enumerate(files, 1):
            convert(file)
            if progress.is_due(done):
                logger.info("%d of %d, %.0f s left", done, len(files), progress.seconds_left)

    The clock starts when the instance is made. `rate` and `seconds_left` are those of the moment at
    which `is_due` was last called.
    """

    def __init__(self, total: float, every_seconds: float = 10.0) -> None:
        self.total, self.every_seconds = total, every_seconds
        self.started = self.last_line = self.last_call = time.monotonic()
        self.done = 0.0

    def is_due(self, done: float) -> bool:
        """Note that `done` of the things are done; say whether a line is due.

        It is due where more than `every_seconds` have passed since the last one, or the start.
        """
        self.done, self.last_call = done, time.monotonic()
        if self.last_call - self.last_line <= self.every_seconds:
            return False
        self.last_line = self.last_call
        return True

    @property
    def rate(self) -> float:
        """Things done a second, on average since the start."""
        return self.done / (self.last_call - self.started)

    @property
    def seconds_left(self) -> float:
        """Seconds until all are done, if it goes on at this rate."""
        return (self.total - self.done) / self.rate


def with_progress(
    loader: DataLoader, did: str, what: str, total: int, every_seconds: float = 10.0
) -> Iterator[dict[str, Any]]:
    """Yield the batches of `loader`; log how far it has come, on the main process, now and then.

    `total` counts the images of all processes, each of which has the same share of them. A line
    reads: `did` 640 of `total` `what`, 64 images/s, 120 s left.
    """
    progress = Progress(total, every_seconds)
    done, share = 0, len(loader.dataset)
    for batch in loader:
        yield batch
        done += len(batch["pixel_values"])
        everywhere = done * total / share
        if progress.is_due(everywhere) and PartialState().is_main_process:
            logger.info(
                "%s %d of %d %s, %.0f images/s, %.0f s left",
                did, everywhere, total, what, progress.rate, progress.seconds_left,
            )  # fmt: skip
