# SPDX-License-Identifier: Apache-2.0
"""The drawn data set: same seed, same bytes; the Hub's schema; no class given away by colour."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from training.data import sample

FOOD101_ORDER = [
    "cheesecake",
    "cheese_plate",
    "cup_cakes",
    "donuts",
    "french_fries",
    "hamburger",
    "ice_cream",
    "pizza",
    "sushi",
    "waffles",
]


def rows(split: str, count: int, seed: int = 0) -> list[dict]:
    return list(sample.sample_rows(sample.SAMPLE_LABELS, seed, split, count, sample.SAMPLE_VERSION))


def opened(row: dict) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


@pytest.fixture(scope="module")
def train_rows() -> list[dict]:
    return rows("train", 12)


def test_same_seed_same_bytes():
    first = rows("train", 1)
    assert first == rows("train", 1)
    assert all(a["image"] != b["image"] for a, b in zip(first, rows("train", 1, 1), strict=True))


def test_an_image_does_not_depend_on_how_many_are_drawn(train_rows):
    assert rows("train", 2)[:2] == train_rows[:2]


def test_splits_share_no_image():
    train, validation = rows("train", 1), rows("validation", 1)
    assert not {row["image"]["bytes"] for row in train} & {r["image"]["bytes"] for r in validation}
    assert not {row["image"]["path"] for row in train} & {r["image"]["path"] for r in validation}


def test_rows_come_class_after_class(train_rows):
    assert [row["label"] for row in train_rows] == [k for k in range(10) for _ in range(12)]
    for row in train_rows:
        folder, _, name = row["image"]["path"].partition("/")
        assert folder == FOOD101_ORDER[row["label"]]
        assert name.removesuffix(".jpg").isdigit()


def test_load_sample_has_the_schema_of_food101(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(sample, "IMAGES_PER_CLASS", {"train": 2, "validation": 1})
    loaded = sample.load_sample(seed=3)
    label = datasets.ClassLabel(names=FOOD101_ORDER)
    assert {name: len(split) for name, split in loaded.items()} == {"train": 20, "validation": 10}
    for split in loaded.values():
        assert split.features == datasets.Features({"image": datasets.Image(), "label": label})
    stored = loaded["train"].cast_column("image", datasets.Image(decode=False))
    assert stored[:]["image"] == [row["image"] for row in rows("train", 2, seed=3)]


def test_images_are_jpeg_of_varying_shape(train_rows):
    images = [opened(row) for row in train_rows]
    assert {(image.format, image.mode) for image in images} == {("JPEG", "RGB")}
    assert {max(image.size) for image in images} == {512}
    assert len({image.size for image in images}) >= 4


def test_some_images_are_stored_turned(train_rows):
    turned = [opened(row).getexif().get(sample.ORIENTATION_TAG, 1) for row in train_rows]
    share = np.mean([tag != 1 for tag in turned])
    assert {1} < set(turned) <= {1, 3, 6, 8}
    assert 0.01 < share < 0.12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_tag_brings_the_upright_picture_back(orientation):
    image = sample.draw_dish("pizza", np.random.default_rng(2))
    stored = Image.open(io.BytesIO(sample.encode_jpeg(image, 95, orientation)))
    upright = ImageOps.exif_transpose(stored)
    assert upright.size == image.size
    error = np.asarray(upright, dtype=float) - np.asarray(image, dtype=float)
    assert np.abs(error).mean() < 6


@pytest.mark.slow
def test_mean_colour_does_not_give_the_class_away(train_rows):
    def means(some_rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        colours = [np.asarray(opened(row).reduce(8)).mean(axis=(0, 1)) for row in some_rows]
        return np.array(colours), np.array([row["label"] for row in some_rows])

    colours, labels = means(train_rows)
    held_out, truth = means(rows("validation", 8))
    centres = np.array([colours[labels == k].mean(axis=0) for k in range(10)])
    nearest = np.linalg.norm(held_out[:, None] - centres, axis=2).argmin(axis=1)
    assert np.mean(nearest == truth) < 0.5
