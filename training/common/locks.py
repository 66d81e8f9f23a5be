"""One process at a time in a folder; the system frees the lock of a process that was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def lock_folder(
    folder: Path, when_busy: Callable[[], object], timeout_seconds: float = 0.0
) -> FileLock:
    """Lock `folder`, by the file .lock in it, until the lock is released or the process ends.

    If another process still holds the lock after `timeout_seconds`, `when_busy` is called once,
    outside the lock. It may say so, and this then waits as long as it takes; or it may raise, and
    nothing is locked:

        def refuse() -> None:
            raise UserError(f"{folder} is in use by another process: wait for it")

        lock = lock_folder(folder, when_busy=refuse)  # released when `lock` is collected, too
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=timeout_seconds)
    except Timeout:
        when_busy()
        lock.acquire()
    return lock


@contextlib.contextmanager
def locked(
    folder: Path, when_busy: Callable[[], object], timeout_seconds: float = 0.0
) -> Iterator[None]:
    """Hold the lock of `folder` inside the `with`; the arguments are those of `lock_folder`."""
    lock = lock_folder(folder, when_busy, timeout_seconds)
    try:
        yield
    finally:
        lock.release()
