# SPDX-License-Identifier: Apache-2.0
"""Numbers and pictures as text: what comes out is what went in."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from inference.apps.explain.encoding import as_bytes, jpeg_url, png_url, shares, signed, tiles
from tests.unit.explained import step_of, unpacked


def opened(url: str) -> Image.Image:
    kind, data = url.split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()};base64"
    return image


def test_numbers_come_back_within_half_a_step():
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    packed = as_bytes(values, float(values.min()), float(values.max()))
    assert packed["shape"] == [3, 4, 5]
    assert np.abs(unpacked(packed) - values).max() <= step_of(packed) / 2 + 1e-6


def test_numbers_beyond_the_ends_are_the_ends():
    assert unpacked(as_bytes(np.array([-9.0, 9.0]), 0.0, 1.0)).tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_numbers_can_be_kept(value):
    assert unpacked(as_bytes(np.full(4, value), value, value)).tolist() == [value] * 4


def test_shares_begin_at_0_and_signed_numbers_are_as_far_on_both_sides():
    packed = shares(np.array([0.2, 0.4]))
    assert (packed["low"], packed["high"]) == (0, 0.4)
    packed = signed(np.array([-0.5, 0.0, 2.0]))
    assert (packed["low"], packed["high"]) == (-2, 2)
    assert unpacked(packed) == pytest.approx([-0.5, 0, 2], abs=step_of(packed))


def test_a_png_has_every_pixel_and_a_jpeg_is_reduced():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(opened(png_url(pixels))), pixels)
    assert opened(jpeg_url(pixels)).size == (40, 20)
    assert opened(jpeg_url(pixels, 10)).size == (10, 5)
    assert opened(jpeg_url(pixels, 100)).size == (40, 20)  # it is not enlarged


def test_tiles_lie_in_rows_each_scaled_by_its_own_largest_number():
    filters = np.zeros((3, 3, 2, 2), np.float32)
    filters[0, :, 0, 0] = 5
    filters[1, 0] = -0.001
    sheet = tiles(filters, 2)
    assert sheet.shape == (5, 5, 3) and sheet.dtype == np.uint8
    assert sheet[0, 0].tolist() == [255] * 3 and sheet[1, 1].tolist() == [128] * 3
    assert sheet[0, 3].tolist() == [0, 128, 128]
    assert (sheet[2] == 128).all() and (sheet[:, 2] == 128).all()  # the lines between
    assert (sheet[3:, 3:] == 128).all()  # a filter of zeros, and a place without one
