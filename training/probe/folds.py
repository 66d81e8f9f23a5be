"""Folds of a cross-validation: which image is scored by a head that has not learned from it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

FOLDS = 5

ALWAYS_TRAINED = -1  # the fold of an image that every head learns from


def split_into_folds(labels: np.ndarray, content: list[str], seed: int) -> np.ndarray:
    """Deal images out to folds, each class evenly, all copies of an image into one fold.

    What a fold leaves always holds every class: the images of a class with one photograph (or copies
    of one) are learned from in every fold and scored in none. A class with fewer photographs than
    folds is in as many folds as it has photographs, so no other class has fewer folds for it. The
    order of the images does not matter.

    Args:
        labels: class ids, (num_images,).
        content: the SHA-256 of each image's bytes; equal ones are copies.
        seed: draws who is in which fold.

    Returns:
        int64 (num_images,): from 0 up, or `ALWAYS_TRAINED`.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row, sha256 in enumerate(content):
        groups[sha256].append(row)
    of_class: dict[int, list[str]] = defaultdict(list)
    holders: dict[int, int] = defaultdict(int)  # class -> how many different images have it
    for sha256 in sorted(groups):
        classes = sorted(set(labels[groups[sha256]].tolist()))
        of_class[classes[0]].append(sha256)  # copies with two labels are dealt out once
        for label in classes:
            holders[label] += 1
    folds, generator, dealt = np.full(len(labels), ALWAYS_TRAINED), np.random.default_rng(seed), 0
    count = min(FOLDS, max(holders.values()))
    for label in sorted(of_class):
        for position in generator.permutation(len(of_class[label])):
            rows = groups[of_class[label][position]]
            if all(holders[each] > 1 for each in labels[rows].tolist()):
                folds[rows] = dealt % count
                dealt += 1
    return folds
