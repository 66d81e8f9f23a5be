"""What one image can take: bombs are refused by their headers, and peaks are measured in a child."""

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference import food_images as food
from inference.food_images import InvalidImageError, Preprocessing, decode_image
from tests.unit.pictures import SOURCE, assert_one_line, encode, exif, photo, png_header

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import decode_bombs as bombs  # noqa: E402

sys.path.remove(str(BENCHMARKS))


def refused(data, *parts):
    with pytest.raises(InvalidImageError) as error:
        decode_image(data)
    assert_one_line(error, *parts)


def test_the_sides_may_differ_by_a_factor():
    refused(png_header(1, 201), "1 x 201 is over 200 to 1", "cut it")
    refused(np.zeros((201, 1), np.uint8), "1 x 201")
    refused(Image.new("L", (201, 1)), "201 x 1")
    assert decode_image(np.zeros((200, 1), np.uint8)).shape == (200, 1, 3)


def test_crop_refuses_what_cannot_be_resized():
    common = {"image_mean": (0,) * 3, "image_std": (1,) * 3, "rescale_factor": 1.0}
    for edge in (None, 32):
        steps = Preprocessing(32, 32, edge, "bicubic", **common)
        for shape in ((1, 20_000, 3), (0, 5, 3), (5, 0, 3)):
            with pytest.raises(InvalidImageError, match=f"{shape[1]} x {shape[0]}"):
                steps.crop(np.zeros(shape, np.uint8))
        assert steps.crop(np.zeros((2, 400, 3), np.uint8)).shape == (3, 32, 32)
    large = Preprocessing(600, 600, 600, "bicubic", **common)
    with pytest.raises(InvalidImageError, match="120000 x 600 = 72,000,000 pixels"):
        large.crop(np.zeros((2, 400, 3), np.uint8))


@pytest.mark.parametrize(
    "kind, limit", [("PNG", 2**28), ("JPEG", 2**26), ("WEBP", 2**26), ("AVIF", 2**26)]
)
def test_files_have_a_limit(kind, limit, monkeypatch, tmp_path):
    monkeypatch.setattr(food, "MAX_FILE_BYTES", 2**28 >> 10)
    data = encode(photo(), kind)
    path = tmp_path / "image"
    path.write_bytes(data + bytes((limit >> 10) - len(data)))
    decode_image(path)
    path.write_bytes(data + bytes((limit >> 10) - len(data) + 1))
    for source in (path, path.read_bytes(), bytearray(path.read_bytes())):
        refused(source, f"over the limit of {limit >> 10:,} bytes")


def test_formats_with_hungry_decoders_have_a_lower_limit(monkeypatch):
    monkeypatch.setattr(food, "MAX_IMAGE_PIXELS", 4000)
    data = {kind: encode(photo(48, 64), kind) for kind in ("WEBP", "AVIF", "PNG", "JPEG")}
    for kind in ("WEBP", "AVIF"):
        with pytest.raises(InvalidImageError, match="over the limit of 3,000;"):
            decode_image(data[kind], 4000)
        assert decode_image(data[kind], 4096).shape == (48, 64, 3)  # raised: by as much
    for kind in ("PNG", "JPEG"):
        assert decode_image(data[kind], 3072).shape == (48, 64, 3)
    monkeypatch.setattr(food, "MAX_IMAGE_PIXELS", 64_000_000)
    assert decode_image(data["WEBP"], 3072).shape == (48, 64, 3)  # lowered: what was asked for


def test_metadata_has_a_limit(monkeypatch):
    monkeypatch.setattr(food._Metered, "budget", 2**16)
    monkeypatch.setattr(food._Metered, "reads", 10_000)
    monkeypatch.setattr(food, "MAX_HEADER_BYTES", 2**16)
    zeros = bombs.zeros(8 * 25)
    much, many = bombs.chunk(b"prVt", bytes(2**21)), bombs.chunk(b"prVt", b"") * 10**5
    refused(
        bombs.png(8, 8, zeros, much),
        "65,536 bytes or a million parts besides pixels",
        "save it as PNG",
    )
    refused(bombs.png(8, 8, zeros, many), "parts besides pixels")
    refused(bombs.png(8, 8, zeros, b"", many), "parts besides pixels")
    refused(bombs.in_jpeg(bombs.jpeg_segment(0xFE, b"") * 300_000), "parts besides pixels")
    refused(bombs.in_jpeg(b"\xff" * 2**21), "parts besides pixels")
    refused(b"P6\n#" + b"a" * 2**21 + b"\n8 8 255\n" + bytes(192), "parts besides pixels")
    refused(bombs.png(8, 8, zeros, b"", bombs.chunk(b"eXIf", bytes(70_000))), "bytes of EXIF")
    # What stands behind the pixels and is large only is not read piece by piece.
    assert decode_image(bombs.png(8, 8, zeros, b"", much)).shape == (8, 8, 3)


