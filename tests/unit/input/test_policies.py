# SPDX-License-Identifier: Apache-2.0
"""RandAugment, TrivialAugment and colour jitter against their published tables."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from training.input import policies
from training.input.arguments import Augmentation
from training.input.policies import (
    augment_crop,
    color_jitter,
    randaugment,
    randaugment_table,
    trivialaugment,
    trivialaugment_table,
)

NAMES = (
    "Identity ShearX ShearY TranslateX TranslateY Rotate Brightness Color Contrast Sharpness "
    "Posterize Solarize AutoContrast Equalize"
).split()
SIGNED = set(NAMES[1:10])
FILL = (10, 20, 30)
# name: value at magnitudes 0, 9, 15 and 30, from torchvision 0.25's `_augmentation_space`.
RANDAUGMENT = {
    "ShearX": (0, 0.09, 0.15, 0.3), "ShearY": (0, 0.09, 0.15, 0.3),
    "TranslateX": (0, 30, 50, 101), "TranslateY": (0, 15, 25, 50), "Rotate": (0, 9, 15, 30),
    "Brightness": (0, 0.27, 0.45, 0.9), "Color": (0, 0.27, 0.45, 0.9),
    "Contrast": (0, 0.27, 0.45, 0.9), "Sharpness": (0, 0.27, 0.45, 0.9),
    "Posterize": (8, 7, 6, 4), "Solarize": (256, 179.2, 128, 0),
}  # fmt: skip
TRIVIALAUGMENT = {
    "ShearX": (0, 0.297, 0.495, 0.99), "ShearY": (0, 0.297, 0.495, 0.99),
    "TranslateX": (0, 9, 16, 32), "TranslateY": (0, 9, 16, 32), "Rotate": (0, 40.5, 67.5, 135),
    "Brightness": (0, 0.297, 0.495, 0.99), "Color": (0, 0.297, 0.495, 0.99),
    "Contrast": (0, 0.297, 0.495, 0.99), "Sharpness": (0, 0.297, 0.495, 0.99),
    "Posterize": (8, 6, 5, 2), "Solarize": (256, 179.2, 128, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((40, 32), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("table", "expected"),
    [(randaugment_table(224, 112), RANDAUGMENT), (trivialaugment_table(), TRIVIALAUGMENT)],
)
def test_the_tables(table, expected):
    assert [choice.name for choice in table] == NAMES
    assert {choice.name for choice in table if choice.signed} == SIGNED
    for choice in table:
        assert len(choice.values) == 31
        wanted = expected.get(choice.name, (0, 0, 0, 0))
        assert [choice.values[m] for m in (0, 9, 15, 30)] == pytest.approx(wanted), choice.name


def test_magnitude_zero_changes_nothing(image):
    for table in (randaugment_table(40, 32), trivialaugment_table()):
        for choice in table[:-2]:  # AutoContrast and Equalize have no magnitude
            done = choice.operation(image, choice.values[0], FILL)
            assert np.array_equal(np.asarray(done), np.asarray(image)), choice.name


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_what_each_operation_does(image):
    do = {choice.name: choice.operation for choice in trivialaugment_table()}
    before = pixels(image)
    moved = pixels(do["TranslateX"](image, 5, FILL))
    assert np.array_equal(moved[:, :-5], before[:, 5:]) and (moved[:, -5:] == FILL).all()
    moved = pixels(do["TranslateY"](image, -5, FILL))
    assert np.array_equal(moved[5:], before[:-5]) and (moved[:5] == FILL).all()
    # A shear moves each row by so much a row, a rotation turns against the clock.
    row = pixels(do["ShearX"](image, 0.5, FILL))[20]
    assert (row[-8:] == FILL).all() and abs(row[:28] - before[20, 10:38]).max() < 60
    column = pixels(do["ShearY"](image, 0.5, FILL))[:, 20]
    assert (column[-8:] == FILL).all() and abs(column[:20] - before[10:30, 20]).max() < 60
    square = image.resize((32, 32))
    assert np.array_equal(pixels(do["Rotate"](square, 90, FILL)), np.rot90(pixels(square)))
    for name in ("Brightness", "Color", "Contrast", "Sharpness"):
        expected = getattr(ImageEnhance, name)(image).enhance(0.3)
        assert np.array_equal(pixels(do[name](image, -0.7, FILL)), pixels(expected))
    assert np.array_equal(pixels(do["Posterize"](image, 3, FILL)), before & 0b11100000)
    solarized = np.where(before < 100, before, 255 - before)
    assert np.array_equal(pixels(do["Solarize"](image, 100.9, FILL)), solarized)
    assert np.array_equal(pixels(do["Equalize"](image, 0, FILL)), pixels(ImageOps.equalize(image)))
    stretched = pixels(ImageOps.autocontrast(image))
    assert np.array_equal(pixels(do["AutoContrast"](image, 0, FILL)), stretched)


# ---- what is drawn ----------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch) -> list[tuple[str, int]]:
    """(name, magnitude) of everything that is applied, which then does nothing."""
    seen: list[tuple[str, int]] = []

    def note(choice, image, magnitude, fill, rng):
        seen.append((choice.name, magnitude))
        return image

    monkeypatch.setattr(policies, "_apply", note)
    return seen


def test_randaugment_draws_operations_at_one_magnitude(image, drawn):
    rng = np.random.default_rng(0)
    for _ in range(1400):
        randaugment(image, 3, 9, FILL, rng)
    assert {magnitude for _, magnitude in drawn} == {9}
    counts = Counter(name for name, _ in drawn)
    assert set(counts) == set(NAMES) and len(drawn) == 4200
    assert all(abs(count - 300) < 5 * 300**0.5 for count in counts.values())
    triples = [{name for name, _ in drawn[i : i + 3]} for i in range(0, 4200, 3)]
    assert sum(len(names) < 3 for names in triples) > 200  # drawn with replacement: 20.9 %


def test_trivialaugment_draws_one_operation_and_any_magnitude(image, drawn):
    rng = np.random.default_rng(0)
    for _ in range(4340):
        trivialaugment(image, FILL, rng)
    assert len(drawn) == 4340
    for index, kinds in ((0, 14), (1, 31)):
        counts = Counter(each[index] for each in drawn)
        mean = 4340 / kinds
        assert len(counts) == kinds
        assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())
    assert {magnitude for _, magnitude in drawn} == set(range(31))


def test_signs_are_even(image):
    values = []
    choice = policies.Choice("x", lambda i, v, f: values.append(v) or i, (0.0, 2.0), True)
    rng = np.random.default_rng(0)
    for _ in range(400):
        policies._apply(choice, image, 1, FILL, rng)
    assert set(values) == {2.0, -2.0} and 150 < values.count(2.0) < 250
    values.clear()
    policies._apply(choice._replace(signed=False), image, 1, FILL, rng)
    assert values == [2.0]


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_jitter_draws_three_factors_in_any_order(image, monkeypatch, strength, low, high):
    seen: list[tuple[str, float]] = []
    for name in ("Brightness", "Contrast", "Color"):

        class Kind:
            def __init__(self, image, name=name) -> None:
                self.image, self.name = image, name

            def enhance(self, factor: float) -> Image.Image:
                seen.append((self.name, factor))
                return self.image

        monkeypatch.setattr(policies.ImageEnhance, name, Kind)
    rng = np.random.default_rng(0)
    for _ in range(600):
        color_jitter(image, strength, rng)
    factors = np.array([factor for _, factor in seen])
    assert len(factors) == 1800 and low <= factors.min() < low + 0.05
    assert high - 0.05 < factors.max() <= high
    assert factors.mean() == pytest.approx((low + high) / 2, abs=0.06)
    orders = Counter(tuple(name for name, _ in seen[i : i + 3]) for i in range(0, 1800, 3))
    assert len(orders) == 6 and min(orders.values()) > 50


def test_a_crop_stays_a_crop(image):
    crop = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    for keys in ({"auto_augment": "trivialaugment"}, {"color_jitter": 0.4},
                 {"auto_augment": "randaugment", "randaugment_magnitude": 30}):  # fmt: skip
        for seed in range(30):
            done = augment_crop(crop, Augmentation(**keys), FILL, np.random.default_rng(seed))
            assert (done.dtype, done.shape) == (torch.uint8, crop.shape)
    same = augment_crop(crop, Augmentation(), FILL, np.random.default_rng(0))
    assert torch.equal(same, crop)
