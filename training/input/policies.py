"""RandAugment, TrivialAugment and colour jitter, with Pillow, on the uint8 crop in a worker.

TrivialAugment's own code uses Pillow's operations too; they keep uint8, and need no library more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from training.input.arguments import MAX_MAGNITUDE, Augmentation

Colour = tuple[int, ...]
Operation = Callable[[Image.Image, float, Colour], Image.Image]  # image, magnitude, fill
MAX_SHIFT = 150 / 331  # of a side: AutoAugment's 150 pixels of its 331
BILINEAR = Image.Resampling.BILINEAR


def augment_crop(
    pixels: torch.Tensor, augmentation: Augmentation, fill: Colour, rng: np.random.Generator
) -> torch.Tensor:
    """Apply the policy and the colour jitter of `augmentation` to a crop, uint8 (3, height, width).

    `fill` is the colour, 0 to 255, of what a shift, shear or rotation brings in. Shape and dtype
    stay.
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    if augmentation.auto_augment == "randaugment":
        image = randaugment(
            image, augmentation.randaugment_num_ops, augmentation.randaugment_magnitude, fill, rng
        )
    elif augmentation.auto_augment == "trivialaugment":
        image = trivialaugment(image, fill, rng)
    if augmentation.color_jitter:
        image = color_jitter(image, augmentation.color_jitter, rng)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def randaugment(
    image: Image.Image, num_ops: int, magnitude: int, fill: Colour, rng: np.random.Generator
) -> Image.Image:
    """Apply `num_ops` operations, each uniform among 14, at one magnitude (arXiv:1909.13719)."""
    table = randaugment_table(*image.size)
    for _ in range(num_ops):
        image = _apply(table[rng.integers(len(table))], image, magnitude, fill, rng)
    return image


def trivialaugment(image: Image.Image, fill: Colour, rng: np.random.Generator) -> Image.Image:
    """Apply one operation at one of 31 magnitudes, both uniform (arXiv:2103.10158, wide space)."""
    table = trivialaugment_table()
    choice = table[rng.integers(len(table))]
    return _apply(choice, image, int(rng.integers(MAX_MAGNITUDE + 1)), fill, rng)


def color_jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Multiply brightness, contrast and saturation, in random order, each by a uniform factor.

    The factor lies between max(0, 1 - strength) and 1 + strength: timm's single number.
    """
    for index in rng.permutation(3):
        kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[index]
        image = kind(image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return image


# ---- the operations ----------------------------------------------------------------------------


class Choice(NamedTuple):
    """One row of a policy's table: an operation and how strong it is at each magnitude."""

    name: str  # torchvision's name
    operation: Operation
    values: tuple[float, ...]  # at magnitudes 0 to 30
    signed: bool  # whether the value's sign is drawn


def _apply(
    choice: Choice, image: Image.Image, magnitude: int, fill: Colour, rng: np.random.Generator
) -> Image.Image:
    value = choice.values[magnitude]
    if choice.signed and rng.random() < 0.5:
        value = -value
    return choice.operation(image, value, fill)


@cache
def randaugment_table(width: int, height: int) -> tuple[Choice, ...]:
    """List the 14 operations with RandAugment's ranges, as torchvision numbers them.

    A shift grows with the image, whose `width` and `height` are in pixels.
    """
    return _table(shear=0.3, shift=(width * MAX_SHIFT, height * MAX_SHIFT), rotate=30, enhance=0.9,
                  bits=4)  # fmt: skip


@cache
def trivialaugment_table() -> tuple[Choice, ...]:
    """List the same operations with TrivialAugment's wide ranges; shifts are up to 32 pixels."""
    return _table(shear=0.99, shift=(32, 32), rotate=135, enhance=0.99, bits=6)


def _table(
    shear: float, shift: tuple[float, float], rotate: float, enhance: float, bits: int
) -> tuple[Choice, ...]:
    steps = np.linspace(0, 1, MAX_MAGNITUDE + 1)
    rows = (
        ("Identity", _identity, 0 * steps, False),
        ("ShearX", _shear_x, shear * steps, True),
        ("ShearY", _shear_y, shear * steps, True),
        ("TranslateX", _translate_x, np.floor(shift[0] * steps), True),
        ("TranslateY", _translate_y, np.floor(shift[1] * steps), True),
        ("Rotate", _rotate, rotate * steps, True),
        ("Brightness", _enhance(ImageEnhance.Brightness), enhance * steps, True),
        ("Color", _enhance(ImageEnhance.Color), enhance * steps, True),
        ("Contrast", _enhance(ImageEnhance.Contrast), enhance * steps, True),
        ("Sharpness", _enhance(ImageEnhance.Sharpness), enhance * steps, True),
        ("Posterize", _posterize, 8 - np.round(bits * steps), False),
        # 256 and not torchvision's 255, which turns white into black at magnitude 0.
        ("Solarize", _solarize, 256 - 256 * steps, False),
        ("AutoContrast", _auto_contrast, 0 * steps, False),
        ("Equalize", _equalize, 0 * steps, False),
    )
    return tuple(
        Choice(name, operation, tuple(values.tolist()), signed)
        for name, operation, values, signed in rows
    )


def _identity(image: Image.Image, _: float, fill: Colour) -> Image.Image:
    return image


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Colour) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=fill)


def _shear_x(image: Image.Image, value: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, value, 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, value: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, value, 1, 0), fill)


def _translate_x(image: Image.Image, pixels: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, pixels, 0, 1, 0), fill)


def _translate_y(image: Image.Image, pixels: float, fill: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, pixels), fill)


def _rotate(image: Image.Image, degrees: float, fill: Colour) -> Image.Image:
    return image.rotate(degrees, BILINEAR, fillcolor=fill)


def _enhance(kind: type) -> Operation:
    return lambda image, value, _: kind(image).enhance(1 + value)


def _posterize(image: Image.Image, bits: float, fill: Colour) -> Image.Image:
    return ImageOps.posterize(image, int(bits))


def _solarize(image: Image.Image, threshold: float, fill: Colour) -> Image.Image:
    return ImageOps.solarize(image, int(threshold))


def _auto_contrast(image: Image.Image, _: float, fill: Colour) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, _: float, fill: Colour) -> Image.Image:
    return ImageOps.equalize(image)
