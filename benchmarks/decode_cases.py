# SPDX-License-Identifier: Apache-2.0
"""The images of decode_peaks.py, built by code: every format and mode at its limit."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CASES: dict[str, Callable[[], bytes]] = {}
SIDE, HEAVY_SIDE = 8000, 6928  # 64 and 48 megapixels


def source(file: Path) -> Any:
    """What is given to decode_image: the path, or what an `.npy` holds (as an array, or by PIL)."""
    with file.open("rb") as opened:
        start = opened.read(8)
    if start[1:6] != b"NUMPY":
        return file
    array = np.load(file)
    if array.shape[2] == 4:
        return array
    turned = Image.fromarray(array[:, :, :4], "RGBA").convert("CMYK")
    turned.getexif()[0x0112] = 6
    return turned


# ---- photographs of 64 megapixels ---------------------------------------------------------------


def noise(side: int, bands: int, coarse: int = 1) -> np.ndarray:
    """Noise, the worst there is to compress; smooth in squares of `coarse` pixels."""
    rng = np.random.default_rng(0)
    small = -(-side // coarse)
    pixels = rng.integers(0, 256, (small, small, bands), dtype=np.uint8)
    return pixels.repeat(coarse, 0).repeat(coarse, 1)[:side, :side]


def picture(mode: str, side: int = SIDE, coarse: int = 1) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(noise(side, 2, coarse).copy().view(np.uint16)[:, :, 0])
    if mode in ("1", "P"):
        image = Image.fromarray(noise(side, 1, coarse)[:, :, 0])
        if mode == "1":
            return image.point(lambda value: 255 * (value > 127), "1")
        image.putpalette(bytes(range(256)) * 3)
        return image
    bands = len(Image.new(mode, (1, 1)).getbands())
    array = noise(side, bands, coarse)
    if bands == 1:
        return Image.fromarray(array[:, :, 0])
    return Image.merge(mode, [Image.fromarray(array[:, :, band].copy()) for band in range(bands)])


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if options.pop("lying", False):
        tags = Image.Exif()
        tags[0x0112] = 6
        options["exif"] = tags
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(name: str, kind: str, mode: str, side: int = SIDE, coarse: int = 1, **options: Any):
    CASES[name] = lambda: encode(picture(mode, side, coarse), kind, **options)


photograph("JPEG, 12 megapixels", "JPEG", "RGB", 3464, 4)
photograph("JPEG, 12 megapixels, on its side", "JPEG", "RGB", 3464, 4, lying=True)
photograph("JPEG RGB", "JPEG", "RGB", quality=90)
photograph("JPEG RGB 4:4:4", "JPEG", "RGB", coarse=2, quality=70, subsampling=0)
photograph("JPEG RGB on its side", "JPEG", "RGB", quality=90, lying=True)
photograph(
    "JPEG RGB progressive 4:4:4 on its side", "JPEG", "RGB", coarse=2, quality=70, subsampling=0,
    progressive=True, lying=True,
)  # fmt: skip
photograph("JPEG L", "JPEG", "L")
photograph("JPEG CMYK", "JPEG", "CMYK", coarse=2, quality=50)
photograph(
    "JPEG CMYK progressive on its side",
    "JPEG",
    "CMYK",
    coarse=2,
    quality=50,
    progressive=True,
    lying=True,
)
for _mode in ("1", "L", "P", "LA", "RGB", "I;16"):
    photograph(f"PNG {_mode}", "PNG", _mode, compress_level=1)
photograph("PNG RGBA", "PNG", "RGBA", coarse=2, compress_level=1)
photograph("PNG RGBA on its side", "PNG", "RGBA", coarse=2, compress_level=1, lying=True)
photograph("PNG P, transparent", "PNG", "P", compress_level=1, transparency=bytes(range(256)))
photograph("PNG RGB, a transparent colour", "PNG", "RGB", compress_level=1, transparency=(1, 2, 3))
photograph("WebP RGB", "WEBP", "RGB", HEAVY_SIDE, 16, method=0, quality=50)
photograph("WebP RGBA", "WEBP", "RGBA", HEAVY_SIDE, 16, method=0, quality=50)
photograph("WebP RGB lossless", "WEBP", "RGB", HEAVY_SIDE, 2, lossless=True, quality=0, method=0)
photograph("WebP RGBA lossless on its side", "WEBP", "RGBA", HEAVY_SIDE, 4, lossless=True,
           quality=0, method=0, lying=True)  # fmt: skip
photograph("AVIF RGB", "AVIF", "RGB", HEAVY_SIDE, 8, speed=10, quality=60)
photograph("AVIF RGB 4:4:4", "AVIF", "RGB", HEAVY_SIDE, 8, speed=10, subsampling="4:4:4")
photograph("AVIF RGBA on its side", "AVIF", "RGBA", HEAVY_SIDE, 8, speed=10, lying=True)
photograph("GIF", "GIF", "P")
photograph("GIF, transparent", "GIF", "P", transparency=7)
for _mode in ("1", "L", "P", "RGB", "RGBA"):
    photograph(f"BMP {_mode}", "BMP", _mode)
for _mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"):
    photograph(f"TIFF {_mode}", "TIFF", _mode)
photograph("TIFF RGBA on its side", "TIFF", "RGBA", lying=True)
for _packed in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"):
    photograph(f"TIFF RGB {_packed}", "TIFF", "RGB", coarse=2, compression=_packed)
photograph("TIFF RGBA tiff_lzw on its side", "TIFF", "RGBA", coarse=4, compression="tiff_lzw",
           lying=True)  # fmt: skip
photograph("TIFF CMYK tiff_lzw", "TIFF", "CMYK", coarse=4, compression="tiff_lzw")
photograph("TIFF 1 group4", "TIFF", "1", coarse=8, compression="group4")
for _mode in ("1", "L", "RGB"):
    photograph(f"PPM {_mode}", "PPM", _mode)
photograph("PPM I;16", "PPM", "I;16")


photograph("TIFF RGB tiff_lzw, one strip", "TIFF", "RGB", coarse=2, compression="tiff_lzw",
           strip_size=2**31 - 1)  # fmt: skip
CASES["array RGBA"] = lambda: saved(noise(SIDE, 4))
CASES["PIL CMYK on its side"] = lambda: saved(noise(SIDE, 5))  # five bands, to tell it


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
