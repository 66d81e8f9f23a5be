"""Random erasing, mixup and cutmix: drawn in the worker, done for a whole batch on the device.

Neighbours (2k, 2k + 1) of the order are mixed with each other, both with one lambda or box, as
timm's `pair` mode does. The order is a permutation, so the partner is uniformly random; and however
the global batch is cut into batches of even size, the pairs are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from training.input.arguments import Augmentation

Box = tuple[int, int, int, int]  # top, left, height, width in pixels

NO_BOX: Box = (0, 0, 0, 0)
ERASED_SHARE, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)

# ---- drawn in the worker -----------------------------------------------------------------------


def erasing_box(
    height: int, width: int, probability: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the box to erase, by torchvision's law of arXiv:1708.04896.

    Ten tries at a uniform share of the area, 0.02 to 0.33, and a log-uniform ratio, 0.3 to 3.3.

    Returns:
        int64 (4,): top, left, height, width in pixels; all zero for no box.
    """
    box = NO_BOX
    if rng.random() < probability:
        box = _erased(height, width, rng)
    return np.array(box)


def _erased(height: int, width: int, rng: np.random.Generator) -> Box:
    for _ in range(10):
        area = height * width * rng.uniform(*ERASED_SHARE)
        ratio = math.exp(rng.uniform(*np.log(ERASED_RATIO)))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return NO_BOX


def mixing(
    height: int, width: int, augmentation: Augmentation, rng: np.random.Generator
) -> dict[str, np.ndarray | np.float32]:
    """Draw how a pair of images is mixed: by mixup, by cutmix or not at all.

    Returns:
        "mix_lambda" float32: the share that each image keeps of itself, 1 without mixup; "mix_box"
        int64 (4,): what is exchanged, as top, left, height, width in pixels, all 0 without cutmix.
    """
    lam, box = 1.0, NO_BOX
    if rng.random() < augmentation.mix_probability:
        both = augmentation.mixup > 0 and augmentation.cutmix > 0
        share = augmentation.mix_switch_probability if both else float(augmentation.cutmix > 0)
        if rng.random() < share:
            box = cutmix_box(height, width, rng.beta(augmentation.cutmix, augmentation.cutmix), rng)
        else:
            lam = rng.beta(augmentation.mixup, augmentation.mixup)
    return {"mix_lambda": np.float32(lam), "mix_box": np.array(box)}


def cutmix_box(height: int, width: int, lam: float, rng: np.random.Generator) -> Box:
    """Draw a box with 1 - `lam` of the area around a uniform centre (arXiv:1905.04899).

    Where it reaches beyond a border it is cut off, and so smaller than `lam` says.
    """
    h, w = (int(side * math.sqrt(1 - lam)) // 2 for side in (height, width))  # half the sides
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(y - h, 0), max(x - w, 0)
    return top, left, min(y + h, height) - top, min(x + w, width) - left


@dataclass(frozen=True)
class DrawErasing:
    """Draws "erase_box" (4,) for an image of `height` x `width` pixels; all zero for none."""

    height: int
    width: int
    probability: float
    stream: int = 2
    per_pair: bool = False

    def __call__(self, rng: np.random.Generator, epoch: int) -> dict[str, np.ndarray]:
        """Draw for one image; the epoch does not matter."""
        return {"erase_box": erasing_box(self.height, self.width, self.probability, rng)}


@dataclass(frozen=True)
class DrawMixing:
    """Draws "mix_lambda" and "mix_box" (4,) for two neighbours; nothing in an epoch without mixing."""

    height: int
    width: int
    augmentation: Augmentation
    stream: int = 3
    per_pair: bool = True

    def __call__(self, rng: np.random.Generator, epoch: int) -> dict[str, np.ndarray | np.float32]:
        """Draw for one pair."""
        if not self.augmentation.mixes(epoch):
            return {}
        return mixing(self.height, self.width, self.augmentation, rng)


# ---- done on the device ------------------------------------------------------------------------


def erase(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Fill `boxes` (batch, 4) of normalised images with 0, which is the mean colour."""
    return torch.where(_inside(boxes, *pixels.shape[-2:]), 0.0, pixels)


def mix(pixels: torch.Tensor, lambdas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Mix each image with the other of its pair, inside its box or by its lambda everywhere.

    Args:
        pixels: normalised (batch, 3, height, width), of even batch.
        lambdas: (batch,), the share that each image keeps of itself outside its box.
        boxes: (batch, 4), where the other image is seen alone.
    """
    other, share = partners(pixels), lambdas.view(-1, 1, 1, 1)
    mixed = share * pixels + (1 - share) * other
    return torch.where(_inside(boxes, *pixels.shape[-2:]), other, mixed)


def own_share(lambdas: torch.Tensor, boxes: torch.Tensor, num_pixels: int) -> torch.Tensor:
    """Compute the share (batch,) of its own label that each image keeps after `mix`.

    It follows the box as it was cut off at the borders; `num_pixels` is height times width.
    """
    return lambdas * (1 - (boxes[:, 2] * boxes[:, 3]).to(lambdas.dtype) / num_pixels)


def partners(values: torch.Tensor) -> torch.Tensor:
    """Exchange the two values of each pair along the first axis, whose size is even."""
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Mark the pixels inside `boxes` (batch, 4): bool (batch, 1, height, width)."""
    top, left, h, w = boxes.T[..., None]
    y, x = (torch.arange(side, device=boxes.device)[None] for side in (height, width))
    rows, columns = (y >= top) & (y < top + h), (x >= left) & (x < left + w)
    return rows[:, None, :, None] & columns[:, None, None, :]
