# SPDX-License-Identifier: Apache-2.0
"""The data set that needs no network: drawn pictures of ten Food-101 dishes, made from a seed.

Splits, features, paths and class-by-class row order are those of `ethz/food101`, so that code which
works here works there; in particular, whoever takes a slice must shuffle first.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw
from PIL.Image import Resampling, Transpose

from training.data import dishes
from training.data.drawing import BOX, CIRCLE, ROUNDED, Sketch, colour, shade


class Dish(NamedTuple):
    """A kind of dish: the function that draws it, and from where the camera sees it."""

    draw: Callable[[Sketch, Sketch, Generator], None]  # (sketch, ground, rng)
    tilt: tuple[float, float]  # range of the table's tilt: 1 seen from above, 0.3 from the side
    ground_y: float = 0.0  # how far below the middle the dish stands


# The order is food101's own, where `cheesecake` comes before `cheese_plate`.
DISHES = {
    "cheesecake": Dish(dishes.cheesecake, (0.45, 0.6), 0.18),
    "cheese_plate": Dish(dishes.cheese_plate, (0.7, 0.85)),
    "cup_cakes": Dish(dishes.cup_cakes, (0.3, 0.35), 0.72),
    "donuts": Dish(dishes.donuts, (0.75, 1.0)),
    "french_fries": Dish(dishes.french_fries, (0.3, 0.35), 0.72),
    "hamburger": Dish(dishes.hamburger, (0.3, 0.35), 0.66),
    "ice_cream": Dish(dishes.ice_cream, (0.9, 1.0)),
    "pizza": Dish(dishes.pizza, (0.75, 1.0)),
    "sushi": Dish(dishes.sushi, (0.65, 0.8)),
    "waffles": Dish(dishes.waffles, (0.65, 0.95)),
}

SAMPLE_LABELS = list(DISHES)

IMAGES_PER_CLASS = {"train": 160, "validation": 30}

# Raise it whenever a picture changes: `datasets` caches by arguments, not by the drawing code.
SAMPLE_VERSION = 1

SIZES = ((512, 512),) * 6 + ((512, 384), (384, 512)) * 2 + ((512, 340), (340, 512))

ROTATED_SHARE = 0.05

ORIENTATION_TAG = 0x0112

# What a camera held that way would have stored; the tag tells the viewer to turn it back.
STORED_AS = {
    3: Transpose.ROTATE_180,
    6: Transpose.ROTATE_90,
    8: Transpose.ROTATE_270,
}


def load_sample(seed: int = 0) -> DatasetDict:
    """Draw the data set, with the splits and the features of `ethz/food101`.

    It is drawn once for a `seed` and a `SAMPLE_VERSION`; `datasets` keeps it in its cache.
    """
    splits = {}
    for split, count in IMAGES_PER_CLASS.items():
        arguments = {
            "labels": SAMPLE_LABELS,  # a list is shared out among the processes, in order
            "seed": seed,
            "split": split,
            "count": count,
            "version": SAMPLE_VERSION,
        }
        splits[split] = Dataset.from_generator(
            sample_rows,
            features=sample_features(),
            gen_kwargs=arguments,
            split=split,
            num_proc=min(os.cpu_count() or 1, len(SAMPLE_LABELS)),
        )
    return DatasetDict(splits)


def sample_features() -> Features:
    """Describe the two columns as `ethz/food101` does: `image` and `label`."""
    return Features({"image": ImageFeature(), "label": ClassLabel(names=SAMPLE_LABELS)})


def sample_rows(
    labels: list[str], seed: int, split: str, count: int, version: int
) -> Iterator[dict]:
    """Yield rows of `count` images of each of `labels`, class after class.

    `version` is not used: `datasets` makes it a part of the key of its cache.
    """
    split_number = list(IMAGES_PER_CLASS).index(split)
    for label in labels:
        label_id = SAMPLE_LABELS.index(label)
        for index in range(count):
            # A stream of its own for every image: adding images leaves the others as they were.
            rng = np.random.default_rng([seed, split_number, label_id, index])
            path = f"{label}/{split_number}{index:04d}.jpg"
            yield {"image": {"bytes": draw_jpeg(label, rng), "path": path}, "label": label_id}


def draw_jpeg(label: str, rng: Generator) -> bytes:
    """Draw a picture of `label` and encode it: 5 % are stored turned, as phones do, with a tag."""
    image = draw_dish(label, rng)
    orientation = int(rng.choice(list(STORED_AS))) if rng.random() < ROTATED_SHARE else 1
    return encode_jpeg(image, quality=int(rng.integers(75, 96)), orientation=orientation)


def encode_jpeg(image: Image.Image, quality: int = 90, orientation: int = 1) -> bytes:
    """Encode an upright image as JPEG bytes.

    An EXIF `orientation` of 3, 6 or 8 stores the pixels turned, with the tag that turns them back.
    """
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION_TAG] = orientation
        image = image.transpose(STORED_AS[orientation])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def draw_dish(label: str, rng: Generator) -> Image.Image:
    """Draw one upright picture of `label`; its longest side has 512 pixels."""
    dish = DISHES[label]
    width, height = SIZES[rng.integers(len(SIZES))]
    base = colour(rng, strength=(0.0, 0.4), value=(0.35, 0.95))
    # Drawn at twice the size and reduced: smooth edges.
    image = Image.new("RGB", (2 * width, 2 * height), base)
    middle = np.array((width, height)) * (1 + rng.uniform(-0.05, 0.05, 2))
    pens = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")
    table = Sketch(pens, middle, np.eye(2) * min(width, height), np.zeros(2))
    draw_table(table.part(angle=rng.uniform(0, np.pi)), base, rng)
    sketch = table.part(scale=rng.uniform(0.82, 0.96), angle=rng.uniform(-0.1, 0.1))
    ground = sketch.part(y=dish.ground_y, tilt=rng.uniform(*dish.tilt))
    draw_support(ground, rng)
    dish.draw(sketch, ground, rng)
    return photograph(image.reduce(2), rng)


def draw_table(table: Sketch, base: tuple[int, ...], rng: Generator) -> None:
    """Draw a plain, planked, striped or chequered table top over the colour `base`."""
    pattern, dark = rng.integers(4), shade(base, rng.uniform(0.82, 0.94))
    for at in np.arange(-2.4, 2.4, rng.uniform(0.35, 0.6)):
        if pattern > 0:
            table.line([(-3, at), (3, at)], dark, 0.02 if pattern == 1 else 0.15)
        if pattern == 3:
            table.line([(at, -3), (at, 3)], shade(dark, 0.95), 0.15)


def draw_support(ground: Sketch, rng: Generator) -> None:
    """Draw a plate, a board, a napkin or nothing: any dish may lie on any of them."""
    fill = colour(rng, strength=(0.0, 0.35), value=(0.4, 1.0))
    kind = rng.integers(4)
    if kind == 0:
        ground.shadow(CIRCLE, rx=1.16)
        for radius, light in ((1.16, 0.88), (1.13, 1.0), (0.86, 0.86), (0.84, 0.95)):
            ground.shape(CIRCLE, shade(fill, light), rx=radius)
    elif kind == 1:
        outline = ROUNDED * (1.2, rng.uniform(0.92, 1.05))
        ground.shadow(outline)
        ground.prism(outline, -0.08, 0.0, shade(fill, 0.7), fill)
        for y in rng.uniform(-0.85, 0.85, 6):
            ground.line([(-1.1, y), (0, y + 0.03), (1.1, y)], shade(fill, 0.92), 0.012)
    elif kind == 2:
        cloth = ground.part(angle=rng.uniform(0, np.pi / 2))
        cloth.shadow(BOX)
        cloth.shape(BOX, fill)
        for at in (-0.8, 0.8):
            cloth.line([(at, -1), (at, 1)], shade(fill, 0.8), 0.05)
            cloth.line([(-1, at), (1, at)], shade(fill, 0.8), 0.05)


def photograph(image: Image.Image, rng: Generator) -> Image.Image:
    """Light the image from one side; add grain, exposure, white balance and now and then a blur.

    After that no colour can be trusted, and a classifier has to look at forms.
    """
    across, down = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))
    slope = rng.uniform(-0.16, 0.16, 2)
    light = 0.86 + slope[0] * across + slope[1] * down - 0.04 * (across**2 + down**2)
    lamp = Image.fromarray((255 * light).clip(0, 250).astype(np.uint8))
    # At half size, as grain is coarser than a pixel anyway: a quarter of the time.
    half = image.width // 2, image.height // 2
    lamp = lamp.resize(half, Resampling.BILINEAR)
    strength = rng.uniform(4, 16) / 255
    grain = Image.frombytes("L", half, rng.bytes(half[0] * half[1]))
    lamp = ImageChops.subtract(lamp, grain.point([int(i * strength) for i in range(256)]))
    lamp = lamp.resize(image.size, Resampling.NEAREST)
    image = ImageChops.multiply(image, Image.merge("RGB", [lamp] * 3))
    exposed = (np.arange(256) / 255 * rng.uniform(1.1, 1.4)).clip(0, 1) ** rng.uniform(0.65, 1.1)
    balance = rng.uniform(0.85, 1.0, (3, 1))
    image = image.point((255 * balance * exposed).astype(int).ravel().tolist())
    if rng.random() < 0.2:
        image = image.reduce(2).resize(image.size, Resampling.BILINEAR)
    return image
