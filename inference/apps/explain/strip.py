"""One picture of the whole way: patches, where the class token looks in three blocks, the answer's map."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.common.errors import UserError
from training.common.files import write_bytes

TILE, GAP = 280, 10  # pixels


def save_strip(facts: dict[str, Any], path: Path) -> None:
    """Write the picture of what `page.measure` has found as PNG.

    Raises:
        UserError: the network is no ViT.
    """
    if not facts["patches"]:
        raise UserError("--picture shows patches and attention, and this network is no ViT")
    buffer = io.BytesIO()
    strip(facts).save(buffer, "PNG", optimize=True)
    write_bytes(path, buffer.getvalue())


def strip(facts: dict[str, Any]) -> Image.Image:
    """Draw five squares beside each other; in the last four what counts for little is dark."""
    photo = _open(facts["input"]["sharp"]).resize((TILE, TILE), Image.Resampling.LANCZOS)
    rows, columns = facts["patches"]["rows"], facts["patches"]["columns"]
    layers = facts["attention"]["layers"]
    shown = sorted({0, layers // 2, layers - 1})
    maps = [_mean_attention(facts["attention"], layer) for layer in shown]
    maps.append(_values(facts["answer"]["why"][0]["map"]))
    tiles = [_cut(photo, rows, columns)]
    tiles += [_shaded(photo, values.reshape(rows, columns)) for values in maps]
    sheet = Image.new("RGBA", (len(tiles) * (TILE + GAP) - GAP, TILE), (0, 0, 0, 0))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * (TILE + GAP), 0))
    return sheet


def _open(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


def _values(packed: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(packed["data"]), np.uint8)
    return flat.reshape(packed["shape"]).astype(np.float32) / 255


def _mean_attention(attention: dict[str, Any], layer: int) -> np.ndarray:
    heads = _values(attention["rows"])[layer] * np.float32(attention["largest"][layer])[:, None]
    mean = heads.mean(0)
    return mean / mean.max()


def _cut(photo: Image.Image, rows: int, columns: int) -> Image.Image:
    """Move the patches a little apart."""
    apart = Image.new("RGB", photo.size, "white")
    high, wide = TILE / rows, TILE / columns
    for row in range(rows):
        for column in range(columns):
            box = [round(column * wide), round(row * high)]
            box += [round((column + 1) * wide) - 2, round((row + 1) * high) - 2]
            apart.paste(photo.crop(box), box[:2])
    return apart


def _shaded(photo: Image.Image, values: np.ndarray) -> Image.Image:
    light = Image.fromarray((255 * values).round().astype(np.uint8))
    light = light.resize(photo.size, Image.Resampling.BILINEAR)
    dark = Image.eval(photo, lambda value: value // 5)
    return Image.composite(photo, dark, light)
