"""See whether a run folder can be written before anything is read for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from training.common.errors import UserError


def check_writable(folder: Path) -> None:
    """Write a temporary file into a folder, or into the folder above it that there is; nothing stays.

    The permissions alone do not tell: a file system may be read-only, and root may write anywhere else.

    Raises:
        UserError: it cannot be written, or a file is in its way.
    """
    there = folder
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise UserError(f"output_dir {folder}: {there} is a file; choose another --output_dir")
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"output_dir {folder} cannot be written ({there}: {error.strerror}): choose another "
            "--output_dir"
        ) from error
