"""Formats that are known by content: HEIC, JPEG XL and raw files; and nothing said on stderr."""

import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from inference import food_images as food
from inference.food_images import InvalidImageError, decode_image
from tests.unit.pictures import SOURCE, assert_one_line, encode, photo


def refused(data, *parts):
    with pytest.raises(InvalidImageError) as error:
        decode_image(data)
    assert_one_line(error, *parts)


# ---- HEIC ----------------------------------------------------------------------------------------


def ftyp(major, *others, behind=bytes(64)):
    brands = major + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + behind


HEIC = {
    "iPhone": ftyp(b"heic", b"mif1", b"MiHB", b"heic"),
    "10 bits": ftyp(b"heix", b"mif1", b"heic"),
    "a burst": ftyp(b"msf1", b"hevc", b"heic"),
    "general": ftyp(b"mif1", b"miaf", b"heic"),
    "by its codec": ftyp(
        b"mif1", b"miaf", behind=b"\0\0\0\x28meta" + bytes(200) + b"hvc1" + bytes(9)
    ),
}


@pytest.mark.parametrize("name", HEIC)
def test_heic_without_its_library(name, monkeypatch, tmp_path):
    monkeypatch.setattr(food, "pi_heif", None)
    path = tmp_path / "IMG_0001.JPG"  # as e-mail programs rename them
    path.write_bytes(HEIC[name])
    for source in (HEIC[name], path):
        refused(source, "HEIC, as iPhones save", "pip install pi-heif", "export a JPEG")


def test_avif_is_not_heic(monkeypatch):
    monkeypatch.setattr(food, "pi_heif", None)
    data = encode(photo(), "AVIF", speed=10)
    assert data[8:12] == b"avif" and decode_image(data).shape == (48, 64, 3)
    assert decode_image(data[:8] + b"mif1" + data[12:]).shape == (48, 64, 3)


def fake_heif(image, size=None):
    """What pi_heif.open_heif gives: the size at once, the pixels when they are asked for."""
    seen = []

    def open_heif(data):
        seen.append(data)
        return SimpleNamespace(size=size or image.size, to_pillow=lambda: image)

    return SimpleNamespace(open_heif=open_heif, seen=seen)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "I;16"])