def test_many_pixels_are_not_metadata():
    data = encode(Image.effect_noise((2000, 2000), 90), "PNG")
    assert len(data) > 2**21 and decode_image(data).shape == (2000, 2000, 3)


def test_scans_of_a_jpeg_have_a_limit():
    data = bombs.flat("JPEG", 2000, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    more = 50 - data.count(b"\xff\xda")
    assert decode_image(data[:-2] + last * more + b"\xff\xd9").shape == (2000, 2000, 3)
    many = data[:-2] + last * 2000 + b"\xff\xd9"
    refused(many, "a JPEG of over 50 scans", "baseline")
    # A second one and a film behind the photograph, as phones write them, are not its scans.
    behind = data + many + b"\xff\xda" * 10_000
    assert (decode_image(behind) == decode_image(data)).all()


@pytest.mark.parametrize("packed", [1, 8])
def test_tiles_larger_than_a_tiff(packed):
    tile = [(322, 4, 1, 40_000), (323, 4, 1, 50_000), (324, 4, 1, 130), (325, 4, 1, 12)]
    refused(bombs.tiff(bombs.tags(16, 16, packed) + tile, zlib.compress(b"\0")), "tiles of 2,000")


def test_usual_tiles_are_read():
    tile = [(322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 1, 300), (325, 4, 1, 65536)]
    data = bombs.tiff(bombs.tags(16, 16) + tile)
    assert (decode_image(data.ljust(300, b"\0") + b"\x07" * 65536) == 7).all()


def test_a_bmp_in_runs_has_its_own_limit():
    assert decode_image(bombs.rle(1, b"\x0a\x05\0\0" * 10 + b"\0\1", 10)).shape == (10, 10, 3)
    refused(bombs.rle(1, b"", 4001), "over 16,000,000 pixels in runs", "save it as PNG")


def test_only_the_first_page_is_read():
    pages = io.BytesIO()
    photo().save(pages, "TIFF", save_all=True, append_images=[photo(30, 20)] * 3)
    assert (decode_image(pages.getvalue()) == np.asarray(photo())).all()


# ---- measured ------------------------------------------------------------------------------------

CHILD = """
import json, sys, time
sys.path[:0] = sys.argv[1:3]
import decode_peaks
from pathlib import Path
print(json.dumps([decode_peaks.measure(decode_peaks.CODE, Path(p)) for p in sys.argv[3:]]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured by Linux's /proc")
def test_peaks_in_a_child(tmp_path):
    """At most 16 bytes a pixel here: the 1 GB of 64 megapixels; photographs at most 8."""
    side = 1500
    image = Image.fromarray(np.asarray(photo(side, side)))
    files = {
        "JPEG": (encode(image), 4.5),
        "JPEG on its side": (encode(image, exif=exif(6)), 8.5),
        "PNG RGBA on its side": (encode(image.convert("RGBA"), "PNG", exif=exif(6)), 10),
        "TIFF CMYK": (encode(image.convert("CMYK"), "TIFF"), 14),
        "TIFF RGBA on its side": (encode(image.convert("RGBA"), "TIFF", exif=exif(8)), 16),
        "WEBP": (encode(image, "WEBP", method=0), 20),  # of which there may be three quarters
        "bomb": (bombs.tiff(bombs.tags(16, 16, 8) + [(322, 4, 1, 40_000), (323, 4, 1, 50_000),
                 (324, 4, 1, 130), (325, 4, 1, 12)], b"0"), 1),
    }  # fmt: skip
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", CHILD, str(SOURCE.parents[1]), str(BENCHMARKS)]
    done = subprocess.run(
        [*command, *(str(tmp_path / name) for name in files)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for (name, (_, most)), found in zip(files.items(), json.loads(done.stdout), strict=True):
        # 10 MB: codecs that are loaded with the first image of a format
        assert found["GB"] * 1e9 < most * side**2 + 10**7, (name, found)
    assert done.stderr == ""
