# SPDX-License-Identifier: Apache-2.0
"""Networks that the scores of `not_food.py` are measured on: fine-tuned without two of the dishes."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

from training_runs import train

from training.common.files import read_json

# A little over one epoch of eight dishes with 270 training photographs each.
FINETUNE = {
    "image_size": 112,
    "total_train_batch_size": 16,
    "max_steps": 140,
    "learning_rate": 2e-4,
    "layer_decay": 0.75,
    "head_init_scale": 0.0,
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
    "crop_scale": [0.5, 1.0],
    "eval_strategy": "steps",
    "eval_steps": 70,
    "save_strategy": "steps",
    "save_steps": 70,
    "save_total_limit": 1,
    "logging_steps": 14,
    "dataloader_num_workers": 0,
    "report_to": ["none"],
}


def pairs_of(labels: list[str], count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Draw `count` different pairs of labels; more of the same seed begin with the same."""
    pairs = list(itertools.combinations(sorted(labels), 2))
    random.Random(seed).shuffle(pairs)
    return pairs[:count]


def dataset_without(dataset: Path, pair: tuple[str, str], folder: Path) -> Path:
    """Link the dishes of `dataset` that are not in `pair`, train/ and validation/, below `folder`."""
    target = folder / f"without-{'+'.join(pair)}"
    for split in ("train", "validation"):
        (target / split).mkdir(parents=True, exist_ok=True)
        for dish in sorted((dataset / split).iterdir()):
            link = target / split / dish.name
            if dish.is_dir() and dish.name not in pair and not link.exists():
                os.symlink(dish.resolve(), link)
    return target


def _is_finished(run: Path) -> bool:
    return (run / "run.json").is_file() and bool(read_json(run / "run.json").get("finished"))


def finetuned_without(
    backbone: Path, dataset: Path, pair: tuple[str, str], folder: Path, threads: int
) -> Path:
    """Train a network on the other dishes, or find it trained; its run."""
    data = dataset_without(dataset, pair, folder)
    run = folder / f"finetune-{'+'.join(pair)}"
    if not _is_finished(run):
        values: dict[str, Any] = {"model": str(backbone), **FINETUNE}
        train(values, data, run, seed=0, threads=threads)
    return run
