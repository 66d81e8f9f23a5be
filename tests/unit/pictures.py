"""Generated images and small checks for the tests of the uploaded pipeline file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference import food_images as food

SOURCE = Path(food.__file__)
FOOD10 = SOURCE.parents[1].parent / "shared" / "food10"
LABELS = ["apple_pie", "baklava", "fish_and_chips", "hot_dog", "miso_soup", "pho", "waffles"]

needs_simplejpeg = pytest.mark.skipif(food.simplejpeg is None, reason="simplejpeg is not installed")


def photo(height=48, width=64, seed=0):
    """Smooth noise: neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png_header(width, height):
    """A PNG that claims any size in 100 bytes."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 50))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def square(edge):
    return {"height": edge, "width": edge}


def white(image):
    """What transparency on white means, by hand in floating point."""
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def scores(rows):
    """{label: score} of one image's result."""
    return {row["label"]: row["score"] for row in rows}


def vector(rows):
    return np.array([scores(rows)[label] for label in LABELS])


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    for part in parts:
        assert part in message
