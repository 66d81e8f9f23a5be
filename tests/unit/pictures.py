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


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(header, pixels, *before):
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_header(width, height):
    """A PNG that claims any size in 100 bytes."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return png_of(header, zlib.compress(b"\0" * 50))


def png(values, bits, kind, palette=None, trns=None):
    """A PNG of any depth and colour type (0 gray, 2 colour, 3 palette), with its transparency."""
    height, width = values.shape[:2]
    if bits >= 8:
        rows = [row.astype(f">u{bits // 8}").tobytes() for row in values]
    else:
        binary = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(height, -1)
        rows = [np.packbits(row).tobytes() for row in binary.astype(np.uint8)]
    before = [chunk(b"PLTE", palette)] if palette else []
    before += [chunk(b"tRNS", trns)] if trns is not None else []
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return png_of(header, zlib.compress(b"".join(b"\0" + row for row in rows)), *before)


def tiff(values, order, bits, white_is, packed=None, sample=1):
    """A gray TIFF of any depth, byte order, sign (sample 2) and meaning of zero, uncompressed."""
    height, width = values.shape
    body = packed or values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, white_is),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(body)), (339, 3, sample)]  # fmt: skip
    pack = {3: "HHIH2x", 4: "HHII"}
    entries = b"".join(struct.pack(order + pack[kind], tag, kind, 1, v) for tag, kind, v in tags)
    body += b"\0" * (len(body) % 2)
    head = b"II*\0" if order == "<" else b"MM\0*"
    head += struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(tags)) + entries + bytes(4)


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
