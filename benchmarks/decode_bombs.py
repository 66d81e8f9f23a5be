# SPDX-License-Identifier: Apache-2.0
"""The bombs of decode_peaks.py: small or strange files that would take gigabytes or minutes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from decode_cases import CASES, HEAVY_SIDE, SIDE, encode, picture
from PIL import Image

MB = 10**6


def case(name: str) -> Callable:
    def keep(build: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES[name] = build
        return build

    return keep


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = before + chunk(b"IDAT", pixels) + after
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


def small(kind: str = "PNG", **options: Any) -> bytes:
    return encode(picture("RGB", 64, 8), kind, **options)


def flat(kind: str, side: int = SIDE, mode: str = "RGB", **options: Any) -> bytes:
    return encode(Image.new(mode, (side, side), 77), kind, **options)


@case("1 x 60,000,000 PNG")
def thin() -> bytes:
    return png(1, 60 * MB, zeros(60 * MB * 4))


@case("1 x 201 PNG")
def thin_and_short() -> bytes:
    return png(1, 201, zeros(201 * 4))


@case("as thin as may be, PNG")
def thinnest() -> bytes:
    return png(560, 112_000, zeros(112_000 * 1681))


@case("200 megapixels, PNG")
def large() -> bytes:
    return png(20_000, 10_000, zeros(10**5))


@case("PNG, 200 MB of zeros behind the last row")
def overlong() -> bytes:
    return png(8, 8, zeros(200 * MB))


@case("PNG, 250 MB in a private chunk")
def private() -> bytes:
    return png(8, 8, zeros(8 * 25), chunk(b"prVt", bytes(250 * MB)))


@case("PNG, 250 MB in a chunk behind the pixels")
def behind() -> bytes:
    return png(8, 8, zeros(8 * 25), b"", chunk(b"prVt", bytes(250 * MB)))


@case("PNG, 20,000,000 empty chunks")
def many_chunks() -> bytes:
    return png(8, 8, zeros(8 * 25), chunk(b"prVt", b"") * 20 * MB)


@case("PNG, 20,000,000 empty chunks behind the pixels")
def many_behind() -> bytes:
    return png(8, 8, zeros(8 * 25), b"", chunk(b"prVt", b"") * 20 * MB)


@case("PNG, 15,000,000 bytes of IDAT, one a chunk")
def many_idats() -> bytes:
    body = b"".join(chunk(b"IDAT", bytes([v])) for v in zlib.compress(bytes(8 * 25), 0))
    return png(8, 8, b"", body + chunk(b"IDAT", b"") * 15 * MB)


@case("PNG, zTXt bombs of 1 MB in 1 kB, 5,000 of them")
def texts() -> bytes:
    return png(8, 8, zeros(8 * 25), chunk(b"zTXt", b"a\0\0" + zeros(2**20 - 1)) * 5000)


@case("PNG, EXIF of 200 MB behind the pixels")
def exif_behind() -> bytes:
    return png(8, 8, zeros(8 * 25), b"", chunk(b"eXIf", long_tag(0x0112, 3, 100 * MB)))


@case("PNG, EXIF of 8 MB, 4,000,000 orientations")
def exif_long() -> bytes:
    return png(8, 8, zeros(8 * 25), chunk(b"eXIf", long_tag(0x0112, 3, 4 * MB)))


def long_tag(tag: int, kind: int, count: int) -> bytes:
    """A TIFF directory with one tag of many values."""
    size = {3: 2, 4: 4, 5: 8}[kind]
    entry = struct.pack("<HHII", tag, kind, count, 26)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + b"\x01" * (count * size)


def jpeg_segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def in_jpeg(front: bytes) -> bytes:
    data = small("JPEG")
    return data[:2] + front + data[2:]


@case("JPEG, 15,000,000 empty comments")
def comments() -> bytes:
    return in_jpeg(jpeg_segment(0xFE, b"") * 15 * MB)


@case("JPEG, 60 MB of padding")
def padding() -> bytes:
    return in_jpeg(b"\xff" * (60 * MB))


@case("JPEG, 1,000 segments of EXIF")
def exif_segments() -> bytes:
    return in_jpeg(jpeg_segment(0xE1, b"Exif\0\0" + bytes(65000)) * 1000)


@case("JPEG, EXIF of 8 MB, 1,000,000 resolutions")
def resolutions() -> bytes:
    tag = long_tag(0x011A, 5, 1_000_000)
    parts = [tag[i : i + 65000] for i in range(0, len(tag), 65000)]
    return in_jpeg(b"".join(jpeg_segment(0xE1, b"Exif\0\0" + part) for part in parts))


@case("JPEG, 16 MB of profile")
def profile() -> bytes:
    parts = (
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(65000)) for i in range(1, 256)
    )
    return in_jpeg(b"".join(parts))


def scans(count: int) -> bytes:
    """A progressive JPEG of 64 megapixels that says its last, empty scan so many times."""
    data = flat("JPEG", progressive=True, subsampling=0)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + b"\xff\xd9"


@case("JPEG, progressive, 50 scans")
def allowed_scans() -> bytes:
    return scans(50)


@case("JPEG, progressive, 800 scans")
def too_many_scans() -> bytes:
    return scans(800)


@case("GIF, 127,000,000 blocks of comment")
def gif_comment() -> bytes:
    data = small("GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:at] + b"!\xfe" + b"\x01a" * (127 * MB) + b"\0" + data[at:]


@case("WebP, 268 megapixels")
def webp_large() -> bytes:
    data = bytearray(small("WEBP", exif=b"Exif\0\0"))
    data[24:30] = struct.pack("<I", 16382)[:3] * 2
    return bytes(data)


@case("GIF, 250 MB of junk between blocks")
def gif_junk() -> bytes:
    data = small("GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:at] + b"a" * (250 * MB) + data[at:]


@case("GIF, 2,000,000 frames")
def gif_frames() -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x02\x44\x05\0"
    return b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0, 0, 0) + frame * 2 * MB + b";"


@case("GIF, a frame of 60,000 x 60,000 on a canvas of 8 x 8")
def gif_grows() -> bytes:
    header = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    return header + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x4c\x01\0;"


@case("WebP, 60 MB of EXIF")
def webp_exif() -> bytes:
    return small("WEBP", exif=b"Exif\0\0" + long_tag(0x0112, 3, 30 * MB))


@case("WebP, 48 megapixels and 60 MB of EXIF")
def webp_large_exif() -> bytes:
    return flat("WEBP", HEAVY_SIDE, method=0, exif=b"Exif\0\0" + bytes(60 * MB))


@case("WebP, 500 frames of 16 megapixels")
def webp_frames() -> bytes:
    data = small("WEBP", save_all=True, append_images=[picture("RGB", 64, 4)])
    assert data[12:16] == b"VP8X"
    frame = data.index(b"ANMF")
    size = 8 + int.from_bytes(data[frame + 4 : frame + 8], "little")
    body = data[12:frame] + data[frame : frame + size] * 500
    canvas = struct.pack("<I", 3999)[:3] * 2
    body = body[:12] + canvas + body[18:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@case("AVIF 4:4:4, 256 megapixels that say 64 x 64")
def avif_lies() -> bytes:
    data = flat("AVIF", 16_000, speed=10, quality=10, subsampling="4:4:4")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]


@case("AVIF, 100 frames")
def avif_frames() -> bytes:
    frames = [picture("RGB", 64, 1 + i % 8) for i in range(100)]
    return encode(frames[0], "AVIF", save_all=True, append_images=frames[1:], speed=10)


def rle(packed: int, runs: bytes, side: int = 4000) -> bytes:
    """A BMP of 16 megapixels in runs of 8 bits (packed 1) or 4 (packed 2)."""
    bits, colours = (8, 256) if packed == 1 else (4, 16)
    info = struct.pack("<IIIHHIIIIII", 40, side, side, 1, bits, packed, 0, 0, 0, colours, 0)
    palette = bytes(range(1, 250)) * 5
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 4 * colours)
    return head + info + palette[: 4 * colours] + runs


@case("BMP, RLE, 128,000,000 runs")
def rle_many() -> bytes:
    return rle(1, b"\x01\x05" * (128 * MB))


@case("BMP, RLE, 64 megapixels")
def rle_large() -> bytes:
    return rle(1, b"\xff\5\0\0" * SIDE + b"\0\1", SIDE)


@case("BMP, RLE, a pixel a row")
def rle_rows() -> bytes:
    return rle(1, b"\x01\x05\0\0" * 4000 + b"\0\1")


@case("BMP, RLE of 4 bits")
def rle_nibbles() -> bytes:
    row = b"\xff\x12" * (4000 // 255) + bytes([4000 % 255, 0x12]) + b"\0\0"
    return rle(2, row * 4000 + b"\0\1")


@case("PPM, 250 MB of comment")
def ppm_comment() -> bytes:
    return b"P6\n#" + b"a" * (250 * MB) + b"\n8 8 255\n" + bytes(192)


@case("PPM, plain text of 250 MB")
def ppm_plain() -> bytes:
    return b"P3\n8000 8000 255\n" + b"7 " * (125 * MB)


@case("PPM, plain text, 1 MB of comments")
def ppm_plain_comments() -> bytes:
    return b"P3\n8 8 255\n" + b"#\n" * 500_000


@case("PPM of 10 bits, 20 megapixels")
def ppm_deep() -> bytes:
    return b"P6\n4000 5000 1023\n" + bytes(4000 * 5000 * 6)


def tiff(
    entries: list[tuple[int, int, int, int]], behind: bytes = b"", following: int = 0
) -> bytes:
    """A TIFF of one directory: (tag, type, count, value) each, and what comes behind it."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + body
        + struct.pack("<I", following)
        + behind
    )


