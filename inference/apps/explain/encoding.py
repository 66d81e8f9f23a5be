"""Numbers and pictures as text that a page can hold: base64 of bytes, data: URLs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def as_bytes(values: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """Keep an array as bytes, 0 for `low` and 255 for `high`: {"data", "shape", "low", "high"}."""
    span = high - low or 1.0
    scaled = np.clip((values - low) / span, 0, 1) * 255
    data = base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode()
    return {"data": data, "shape": list(values.shape), "low": float(low), "high": float(high)}


def shares(values: np.ndarray) -> dict[str, Any]:
    """Keep an array of numbers from 0 on as bytes; 255 is its largest."""
    return as_bytes(values, 0.0, float(values.max()))


def signed(values: np.ndarray) -> dict[str, Any]:
    """Keep an array around 0 as bytes; 0 and 255 are as far from 0 as its farthest number."""
    far = float(np.abs(values).max())
    return as_bytes(values, -far, far)


def jpeg_url(pixels: np.ndarray, longest: int | None = None) -> str:
    """Make a data: URL of uint8 (height, width, 3), reduced to `longest` pixels on its long side."""
    image = Image.fromarray(pixels)
    if longest is not None:
        image.thumbnail((longest, longest))
    return _url(image, "JPEG", quality=88)


def png_url(pixels: np.ndarray) -> str:
    """Make a data: URL of uint8 (height, width, 3), every pixel as it is."""
    return _url(Image.fromarray(pixels), "PNG", optimize=True)


def _url(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def tiles(filters: np.ndarray, columns: int) -> np.ndarray:
    """Lay out filters (n, 3, height, width) as one picture, each scaled by its own largest number.

    Returns:
        uint8 (rows of tiles, columns of tiles, 3), a line of one grey pixel between.
    """
    n, _, height, width = filters.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 128, np.uint8)
    for i, each in enumerate(filters):
        far = np.abs(each).max() or 1.0
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        tile = ((each / far + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
        sheet[top : top + height, left : left + width] = tile
    return sheet
