"""Decoding: what images become."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from inference import food_images as food
from inference.food_images import InvalidImageError, decode_image
from tests.unit.pictures import (
    assert_one_line,
    encode,
    exif,
    needs_simplejpeg,
    photo,
    white,
)

# ---- decoding rules -----------------------------------------------------------------------------

# What is stored, so that turning it upright gives the photo back.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_lossless(orientation, kind):
    upright = np.asarray(photo())
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(stored, kind, exif=exif(orientation), **options)
    assert (decode_image(data) == upright).all()
    assert (decode_image(Image.open(io.BytesIO(data))) == upright).all()
    loaded = Image.open(io.BytesIO(data))
    loaded.load()  # Pillow turns a TIFF while it loads: not twice
    assert (decode_image(loaded) == upright).all()


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_jpeg(orientation, monkeypatch):
    data = encode(photo(), exif=exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (decode_image(data) == expected).all()
    assert (decode_image(Image.open(io.BytesIO(data))) == expected).all()
    monkeypatch.setattr(food, "simplejpeg", None)
    assert (decode_image(data) == expected).all()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_upright(orientation):
    sizes = []
    data = encode(photo(), exif=exif(orientation))
    pixels = decode_image(data, reduce=lambda *size: sizes.append(size) or 1)
    assert pixels.shape == (48, 64, 3) and sizes == [(48, 64)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_photo():
    plain = decode_image(encode(photo()))
    for junk in (b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert (decode_image(encode(photo(), exif=junk)) == plain).all()


JPEGS = {
    "plain": (photo(), {}),
    "4:4:4": (photo(), {"subsampling": 0}),
    "4:2:0": (photo(47, 61), {"subsampling": 2}),
    "progressive": (photo(), {"progressive": True}),
    "gray": (photo().convert("L"), {}),
    "rgb inside": (photo(), {"keep_rgb": True}),
    "cmyk": (photo().convert("CMYK"), {}),
    "two pictures": (photo(), {"kind": "MPO", "save_all": True, "append_images": [photo(seed=1)]}),
}


@needs_simplejpeg
@pytest.mark.parametrize("name", JPEGS)
def test_simplejpeg_and_pillow_give_identical_pixels(name, monkeypatch):
    image, options = JPEGS[name]
    data = encode(image, **options)
    fast = {factor: decode_image(data, reduce=lambda *_, f=factor: f) for factor in (1, 2, 4, 8)}
    monkeypatch.setattr(food, "simplejpeg", None)
    for factor, pixels in fast.items():
        height, width = -(-image.height // factor), -(-image.width // factor)
        assert pixels.shape == (height, width, 3)
        assert (decode_image(data, reduce=lambda *_, f=factor: f) == pixels).all()
    assert (fast[1] == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@needs_simplejpeg
def test_simplejpeg_and_pillow_agree_on_any_size(monkeypatch):
    for height, width in [(1, 1), (2, 3), (7, 7), (15, 40), (16, 16), (17, 31), (33, 65), (5, 200)]:
        data = encode(photo(height, width))
        for factor in (1, 2, 4, 8):
            fast = decode_image(data, reduce=lambda *_, f=factor: f)
            with monkeypatch.context() as patch:
                patch.setattr(food, "simplejpeg", None)
                assert (decode_image(data, reduce=lambda *_, f=factor: f) == fast).all()
            if min(height, width) < 16:  # tiny: left whole
                assert fast.shape == (height, width, 3)


@pytest.mark.parametrize("orientation", STORED)
def test_reduce_is_given_the_upright_size(orientation):
    sizes = []
    data = encode(photo(48, 64), exif=exif(orientation))
    pixels = decode_image(data, reduce=lambda *size: sizes.append(size) or 2)
    upright = (48, 64) if orientation < 5 else (64, 48)
    assert sizes == [upright] and pixels.shape == (upright[0] // 2, upright[1] // 2, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_reduce_has_no_effect_on_other_formats(kind):
    sizes = []
    data = encode(photo(48, 64), kind, exif=exif(6))
    pixels = decode_image(data, reduce=lambda *size: sizes.append(size) or 8)
    assert sizes == [(64, 48)] and (pixels == decode_image(data)).all()


def test_opaque_modes():
    rgb = photo()
    for mode in ("L", "1", "P"):
        image = rgb.convert(mode)
        expected = np.asarray(image.convert("RGB"))
        assert (decode_image(encode(image, "PNG")) == expected).all()
        assert (decode_image(image) == expected).all()
    for mode in ("CMYK", "YCbCr", "HSV"):
        assert (
            decode_image(rgb.convert(mode)) == np.asarray(rgb.convert(mode).convert("RGB"))
        ).all()
    assert (decode_image(encode(rgb, "WEBP", lossless=True)) == np.asarray(rgb)).all()
    assert (decode_image(encode(rgb, "BMP")) == np.asarray(rgb)).all()


def test_transparency_is_laid_on_white():
    rgba, la = photo().convert("RGBA"), photo().convert("LA")
    for alpha in (0, 127, 255):
        for image in (rgba, la):
            image.putalpha(alpha)
            data = encode(image, "PNG")
            # Pillow composites in 8 bits: half a level of rounding, and one for its own.
            for source in (image, data):
                np.testing.assert_allclose(decode_image(source), white(image), atol=1)
        np.testing.assert_allclose(decode_image(np.asarray(rgba)), white(rgba), atol=1)
    rgba.putalpha(0)
    assert (decode_image(rgba) == 255).all()


def test_palette_and_trns():
    palette = photo().quantize(8)
    index = int(np.asarray(palette)[0, 0])
    for kind in ("PNG", "GIF"):
        pixels = decode_image(encode(palette, kind, transparency=index))
        hole = np.asarray(palette) == index
        assert hole.any() and not hole.all()
        assert (pixels[hole] == 255).all()
        assert (pixels[~hole] == np.asarray(palette.convert("RGB"))[~hole]).all()
    rgb = Image.new("RGB", (4, 4), (10, 20, 30))
    rgb.putpixel((1, 2), (40, 50, 60))
    pixels = decode_image(encode(rgb, "PNG", transparency=(40, 50, 60)))
    assert pixels[2, 1].tolist() == [255, 255, 255] and pixels[0, 0].tolist() == [10, 20, 30]
    gray = decode_image(encode(Image.new("L", (4, 4), 7), "PNG", transparency=7))
    assert (gray == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(kind):
    deep = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    image = Image.fromarray(deep)
    assert image.mode == "I;16"
    for source in (encode(image, kind), image):
        pixels = decode_image(source)
        assert (pixels == (deep >> 8)[..., None]).all() and pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bit_pixels_are_refused(dtype):
    # Nobody knows their range: 0..1, 0..255 and 0..65535 all occur.
    image = Image.fromarray(np.full((8, 8), 100, dtype))
    for source in (encode(image, "TIFF"), image):
        with pytest.raises(InvalidImageError, match="32-bit pixels") as error:
            decode_image(source)
        assert_one_line(error, "8 bits")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert (decode_image(data) == (255, 0, 0)).all()


def test_result_can_always_be_resized_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (photo(), encode(photo()), encode(photo(), "PNG"), np.zeros((9, 9, 4), "u1")):
            food.resize(decode_image(source), 8, 8, "bilinear")
