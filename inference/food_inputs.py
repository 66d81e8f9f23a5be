# SPDX-License-Identifier: Apache-2.0
"""What may hold an image: a path, bytes, a file, base64, a row; uploaded beside `food_classification`.

Nothing is fetched. It imports the standard library and `food_images` only.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any

try:  # as code of a repository, and in this project
    from .food_images import InvalidImageError
except ImportError:  # beside a program that has this folder on its path
    from food_images import InvalidImageError


def opened(source: Any) -> tuple[str | None, Any]:
    """Bring an input to a form that `decode_image` takes; with its name, where it has one.

    Raises:
        InvalidImageError: it gives no bytes.
    """
    if isinstance(source, Mapping):
        return _of_row(source)
    if isinstance(source, memoryview):
        return None, source.tobytes()
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        name = shortened(name) if isinstance(name, str) else None
        return name, _read_file(source, name or f"a {type(source).__name__}")
    if isinstance(source, str) and not os.path.isfile(source):
        return _of_text(source)
    if isinstance(source, (str, os.PathLike)):
        return shortened(os.fsdecode(source)), source
    return None, source


def _of_text(text: str) -> tuple[str | None, Any]:
    """Read a text that is no file: an image in base64, or else a path with nothing there."""
    if text[:5].lower() == "data:":
        return None, from_data_url(text)
    # Shorter than any image, or a URL: let it be complained of as the path that it is meant for.
    data = from_base64(text) if len(text) >= 64 else None
    if data is not None:
        return None, data
    return shortened(text), text


def _of_row(row: Mapping) -> tuple[str | None, Any]:
    """Read {"bytes", "path"}, as `datasets` gives an image that it was told not to decode."""
    if set(row) != {"bytes", "path"}:
        raise InvalidImageError(
            "a dict is not an image; of a data set give one column, as dataset['image']"
        )
    path, data = row["path"], row["bytes"]
    name = shortened(path) if isinstance(path, str) else None
    return name, path if data is None else data


def _read_file(file: Any, name: str) -> bytes:
    try:
        if file.seekable():
            file.seek(0)  # as Pillow does: what has just been written stands at its end
        data = file.read()
    except Exception as error:
        said = f"{name} cannot be read ({reason(error)}); open it again"
        raise InvalidImageError(said) from error
    if not isinstance(data, bytes):
        raise InvalidImageError(f"reading {name} gives no bytes; open the file with mode 'rb'")
    return data


def from_data_url(text: str) -> bytes:
    """Decode data:image/...;base64,...; nothing is fetched.

    Raises:
        InvalidImageError: it is of another form, or not strictly base64.
    """
    header, _, body = text.partition(",")
    if not re.fullmatch(r"data:image/[\w.+-]+(;[\w.+=-]+)*;base64", header, re.I):
        raise InvalidImageError(
            f"{shortened(header)} is not an image in base64; give data:image/jpeg;base64,..."
        )
    data = from_base64(body)
    if data is None:
        raise InvalidImageError("not strictly base64 after the comma; encode the file again")
    return data


def from_base64(text: str) -> bytes | None:
    """Decode base64 without line breaks or other strange characters; None if it is anything else."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def reason(error: Exception) -> str:
    reason = str(error).split(" <_io")[0]  # Pillow names the buffer's address
    return shortened(" ".join(reason.split()) or type(error).__name__)


def shortened(path: str) -> str:
    """Shorten a path to one line: it may be the whole of a photo in base64."""
    path = path if path.isprintable() else repr(path)[1:-1]
    return path if len(path) <= 200 else f"{path[:60]}...{path[-60:]}"
