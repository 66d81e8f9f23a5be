# SPDX-License-Identifier: Apache-2.0
"""The law of the random crop, and what an augmented image depends on."""

import io
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw, ImageOps

from inference.food_images import Preprocessing
from tests.unit.toys import jpeg
from training.input.arguments import Augmentation
from training.input.batch import collate
from training.input.eval_images import EvalImages
from training.input.train_images import TrainImages, random_resized_crop

SIZE = Preprocessing(
    height=16,
    width=16,
    shortest_edge=None,
    resample="bilinear",
    image_mean=(0.5, 0.4, 0.3),
    image_std=(0.5, 0.25, 0.2),
    rescale_factor=1 / 255,
)


def encoded(images: list[bytes]) -> Dataset:
    features = Features(
        {"image": ImageFeature(decode=False), "label": ClassLabel(names=["a", "b"])}
    )
    rows = {
        "image": [{"bytes": image, "path": None} for image in images],
        "label": [i % 2 for i in range(len(images))],
    }
    return Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return encoded([jpeg(i, (48, 40)) for i in range(10)])


# ---- the crop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.3, 0.6)])
def test_crops_keep_to_their_area_and_ratio(scale):
    rng, height, width = np.random.default_rng(0), 500, 500
    boxes = np.array([random_resized_crop(height, width, scale, rng) for _ in range(4000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    share, ratio = h * w / (height * width), w / h
    # Sides are rounded to pixels, hence the slack.
    assert share.min() > scale[0] * 0.98 and share.max() < scale[1] * 1.02
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.02  # upright as often as lying
    # Every corner of the picture is reached.
    assert top.min() == left.min() == 0
    assert (top + h).max() == height and (left + w).max() == width


def test_small_crops_are_uniform_in_area():
    rng = np.random.default_rng(0)
    boxes = np.array([random_resized_crop(1000, 1000, (0.1, 0.5), rng) for _ in range(4000)])
    share = boxes[:, 2] * boxes[:, 3] / 1e6
    counts, _ = np.histogram(share, bins=8, range=(0.1, 0.5))
    assert (np.abs(counts - 500) < 5 * math.sqrt(500)).all()  # five standard deviations


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))],
)
def test_extreme_shapes_fall_back_to_the_centre(size, expected):
    """No try at the full area fits into a strip: the largest central crop of ratio 3/4 to 4/3."""
    assert random_resized_crop(*size, (1.0, 1.0), np.random.default_rng(0)) == expected


# ---- what an augmented image depends on -------------------------------------------------------


def train_images(dataset: Dataset, seed: int = 0, **augmentation: object) -> TrainImages:
    return TrainImages(dataset, SIZE, Augmentation(**augmentation), seed)


def same(a: dict, b: dict) -> bool:
    return (
        torch.equal(a["pixel_values"], b["pixel_values"])
        and a["flip"] == b["flip"]
        and a["labels"] == b["labels"]
    )


def test_an_image_depends_on_seed_epoch_and_position_only(dataset):
    images = train_images(dataset)
    alone = {key: images[key] for key in (0, 3, 9, 13, 29)}
    for batch in ([9, 3, 0], [3, 3], [29, 0, 13, 9]):
        for key, example in zip(batch, images.__getitems__(batch), strict=True):
            assert same(example, alone[key])
    assert same(train_images(dataset)[13], alone[13])
    assert not same(alone[3], alone[13])  # the next epoch
    assert not same(train_images(dataset, seed=1)[3], alone[3])


def test_neither_global_seeds_nor_workers_matter(dataset):
    images, keys = train_images(dataset), [4, 14, 7, 9]
    torch.manual_seed(1)
    np.random.seed(1)
    here = collate(images.__getitems__(keys))
    loader = torch.utils.data.DataLoader(
        images, batch_size=2, sampler=keys, num_workers=2, collate_fn=collate
    )
    there = list(loader)
    for name in here:
        assert torch.equal(here[name], torch.cat([batch[name] for batch in there]))


def test_two_images_of_an_epoch_get_different_crops():
    images = train_images(encoded([jpeg(0, (48, 40))] * 8))  # the same picture eight times
    crops = [images[key]["pixel_values"] for key in range(8)]
    assert all(not torch.equal(crops[0], crop) for crop in crops[1:])


