"""Rare kinds of pixels: what they must become, where Pillow alone gives something else."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from inference.food_images import InvalidImageError, decode_image
from tests.unit.pictures import assert_one_line, encode, photo, png, tiff

RAMP = np.arange(16, dtype=np.uint8).reshape(4, 4)


def refused(data, *parts):
    with pytest.raises(InvalidImageError) as error:
        decode_image(data)
    assert_one_line(error, *parts)


# ---- one transparent colour of a PNG (tRNS) ------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_transparent_gray_of_every_depth(bits):
    top = 2**bits - 1
    values = np.arange(16).reshape(4, 4) * max(1, top // 15) % (top + 1)
    clear = int(values[1, 1])
    data = png(values, bits, 0, trns=struct.pack(">H", clear))
    expected = (values * 255 // top) if bits < 16 else values >> 8
    expected = np.where(values == clear, 255, expected)
    for source in (data, Image.open(io.BytesIO(data))):
        pixels = decode_image(source)
        assert (pixels == expected[..., None]).all() and pixels.shape == (4, 4, 3)


def test_transparent_gray_of_16_bits_means_all_16():
    values = np.array([[0x1234, 0x1235, 0x12FF]])
    assert decode_image(png(values, 16, 0, trns=b"\x12\x34"))[0, :, 0].tolist() == [255, 18, 18]


def test_a_transparent_colour():
    values = np.array([[[1, 2, 3], [1, 2, 4], [9, 9, 9]]])
    pixels = decode_image(png(values, 8, 2, trns=struct.pack(">3H", 1, 2, 3)))
    assert pixels.tolist() == [[[255] * 3, [1, 2, 4], [9] * 3]]


def test_a_transparent_colour_of_16_bits_is_refused():
    # Pillow keeps 8 of the bits: which pixels are meant can no longer be said.
    values = np.array([[[0x0102, 2, 3], [0x0103, 2, 3]]])
    data = png(values, 16, 2, trns=struct.pack(">3H", 0x0102, 2, 3))
    for source in (data, Image.open(io.BytesIO(data))):
        refused(source, "a transparent colour of 16 bits", "8 bits a channel")
    assert decode_image(png(values, 16, 2)).tolist() == [[[1, 0, 0], [1, 0, 0]]]


@pytest.mark.parametrize("trns", [b"", b"\x01", b"\x01\x2c", b"\0\x05\0\0\0\0"])
def test_an_invalid_transparent_gray(trns):
    """Too short: damage. A value that no pixel has, or more than one: nothing, or its first."""
    data = png(RAMP * 17, 8, 0, trns=trns)
    if len(trns) < 2:
        refused(data, "Truncated tRNS")
    else:
        assert (decode_image(data) == (RAMP * 17)[..., None]).all()


def test_transparency_of_a_palette_that_is_longer_than_it():
    data = png(RAMP % 2, 8, 3, palette=bytes([10, 20, 30, 40, 50, 60]), trns=b"\xff" * 300)
    try:
        pixels = decode_image(data)
    except InvalidImageError as error:
        assert "\n" not in str(error)
    else:
        assert (pixels == np.array([[10, 20, 30], [40, 50, 60]])[RAMP % 2]).all()


# ---- TIFF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is", [1, 0])
def test_16_bit_tiff_with_white_at_zero(order, white_is):
    deep = np.array([[0, 0x1234, 0xFFFF]], np.uint16)
    if order == ">" and white_is == 0:
        refused(tiff(deep, order, 16, white_is), "unknown pixel mode")  # Pillow knows it in II only
        return
    expected = deep[0] >> 8 if white_is else (0xFFFF - deep[0]) >> 8
    assert decode_image(tiff(deep, order, 16, white_is))[0, :, 0].tolist() == expected.tolist()


def test_16_bit_tiff_with_white_at_zero_compressed():
    deep = np.array([[0, 0x1234, 0xFFFF]], np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    data = encode(Image.fromarray(deep), "TIFF", compression="tiff_lzw", tiffinfo=tags)
    with Image.open(io.BytesIO(data)) as image:
        assert image.tag_v2[262] in (0, 1)
        expected = (deep if image.tag_v2[262] else 0xFFFF - deep) >> 8
    assert (decode_image(data) == expected[..., None]).all()


def test_12_bit_tiff():
    values = np.array([[0, 0x123, 0xFFF, 0x800]])
    packed = bytes.fromhex("000123fff800")
    assert decode_image(tiff(values, "<", 12, 1, packed))[0, :, 0].tolist() == [0, 0x12, 0xFF, 0x80]


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_pixels_are_refused(bits):
    # What zero is, a black or a middle gray, only their maker knows.
    refused(tiff(np.array([[1, 2]], f"i{bits // 8}"), "<", bits, 1, sample=2), "signed", "PNG")


def test_premultiplied_gray():
    """Mode La: gray that was multiplied by its opacity already."""
    image = Image.frombytes("La", (3, 1), bytes([100, 100, 50, 100, 0, 0]))
    # 100 at 100 is white under 155 of white; 50 at 100 is half of it; nothing at all is white.
    np.testing.assert_allclose(decode_image(image)[0, :, 0], [255, 205, 255], atol=1)
    colour = Image.frombytes("RGBa", (1, 1), bytes([100, 50, 0, 100]))
    np.testing.assert_allclose(decode_image(colour)[0, 0], [255, 205, 155], atol=1)


# ---- PGM and PPM ---------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 15, 100, 255, 256, 1023, 4095, 65535])
def test_pgm_and_ppm_of_every_depth(top):
    values = np.linspace(0, top, 12).astype(np.uint16).reshape(2, 6)
    body = values.astype(">u2").tobytes() if top > 255 else values.astype("u1").tobytes()
    pixels = decode_image(b"P5\n6 2\n%d\n" % top + body)
    np.testing.assert_allclose(pixels[..., 0], values * 255.0 / top, atol=1)
    pixels = decode_image(b"P6\n2 2\n%d\n" % top + body)
    np.testing.assert_allclose(pixels.reshape(2, 6), values * 255.0 / top, atol=1)


def test_pfm_is_refused():
    refused(b"Pf\n1 1\n1.0\n" + struct.pack(">f", 0.5), "32-bit pixels")


# ---- GIF -----------------------------------------------------------------------------------------


def gif(colour_table, box, canvas=(6, 4)):
    """A GIF whose one frame, of palette entry 1, covers only `box` of the canvas."""
    left, top, width, height = box
    frame = Image.new("P", (width, height), 1)
    frame.putpalette(colour_table)
    data = encode(frame, "GIF")
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data = bytearray(data)
    data[6:10] = struct.pack("<HH", *canvas)
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(data)


def test_around_a_small_frame_is_white():
    """As browsers show it; Pillow fills with the first colour of the palette, here red."""
    data = gif([255, 0, 0, 0, 0, 255] + [7, 7, 7] * 254, (1, 1, 3, 2))
    expected = np.full((4, 6, 3), 255)
    expected[1:3, 1:4] = decode_image(data)[1, 1]
    for source in (data, Image.open(io.BytesIO(data))):
        assert (decode_image(source) == expected).all()
    assert decode_image(data)[1, 1].tolist() != [255, 255, 255]


def test_later_frames_are_as_pillow_makes_them():
    frames = [photo(20, 30, seed).quantize(16) for seed in (0, 1)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert (decode_image(image) == np.asarray(image.convert("RGB"))).all()


# ---- bands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK", "P", "L", "I;16"])
def test_large_images_are_as_small_ones(mode, orientation):
    """Above 2**18 pixels rows are converted band by band."""
    width, height = 511, 1030  # the last band is shorter
    if mode == "I;16":
        whole = Image.fromarray(np.arange(width * height, dtype=np.uint16).reshape(height, width))
    else:
        whole = photo(height, width).convert(mode)
    if mode in ("RGBA", "LA"):
        whole.putalpha(photo(height, width, 3).convert("L"))
    whole.getexif()[0x0112] = orientation
    parts = []
    for top in range(0, height, 100):
        part = whole.crop((0, top, width, min(top + 100, height)))
        parts.append(decode_image(part))
    stored = np.concatenate(parts)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored, 1),
    }  # fmt: skip
    assert (decode_image(whole) == upright[orientation]).all()
