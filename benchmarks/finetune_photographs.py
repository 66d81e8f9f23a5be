# SPDX-License-Identifier: Apache-2.0
"""Choose the photographs that `finetune.py` trains on: seeded, and the smaller choices in the larger ones."""

from __future__ import annotations

import random
from pathlib import Path

from pages import UsageError

DEVELOPMENT = 20  # photographs a class that are in no subset
EVERY = 5  # of so many photographs one selects


def make_subset(dataset: Path, photographs: int, seed: int, folder: Path) -> Path:
    """Link the chosen photographs as train/, val/ and test/ (those for development) below `folder`.

    Smaller subsets lie in the larger ones of the same seed, and so do their selection slices.

    Raises:
        UsageError: a class has too few photographs.
    """
    target = folder / f"{photographs}-{seed}"
    if (target / "whole").is_file():
        return target / "images"
    for label in sorted(path for path in (dataset / "train").iterdir() if path.is_dir()):
        files = sorted(path.resolve() for path in label.iterdir())
        if len(files) < photographs + DEVELOPMENT:
            raise UsageError(
                f"{label} has {len(files)} photographs: {photographs + DEVELOPMENT} are needed"
            )
        random.Random(f"{seed} {label.name}").shuffle(files)
        chosen = {
            "train": [f for i, f in enumerate(files[:photographs]) if i % EVERY != EVERY - 1],
            "val": [f for i, f in enumerate(files[:photographs]) if i % EVERY == EVERY - 1],
            "test": files[-DEVELOPMENT:],
        }
        for split, paths in chosen.items():
            (target / "images" / split / label.name).mkdir(parents=True, exist_ok=True)
            for path in paths:
                link = target / "images" / split / label.name / path.name
                if not link.is_symlink():
                    link.symlink_to(path)
    (target / "whole").touch()
    return target / "images"
