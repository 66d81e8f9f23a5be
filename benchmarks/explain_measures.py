# SPDX-License-Identifier: Apache-2.0
"""What a map of an answer is worth: dropping patches, two dishes in one picture, random weights, cost."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from explain_methods import Method, Subject, entering, plain_block
from scipy.stats import rankdata
from torch import nn

from inference.food_explain import grid_of

DROPPED, KEPT = (0.2, 0.5), (0.1, 0.25)  # shares of the patches, best first
BATCH = 20
DRAWS = 2000  # of a bootstrap
BLOCKS = 3  # of the last blocks that are made random with the head
WEIGHTS = 3  # random networks of each kind
PASSES = 4  # over the photographs, when two at a time are put into one picture
ROUNDS, REPEATS = 5, 9  # of the timing


def maps(
    method: Method, subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Compute a method's scores (num_images, rows, columns), a batch at a time."""
    found = [
        method(subject, each, its)
        for each, its in zip(pixel_values.split(BATCH), labels.split(BATCH), strict=True)
    ]
    return torch.cat(found)


def shown(scores: torch.Tensor) -> torch.Tensor:
    """Turn scores (..., rows, columns) into maps as they are drawn: what speaks for the label, in shares."""
    positive = scores.clamp(min=0)
    total = positive.sum((-2, -1), keepdim=True)
    return positive / total.where(total > 0, torch.ones_like(total))


# ---- dropping patches ----------------------------------------------------------------------------


def probability_with(
    subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor
) -> torch.Tensor:
    """Compute the labels' probabilities where the network gets some patches only.

    Args:
        kept: (num_images, count), numbers of patches; the others' tokens are left out.
    """
    found = []
    for pixels, its, patches in zip(
        pixel_values.split(BATCH), labels.split(BATCH), kept.split(BATCH), strict=True
    ):
        tokens = entering(subject.parts, pixels)
        rows, columns = grid_of(subject.parts, pixels)
        before = tokens.shape[1] - rows * columns  # class token, and DeiT's other one
        first = torch.arange(before).expand(len(tokens), -1)
        places = torch.cat([first, patches + before], 1)[..., None]
        tokens = tokens.gather(1, places.expand(-1, -1, tokens.shape[2]))
        with torch.no_grad():
            for block in subject.parts.blocks:
                tokens = plain_block(block, tokens)[0]
            chances = subject.parts.logits(tokens).softmax(-1)
        found.append(chances.gather(1, its[:, None])[:, 0])
    return torch.cat(found)


