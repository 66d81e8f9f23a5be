# SPDX-License-Identifier: Apache-2.0
"""Outlines, colours, and where a surface puts its points."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data.drawing import (
    BOX,
    CIRCLE,
    Sketch,
    baked,
    colour,
    pale,
    polar,
    ring,
    scatter,
    sector,
    shade,
    superellipse,
)

RED, GRAY = (200, 0, 0), (100, 100, 100)


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (40, 40), GRAY)


@pytest.fixture
def sketch(image) -> Sketch:
    """The unit circle is 10 pixels around the middle of the image."""
    pens = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")
    return Sketch(pens, np.array((20.0, 20.0)), np.eye(2) * 10, np.zeros(2))


def share(image: Image.Image, fill: tuple[int, ...]) -> float:
    """Of the pixels, how many have this colour."""
    return (np.asarray(image) == fill).all(axis=-1).mean()


# ---- outlines and colours ---------------------------------------------------------------------


def area(outline: np.ndarray) -> float:
    x, y = outline.T
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def test_areas_of_outlines():
    assert area(CIRCLE) == pytest.approx(math.pi, rel=0.01)
    assert area(BOX) == 4
    assert math.pi < area(superellipse(5.0)) < 4
    assert area(sector(0, math.pi / 2)) == pytest.approx(math.pi / 4, rel=0.01)
    assert area(ring(CIRCLE, 0.5)) == pytest.approx(0.75 * math.pi, rel=0.02)


def test_scattered_points_keep_to_their_ring():
    points = scatter(np.random.default_rng(0), 50, 0.4, 0.6)
    radii = np.linalg.norm(points, axis=1)
    assert points.shape == (50, 2) and radii.min() > 0.4 and radii.max() < 0.6
    turns = np.diff(np.unwrap(np.arctan2(points[:, 1], points[:, 0])))
    assert turns.max() < 2 * math.pi / 50 + 0.5


def test_polar_takes_numbers_and_arrays():
    np.testing.assert_allclose(polar(2.0, math.pi / 2), (0, 2), atol=1e-12)
    assert polar((1.0, 2.0), np.zeros(2)).tolist() == [[1, 0], [2, 0]]


def test_colours_keep_to_their_ranges():
    rng = np.random.default_rng(0)
    for draw, low, high in ((pale, 160, 255), (lambda r: colour(r, value=(0.5, 0.5)), 0, 127)):
        drawn = np.array([draw(rng) for _ in range(100)])
        assert drawn.min() >= low and drawn.max() <= high and len(np.unique(drawn, axis=0)) > 90
    assert all(red > green > blue for red, green, blue in (baked(rng) for _ in range(100)))


def test_a_shade_stays_a_colour():
    assert shade((100, 200, 30), 1.5) == (150, 255, 45)
    assert shade((100, 200, 30, 80), 0.5) == (50, 100, 15)


# ---- a surface --------------------------------------------------------------------------------


def test_parts_nest_turn_and_scale(sketch):
    assert sketch.at([(1, 0), (0, -1)]).tolist() == [[30, 20], [20, 10]]
    part = sketch.part(1.0, 0.5, scale=0.5, angle=math.pi / 2)
    np.testing.assert_allclose(part.at([(0, 0), (1, 0), (0, 1)]), [(30, 25), (30, 30), (25, 25)])
    np.testing.assert_allclose(part.part(1.0, 0.0).at([(0, 0)]), [(30, 30)])


def test_a_tilted_surface_shows_heights(sketch):
    ground = sketch.part(tilt=0.6)
    np.testing.assert_allclose(ground.at([(1, 1)]), [(30, 26)])  # depth shrinks, width does not
    np.testing.assert_allclose(ground.at([(0, 0)], z=1.0), [(20, 12)])  # sqrt(1 - 0.36) upwards
    np.testing.assert_allclose(sketch.at([(0, 0)], z=1.0), [(20, 20)])


def test_a_shape_fills_its_outline(sketch, image):
    sketch.shape(BOX, RED, x=0.5, rx=0.5, ry=1.0)
    pixels = (np.asarray(image) == RED).all(axis=-1)
    rows, columns = np.nonzero(pixels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 30, 20, 30)
    assert pixels.sum() == 21 * 11


def test_tiles_are_shapes(sketch, image):
    centres = np.array([(-0.5, 0.0), (0.5, 0.2)])
    sketch.tiles(CIRCLE, RED, centres, 0.3, 0.2)
    tiled = np.asarray(image).copy()
    image.paste(GRAY, (0, 0, 40, 40))
    for x, y in centres:
        sketch.shape(CIRCLE, RED, x, y, 0.3, 0.2)
    assert np.array_equal(np.asarray(image), tiled)


def test_a_shadow_lets_the_table_through(sketch, image):
    sketch.shadow(CIRCLE)
    darkened = np.asarray(image)[20, 20]
    assert (darkened == darkened[0]).all() and 60 < darkened[0] < 80  # 100 under 80 / 255 of black


def test_relief_is_lit_from_the_top_left(sketch, image):
    sketch.relief(CIRCLE, RED)
    pixels = np.asarray(image)[..., 0].astype(int)
    assert pixels[20, 20] == 200 and pixels[13, 13] == 200
    assert pixels[26, 27] == 140  # the edge: 0.7 of it


def test_a_line_is_never_thinner_than_a_pixel(sketch, image):
    sketch.line([(-1, 0), (1, 0)], RED, 0.001)
    assert share(image, RED) == 21 / 1600
    sketch.line([(-1, 0), (1, 0)], RED, 0.5)
    assert share(image, RED) > 80 / 1600


def test_a_prism_hides_its_far_walls(sketch, image):
    ground = sketch.part(tilt=0.6)
    ground.prism(BOX, 0.0, 0.5, RED, (0, 0, 200))
    pixels = np.asarray(image)
    assert tuple(pixels[16, 20]) == (0, 0, 200)  # the top, lifted by 4 pixels
    near = pixels[24, 20]
    assert near[0] > 0 and near[2] == 0  # the wall towards the viewer
    assert tuple(pixels[8, 20]) == GRAY  # nothing above the far edge