def test_heic_with_its_library(mode, monkeypatch):
    image = photo().convert(mode if mode != "I;16" else "L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) << 8)
    library = fake_heif(image)
    monkeypatch.setattr(food, "pi_heif", library)
    sizes = []
    pixels = decode_image(HEIC["iPhone"], reduce=lambda *size: sizes.append(size) or 2)
    assert (pixels == decode_image(image)).all() and sizes == [(48, 64)]
    assert library.seen == [HEIC["iPhone"]]


def test_heic_has_the_same_limits(monkeypatch):
    monkeypatch.setattr(food, "pi_heif", fake_heif(None, (8000, 6001)))
    refused(HEIC["iPhone"], "8000 x 6001 = 48,008,000 pixels are over the limit of 48,000,000")
    monkeypatch.setattr(food, "pi_heif", fake_heif(None, (1, 300)))
    refused(HEIC["iPhone"], "1 x 300")


def test_damaged_heic(monkeypatch):
    def open_heif(data):
        raise ValueError("Invalid input: Unspecified")

    monkeypatch.setattr(food, "pi_heif", SimpleNamespace(open_heif=open_heif))
    refused(HEIC["iPhone"], "not a readable image (Invalid input: Unspecified)")


@pytest.mark.skipif(food.pi_heif is None, reason="pi_heif is not installed")
def test_the_real_library_refuses_what_is_no_heic():
    refused(HEIC["iPhone"], "not a readable image")


# ---- others --------------------------------------------------------------------------------------


def raw_tiff(*tags, order="<"):
    """A small TIFF with tags of its own in front; Pillow reads it as an image of 8 x 8."""
    usual = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
             (273, 4, 1, 400), (278, 4, 1, 8), (279, 4, 1, 64)]  # fmt: skip
    entries = [
        struct.pack(order + ("HHIH2x" if kind == 3 else "HHII"), tag, kind, count, value)
        for tag, kind, count, value in sorted([*usual, *tags])
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return (head + b"".join(entries) + bytes(4)).ljust(400, b"\0") + b"\x07" * 64


def mosaic(kind, order="<"):
    """A TIFF that says what its pixels are: 32803 colour filters, 34892 their colours, unfinished."""
    known = struct.pack(order + "HHIH", 262, 3, 1, 1)
    return raw_tiff((271, 2, 4, 0), order=order).replace(
        known, struct.pack(order + "HHIH", 262, 3, 1, kind)
    )


RAW = {
    "DNG": raw_tiff((50706, 1, 4, 0x0401)),
    "NEF": raw_tiff((254, 4, 1, 1), (271, 2, 4, 0), (330, 4, 1, 300)),
    "ARW, which Pillow does not open": raw_tiff((254, 4, 1, 1), (271, 2, 4, 0), (330, 4, 1, 300))
    .replace(struct.pack("<HHIH", 259, 3, 1, 1), struct.pack("<HHIH", 259, 3, 1, 6)),
    "big-endian NEF": raw_tiff((254, 4, 1, 1), (271, 2, 4, 0), (330, 4, 1, 300), order=">"),
    "CR2": b"II*\0\x10\0\0\0CR\x02\0" + bytes(64),
    "CR3": ftyp(b"crx ", b"isom"),
    "ORF": b"IIRO\x08\0\0\0" + bytes(64),
    "RW2": b"IIU\0\x18\0\0\0" + bytes(64),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(64),
    "PEF": mosaic(32803, order=">"),
    "a sensor's pixels made linear": mosaic(34892),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_raw_files_are_named(name):
    refused(RAW[name], "a camera's raw file", "save it as JPEG")


def test_photographs_in_tiff_are_read():
    """What a camera or Photoshop saves has its maker's name, and may have smaller copies below."""
    assert (decode_image(raw_tiff((271, 2, 4, 0), (330, 4, 1, 300))) == 7).all()
    assert (decode_image(raw_tiff((254, 4, 1, 0), (271, 2, 4, 0))) == 7).all()


@pytest.mark.parametrize("start", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jpeg_xl_is_named(start):
    refused(start + bytes(64), "JPEG XL", "save it as JPEG")


def test_plain_text_ppm_is_named():
    refused(b"P3\n1 1\n255\n1 2 3\n", "PPM in plain text", "save it as PNG")


def growing_gif(width=12_000, height=12_000, left=0, canvas=8):
    """A GIF whose first frame is larger than its canvas, or beside it; behind a comment of ','."""
    head = b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0x80, 0, 0) + bytes(range(6))
    comment = b"!\xfe\x09" + b"," * 9 + b"\x09" + b"," * 9 + b"\0"
    frame = b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x02\x02\x4c\x01\0;"
    return head + comment + frame


def test_a_gif_grows_with_its_first_frame_and_has_the_same_limits():
    refused(growing_gif(), "12000 x 12000 = 144,000,000 pixels are over the limit of 64,000,000")
    refused(growing_gif(60_000, 60_000), "60000 x 60000", "make it smaller")
    refused(growing_gif(1, 60_000, left=1999), "2000 x 60000 = 120,000,000 pixels")
    refused(growing_gif(8, 9, canvas=9000), "9000 x 9000 = 81,000,000 pixels")
    image = encode(photo(30, 40).quantize(64), "GIF")
    for width, height in ((8, 8), (40, 30), (50, 8), (50, 60)):
        data = image[:6] + struct.pack("<HH", width, height) + image[10:]
        area = max(width, 40) * max(height, 30)
        assert decode_image(data, area).shape[:2] == (max(height, 30), max(width, 40))
        with pytest.raises(InvalidImageError, match=f"over the limit of {area - 1:,};"):
            decode_image(data, area - 1)
    refused(growing_gif()[:-14], "not a readable image")


# ---- nothing on stderr ---------------------------------------------------------------------------

NOISY = {
    "bomb": "from tests.unit.pictures import png_header; data = png_header(10_000, 9_500)",
    "EXIF": "data = encode(photo(), exif=b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x09\\0' + bytes(20))",
    "libtiff": "data = bytearray(encode(photo(), 'TIFF', compression='tiff_lzw'));"
    "data[100:3000] = bytes(2900); data = bytes(data)",
    "GIF": "from tests.unit.inference.test_named_formats import growing_gif; data = growing_gif()",
    "log": "from tests.unit.inference.test_named_formats import "
    "raw_tiff; data = raw_tiff((277, 3, 1, 60000))",
}
CHILD = """
from tests.unit.pictures import encode, photo
from inference import food_images as food
{made}
try:
    food.decode_image(data)
except food.InvalidImageError as error:
    print(error)
"""


def test_nothing_is_said_on_stderr():
    """In a new process: pytest has filters of its own for warnings."""
    code = "".join(CHILD.format(made=made) for made in NOISY.values())
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SOURCE.parents[1])
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(done.stdout.splitlines()) == 4  # damaged EXIF does not cost the photograph


def test_libtiff_is_quiet_here_too(capfd):
    data = bytearray(encode(photo(), "TIFF", compression="tiff_lzw"))
    data[100:3000] = bytes(2900)
    threads = [threading.Thread(target=lambda: refused(bytes(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == ""
