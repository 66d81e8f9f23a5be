# SPDX-License-Identifier: Apache-2.0
"""The sections about single classes, counted by hand."""

import numpy as np
import pytest

from training.evaluation.classes import NUM_PAIRS, MostConfused, PerClass
from training.evaluation.section import Scored


def scored(labels: list[int], predicted: list[int], names: list[str]) -> Scored:
    logits = np.eye(len(names), dtype=np.float32)[predicted]
    return Scored(logits, np.array(labels), names, network=None)


def test_scores_of_each_class():
    rows = PerClass().measure(scored([0, 0, 0, 1], [0, 0, 1, 1], ["pizza", "sushi", "waffles"]))
    assert rows == [
        {"label": "pizza", "n": 3, "recall": pytest.approx(2 / 3), "precision": 1.0, "f1": 0.8},
        {"label": "sushi", "n": 1, "recall": 1.0, "precision": 0.5, "f1": pytest.approx(2 / 3)},
        # Nothing to divide by: neither an image nor an answer.
        {"label": "waffles", "n": 0, "recall": None, "precision": None, "f1": None},
    ]


def test_a_class_without_images_that_was_answered_has_a_precision():
    row = PerClass().measure(scored([0, 0], [1, 1], ["pizza", "sushi"]))[1]
    assert row == {"label": "sushi", "n": 0, "recall": None, "precision": 0.0, "f1": None}


def test_confused_pairs_are_ranked_and_right_answers_are_none():
    found = MostConfused().measure(
        scored([0, 0, 1, 1, 1, 2], [1, 2, 0, 0, 1, 2], ["pizza", "sushi", "waffles"])
    )
    assert found == [
        {"label": "sushi", "predicted": "pizza", "n": 2},
        {"label": "pizza", "predicted": "sushi", "n": 1},  # as frequent as the next: by class id
        {"label": "pizza", "predicted": "waffles", "n": 1},
    ]
    assert MostConfused().measure(scored([0, 1], [0, 1], ["pizza", "sushi"])) == []


def test_the_list_of_pairs_is_short():
    names = [f"dish {i}" for i in range(6)]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    found = MostConfused().measure(scored([i for i, _ in pairs], [j for _, j in pairs], names))
    assert len(found) == NUM_PAIRS == 10 and {row["n"] for row in found} == {1}
