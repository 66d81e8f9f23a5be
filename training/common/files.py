"""Files that are written whole or not at all, and checksums.

Imports the standard library only: the command line reads recipes before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from training.common.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, as `write_text` does.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have; nothing is written.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 to a temporary name beside `path`, then move it: a crash leaves no half file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes as `write_text` writes text."""
    temporary = temporary_of(path)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # of a disk that is full


def temporary_of(path: Path) -> Path:
    """Name the file beside `path` that is written first."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        UserError: the file is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: is {path.parent} a finished run?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): restore it, or train again") from error


def sha256_file(path: Path) -> str:
    """Compute the SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
