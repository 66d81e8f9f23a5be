# SPDX-License-Identifier: Apache-2.0
"""Every dish is drawn inside its picture, from its random numbers only, and in any colour."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data.drawing import Sketch
from training.data.sample import DISHES, Dish

TABLE = (90, 91, 92)


def drawn(dish: Dish, seed: int, side: int = 96) -> np.ndarray:
    """The pixels of a dish alone on a table of one colour."""
    rng, image = np.random.default_rng(seed), Image.new("RGB", (side, side), TABLE)
    pens = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")
    middle, axes = np.full(2, side / 2), np.eye(2) * side / 3
    sketch = Sketch(pens, middle, axes, np.zeros(2))
    ground = sketch.part(y=dish.ground_y, tilt=rng.uniform(*dish.tilt))
    dish.draw(sketch, ground, rng)
    return np.asarray(image)


@pytest.mark.parametrize("label", DISHES)
def test_a_dish_fills_the_unit_circle_and_little_more(label):
    for seed in range(5):
        covered = (drawn(DISHES[label], seed) != TABLE).any(axis=-1)
        assert 0.08 < covered.mean() < 0.6
        rim = np.ones_like(covered)
        rim[4:-4, 4:-4] = False
        assert not covered[rim].any()


@pytest.mark.parametrize("label", DISHES)
def test_a_dish_depends_on_its_random_numbers_only(label):
    first = drawn(DISHES[label], 0)
    assert np.array_equal(first, drawn(DISHES[label], 0))
    assert not np.array_equal(first, drawn(DISHES[label], 1))


def test_forms_differ_between_dishes():
    """Mean outlines of ten drawings each: no two dishes have the same."""
    outlines = [
        np.mean([(drawn(dish, seed, 32) != TABLE).any(axis=-1) for seed in range(10)], axis=0)
        for dish in DISHES.values()
    ]
    for i, one in enumerate(outlines):
        for other in outlines[:i]:
            assert np.abs(one - other).mean() > 0.02