def test_flips_come_with_their_probability(dataset):
    for probability, low, high in ((0.0, 0, 0), (1.0, 400, 400), (0.25, 60, 140)):
        images = train_images(dataset, horizontal_flip=probability)
        flips = sum(images[key]["flip"] for key in range(400))
        assert low <= flips <= high


def test_a_turned_photograph_is_cropped_upright():
    """Tag 6: stored lying, seen upright. The crop of the tagged file is that of the upright one."""
    image = Image.new("RGB", (64, 40), "navy")
    ImageDraw.Draw(image).rectangle((0, 0, 20, 40), fill="white")
    exif = Image.Exif()
    exif[0x0112] = 6
    tagged, upright = io.BytesIO(), io.BytesIO()
    image.save(tagged, "PNG", exif=exif)
    tagged.seek(0)
    ImageOps.exif_transpose(Image.open(tagged)).save(upright, "PNG")
    a, b = (train_images(encoded([file.getvalue()])) for file in (tagged, upright))
    assert all(same(a[key], b[key]) for key in range(20))


# ---- reduced decoding -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs() -> Dataset:
    """Detail of every size, 16 to 32 times the target, so that reductions by 2 to 8 all occur."""
    rng, images = np.random.default_rng(0), []
    for _ in range(4):
        image = Image.fromarray(rng.integers(60, 200, (12, 16, 3), dtype=np.uint8))
        image = image.resize((512, 384), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for x, y in rng.integers(0, 380, (40, 2)):
            draw.ellipse((x, y, x + 25, y + 15), fill=tuple(rng.integers(0, 255, 3).tolist()))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    return encoded(images)


def difference(dataset: Dataset, how: str, scale: tuple[float, float]) -> float:
    """Mean |difference| from full decoding, of 255."""
    keys = list(range(24))
    full, reduced = (
        collate(train_images(dataset, reduced_decoding=r, crop_scale=scale).__getitems__(keys))
        for r in ("off", how)
    )
    assert torch.equal(full["flip"], reduced["flip"])  # the draws are the same
    return (full["pixel_values"].float() - reduced["pixel_values"].float()).abs().mean().item()


def test_reduced_decoding_changes_pixels_a_little(photographs):
    # Measured here on hard edges: strict 3.2, loose 3.3 of 255. Most of it is the box, which is
    # rounded to pixels of the smaller picture.
    strict = difference(photographs, "strict", (0.01, 0.5))
    loose = difference(photographs, "loose", (0.01, 0.5))
    assert difference(photographs, "off", (0.01, 0.5)) == 0
    assert 0 < strict < 4
    assert strict <= loose < 5


def test_strict_never_enlarges(photographs, monkeypatch):
    """After a strict reduction the crop still has at least the target's pixels."""
    from training.input import train_images as transforms

    shapes = []
    monkeypatch.setattr(
        transforms,
        "resize",
        lambda crop, *size: (
            shapes.append(crop.shape) or torch.zeros((3, 16, 16), dtype=torch.uint8)
        ),
    )
    images = train_images(photographs, reduced_decoding="strict", crop_scale=(0.01, 1.0))
    images.__getitems__(list(range(200)))
    assert min(min(shape[:2]) for shape in shapes) >= 15  # one pixel of rounding
    assert max(max(shape[:2]) for shape in shapes) < 8 * 16 + 8  # and it was reduced at all


def test_small_images_are_decoded_in_full(dataset):
    keys = list(range(20))
    full = train_images(dataset, crop_scale=(0.08, 0.3)).__getitems__(keys)
    strict = train_images(dataset, crop_scale=(0.08, 0.3), reduced_decoding="strict")
    for a, b in zip(full, strict.__getitems__(keys), strict=True):
        assert same(a, b)


# ---- batches ----------------------------------------------------------------------------------


def test_batches_stay_uint8(dataset):
    batch = collate(train_images(dataset).__getitems__([0, 1, 2]))
    assert {k: (v.dtype, tuple(v.shape)) for k, v in batch.items()} == {
        "pixel_values": (torch.uint8, (3, 3, 16, 16)),
        "labels": (torch.int64, (3,)),
        "flip": (torch.bool, (3,)),
    }
    assert "flip" not in collate(EvalImages(dataset, SIZE).__getitems__([0, 1]))