def tags(width: int, height: int, packed: int = 1) -> list[tuple[int, int, int, int]]:
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, packed),
        (262, 3, 1, 1),
    ]


@case("TIFF, a tile of 40,000 x 50,000 in 142 bytes")
def tiff_tile() -> bytes:
    tile = [(322, 4, 1, 40_000), (323, 4, 1, 50_000), (324, 4, 1, 130), (325, 4, 1, 12)]
    return tiff(tags(16, 16, 8) + tile, zlib.compress(b"\0"))


@case("TIFF, 60,000,000 strips")
def tiff_strips() -> bytes:
    return tiff([*tags(8, 8), (273, 4, 60 * MB, 200), (278, 4, 1, 1)], bytes(242 * MB))


@case("TIFF, 300,000 strips, overlapping")
def tiff_fewer_strips() -> bytes:
    count = 300_000
    entries = [(273, 4, count, 200), (278, 4, 1, 1), (279, 4, count, 200 + 4 * count)]
    return tiff([*tags(8, 8), *entries], bytes(200) + b"\x07\0\0\0" * 2 * count)


@case("TIFF, one strip of 64 megapixels that is not there")
def tiff_short() -> bytes:
    return tiff(
        [*tags(SIDE, SIDE, 5), (273, 4, 1, 200), (278, 4, 1, SIDE), (279, 4, 1, 50)], bytes(200)
    )


@case("TIFF, 65,000 tags of 60 kB each, overlapping")
def tiff_tags() -> bytes:
    more = [(1000 + i, 7, 60_000, 0) for i in range(60_000)]
    return tiff([*tags(8, 8), (273, 4, 1, 8), (278, 4, 1, 8), *more], bytes(70_000))


@case("TIFF, 12,000,000 pages")
def tiff_pages() -> bytes:
    page = tiff([*tags(8, 8), (273, 4, 1, 8), (278, 4, 1, 8)], b"", 0)
    start = len(page)
    first = tiff([*tags(8, 8), (273, 4, 1, 8), (278, 4, 1, 8)], b"", start)
    pages = np.zeros(12 * MB, np.dtype([("n", "<u2"), ("tag", "V12"), ("next", "<u4")]))
    pages["n"], pages["tag"] = 1, struct.pack("<HHII", 256, 4, 1, 8)
    pages["next"] = start + 18 * np.arange(1, 12 * MB + 1)
    return first + pages.tobytes()


@case("BigTIFF, 12,000,000 tags")
def bigtiff() -> bytes:
    entry = struct.pack("<HHQQ", 256, 4, 1, 8)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 12 * MB) + entry * 12 * MB
