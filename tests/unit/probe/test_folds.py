# SPDX-License-Identifier: Apache-2.0
"""Who is scored by whom: copies together, classes even, and every class left to learn from."""

import numpy as np
import pytest

from training.probe.folds import ALWAYS_TRAINED, FOLDS, split_into_folds


def images(*counts: int) -> tuple[np.ndarray, list[str]]:
    """Labels and content of different images, so many a class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return labels, [f"{position:064x}" for position in range(len(labels))]


def test_every_fold_has_its_share_of_each_class():
    labels, content = images(30, 30, 31)
    folds = split_into_folds(labels, content, seed=0)
    assert set(folds.tolist()) == set(range(FOLDS))
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1


def test_copies_are_in_one_fold():
    labels, content = images(12, 12)
    content[5] = content[6] = content[0]
    folds = split_into_folds(labels, content, seed=1)
    assert folds[0] == folds[5] == folds[6] != ALWAYS_TRAINED


@pytest.mark.parametrize("counts", [(1, 9), (2, 9), (3, 1, 2), (2, 1)])
def test_what_a_fold_leaves_holds_every_class(counts):
    labels, content = images(*counts)
    folds = split_into_folds(labels, content, seed=0)
    for fold in set(folds.tolist()) - {ALWAYS_TRAINED}:
        assert set(labels[folds != fold].tolist()) == set(range(len(counts)))
    for label, count in enumerate(counts):
        assert (folds[labels == label] == ALWAYS_TRAINED).all() == (count == 1)
    assert folds.max() + 1 == min(FOLDS, max(counts))


def test_copies_of_one_photograph_are_one_photograph():
    labels, content = images(3, 4)
    content[:3] = [content[0]] * 3
    folds = split_into_folds(labels, content, seed=0)
    assert (folds[:3] == ALWAYS_TRAINED).all() and folds.max() == 3


def test_the_seed_decides_and_the_order_of_the_images_does_not():
    labels, content = images(20, 20)
    one, other = (split_into_folds(labels, content, seed) for seed in (0, 1))
    assert (one != other).any()
    order = np.random.default_rng(0).permutation(40)
    moved = split_into_folds(labels[order], [content[i] for i in order], 0)
    assert (moved == one[order]).all()
