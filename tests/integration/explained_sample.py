# SPDX-License-Identifier: Apache-2.0
"""What the maps of a released sample model are worth, where the place of the drawn dish is known.

    python -m tests.integration.explained_sample RELEASE

Run in a process of its own, since it loads the release with the code that it brings. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from transformers import pipeline

from inference.apps.explain.vit import walk
from inference.food_explain import vit_parts
from training.data import sample
from training.data.sample import DISHES, draw_dish

LABELS = list(DISHES)
TIMES = 3  # pictures of each dish
PAIRS = 250  # pictures of two dishes, of which those count whose two best labels are the two dishes


def place_of(label: str, seed: list[int]) -> np.ndarray:
    """Find where a drawn dish lies: what is different from the same picture without it, (height, width)."""
    with mock.patch.object(sample, "photograph", lambda image, rng: image):
        drawn = draw_dish(label, np.random.default_rng(seed))
        empty = DISHES[label]._replace(draw=lambda sketch, ground, rng: None)
        with mock.patch.dict(DISHES, {label: empty}):
            table = draw_dish(label, np.random.default_rng(seed))
    return np.abs(np.asarray(drawn, np.int16) - np.asarray(table, np.int16)).max(2) > 8


def on_patches(classify: Any, place: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Compute which part of each patch the dish covers, through the same preprocessing."""
    white = np.repeat(place[..., None], 3, 2).astype(np.uint8) * 255
    covered = classify.preprocessing.crop(white)[:1].float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(covered, grid)[0].numpy()


def centred_blob(grid: tuple[int, int]) -> np.ndarray:
    """Make a map that knows nothing but that dishes lie in the middle; it adds up to 1."""
    down, right = (np.arange(side) - (side - 1) / 2 for side in grid)
    blob = np.exp(-((down[:, None] / grid[0]) ** 2 + (right / grid[1]) ** 2) * 8)
    return blob / blob.sum()


@torch.no_grad()
def last_attention(classify: Any, picture: Image.Image) -> np.ndarray:
    """Compute the share of each patch in the class token's attention in the last block."""
    steps, parts = classify.preprocessing, vit_parts(classify.model)
    values = steps.normalize(steps.crop(np.asarray(picture))[None])
    *_, last = walk(parts, parts.embeddings(values)[0])
    row = last.attention.mean(0)[0, 1:]
    return (row / row.sum()).numpy()


def on_the_dish(classify: Any) -> list[dict[str, float]]:
    """Compare how much of several maps lies on the dish, picture by picture."""
    found = []
    for number, label in enumerate(LABELS):
        for time in range(TIMES):
            seed = [77, time, number]
            picture = draw_dish(label, np.random.default_rng(seed))
            shares = classify(picture, explain=label)["explanation"]["map"]
            covered = on_patches(classify, place_of(label, seed), shares.shape)
            found.append(
                {
                    "map": float((shares * covered).sum()),
                    "area": float(covered.mean()),
                    "blob": float((centred_blob(shares.shape) * covered).sum()),
                    "attention": float(last_attention(classify, picture) @ covered.ravel()),
                }
            )
    return found


def with_random_head(classify: Any) -> list[float]:
    """Correlate maps with those of the same network under a head of random numbers (arXiv:1810.03292)."""
    pictures = [draw_dish(label, np.random.default_rng([78, i])) for i, label in enumerate(LABELS)]
    maps = []
    for seed in (None, 0):
        if seed is not None:
            torch.manual_seed(seed)
            torch.nn.init.normal_(classify.model.classifier.weight, std=0.05)
        answers = [
            classify(each, explain=label) for each, label in zip(pictures, LABELS, strict=True)
        ]
        maps.append([answer["explanation"]["map"].ravel() for answer in answers])
    return [abs(float(spearmanr(one, other)[0])) for one, other in zip(*maps, strict=True)]


def of_two_dishes(classify: Any) -> list[bool]:
    """Ask for each of two dishes that lie beside each other: whether its half gets more of the map."""
    rng, found = np.random.default_rng(5), []
    for pair in range(PAIRS):
        numbers = rng.choice(len(LABELS), 2, replace=False)
        wanted = [LABELS[number] for number in numbers]
        halves = []
        for side, label in enumerate(wanted):
            drawn = draw_dish(label, np.random.default_rng([99, pair, side])).resize((512, 512))
            halves.append(np.asarray(drawn.crop((128, 0, 384, 512))))
        answer = classify(Image.fromarray(np.concatenate(halves, 1)), top_k=2, explain=wanted)
        if {row["label"] for row in answer["labels"]} != set(wanted):
            continue  # the network does not see both
        for side, each in enumerate(answer["explanation"]):
            own = np.array_split(each["map"], 2, axis=1)[side]
            found.append(bool(own.sum() > 0.5))
    return found


def main() -> None:
    classify = pipeline(model=sys.argv[1], trust_remote_code=True, device="cpu")
    found = {"on_the_dish": on_the_dish(classify), "two_dishes": of_two_dishes(classify)}
    json.dump({**found, "random_head": with_random_head(classify)}, sys.stdout)


if __name__ == "__main__":
    main()