def insertion_deletion(
    scores: torch.Tensor, subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> dict[str, Any]:
    """Measure how fast the right answer goes without the best patches, and how fast it comes by them.

    Returns:
        Mean probability of the label at each share; `each` is insertion minus deletion of each image.
    """
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    total = order.shape[1]
    found: dict[str, dict[str, torch.Tensor]] = {"dropped": {}, "kept": {}}
    for share in DROPPED:
        left = order[:, max(1, round(share * total)) :]
        found["dropped"][f"{share:g}"] = probability_with(subject, pixel_values, labels, left)
    for share in KEPT:
        left = order[:, : max(1, round(share * total))]
        found["kept"][f"{share:g}"] = probability_with(subject, pixel_values, labels, left)
    kept, dropped = (
        torch.stack(list(found[name].values())).mean(0) for name in ("kept", "dropped")
    )
    each = (kept - dropped).tolist()
    return {
        **{
            name: {share: float(values.mean()) for share, values in its.items()}
            for name, its in found.items()
        },
        "difference": float(np.mean(each)),
        "interval": interval(each),
        "each": [round(value, 4) for value in each],
    }


def interval(values: list[float]) -> list[float]:
    """Draw the 95 % bootstrap interval of a mean, with a seed."""
    rows = np.asarray(values)
    drawn = np.random.default_rng(0).integers(0, len(rows), (DRAWS, len(rows)))
    return [float(each) for each in np.quantile(rows[drawn].mean(1), (0.025, 0.975))]


# ---- two dishes in one picture -------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Pictures of two dishes, side by side, that the network sees both in."""

    pixel_values: torch.Tensor
    labels: torch.Tensor  # (num_pictures, 2): left, right
    tried: int


def two_dishes(subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor) -> Pairs:
    """Put the middle halves of two photographs beside each other, by a seed.

    Each photograph is in at most `PASSES` pictures. Kept are those whose two dishes are the network's
    best two answers.
    """
    rng, pairs = np.random.default_rng(0), []
    for _ in range(PASSES):
        order = rng.permutation(len(labels)).tolist()
        pairs += [
            (a, b) for a, b in zip(order[::2], order[1::2], strict=False) if labels[a] != labels[b]
        ]
    left, right = (torch.tensor(side) for side in zip(*pairs, strict=True))
    pictures = beside(subject, pixel_values[left], pixel_values[right])
    both = torch.stack([labels[left], labels[right]], 1)
    best = torch.cat([subject.logits(each).topk(2).indices for each in pictures.split(BATCH)])
    seen = (best.sort(1).values == both.sort(1).values).all(1)
    return Pairs(pictures[seen], both[seen], len(pairs))


def beside(subject: Subject, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Put the middle halves of pictures beside each other; the seam lies between two patches."""
    width, columns = left.shape[3], grid_of(subject.parts, left)[1]
    if columns % 2:
        raise ValueError(f"{columns} columns of patches have no middle: give another image size")
    half, start = width // 2, width // 4
    return torch.cat([each[..., start : start + half] for each in (left, right)], 3)


def pointing(method: Method, subject: Subject, pairs: Pairs) -> dict[str, Any]:
    """Ask for either dish of each picture, and see where the map lies.

    Returns:
        `side`: share of questions where the half that was asked for got more than the other, a tie
        being half a question; `shift`: how much more of the map lies left when left was asked for; each
        with its standard error over pictures. `empty`: maps with nothing in them.
    """
    found = [shown(maps(method, subject, pairs.pixel_values, labels)) for labels in pairs.labels.T]
    half = found[0].shape[2] // 2
    left = [each[..., :half].sum((1, 2)) for each in found]  # asked for left, for right
    rest = [each[..., half:].sum((1, 2)) for each in found]
    side = (_more(left[0], rest[0]) + _more(rest[1], left[1])) / 2
    empty = sum(int((a + b == 0).sum()) for a, b in zip(left, rest, strict=True))
    return {
        "side": float(side.mean()),
        "side_error": standard_error(side),
        "shift": float((left[0] - left[1]).mean()),
        "shift_error": standard_error(left[0] - left[1]),
        "empty": empty,
    }


def _more(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first > second).float() + (first == second).float() / 2


def standard_error(values: torch.Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)


# ---- random weights ------------------------------------------------------------------------------


def randomised(subject: Subject, blocks: int, seed: int) -> Subject:
    """Copy a network and draw its head and its last blocks anew, as an untrained ViT has them."""
    twin = Subject.of(copy.deepcopy(subject.model))
    layers: list[nn.Module] = list(twin.parts.heads)
    for block in twin.parts.blocks[len(twin.parts.blocks) - blocks :]:
        layers += [each for each in vars(block).values() if isinstance(each, nn.Module)]
    generator = torch.Generator().manual_seed(seed)
    std = twin.model.config.initializer_range
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std, generator=generator)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return twin


def randomisation(
    method: Method,
    subject: Subject,
    pixel_values: torch.Tensor,
    labels: torch.Tensor,
) -> dict[str, float]:
    """Compare maps with those of random weights: mean |rank correlation|, the head's and with blocks."""
    own = shown(maps(method, subject, pixel_values, labels))
    found = {}
    for name, blocks in (("head", 0), ("blocks", BLOCKS)):
        alike = []
        for seed in range(WEIGHTS):
            twin = randomised(subject, blocks, seed)
            other = shown(maps(method, twin, pixel_values, labels))
            alike += [abs(spearman(a, b)) for a, b in zip(own, other, strict=True)]
        found[name] = float(np.mean(alike))
    return found


def spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    """Compute the rank correlation of two maps; one that is the same everywhere is like no other: 0."""
    ranks = [rankdata(each.numpy().ravel()) for each in (first, second)]
    if any(each.std() == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


# ---- cost ----------------------------------------------------------------------------------------


def cost(
    method: Method, subject: Subject, pixel_values: torch.Tensor, labels: torch.Tensor
) -> dict[str, float]:
    """Time one image's map against the network's own forward pass, in turns.

    It is the time of this process's processors, which others on the machine do not lengthen; call it
    with one thread.

    Returns:
        Median of the rounds' ratios, the smallest and the largest.
    """
    image, label = pixel_values[:1], labels[:1]
    ratios = []
    for _ in range(ROUNDS):
        plain, mapped = [], []
        for _ in range(REPEATS):
            started = time.process_time()
            subject.logits(image)
            between = time.process_time()
            method(subject, image, label)
            plain.append(between - started)
            mapped.append(time.process_time() - between)
        ratios.append(median(mapped) / median(plain))
    return {"ratio": median(ratios), "smallest": min(ratios), "largest": max(ratios)}
