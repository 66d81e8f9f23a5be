# SPDX-License-Identifier: Apache-2.0
"""Scoring some test images again after a push."""

import csv
import re

import pytest

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.loading import load_split
from training.data.splits import Split
from training.hub.rescore import TIE, Answer, compare_answers, rescore


@pytest.fixture(scope="module")
def split(tiny_run, tiny_data) -> Split:
    return load_split(DataArguments(dataset=str(tiny_data)), "validation")[1]


def test_a_release_gives_its_own_answers(released, split):
    said = rescore(released, split, num_images=5)
    assert said.startswith("5 of 18 test images scored again from the downloaded files: ")
    right, expected = re.search(r": (\d+) right, (\d+) by the card's record$", said).groups()
    assert right == expected
    assert rescore(released, split, num_images=1000).startswith("18 of 18 ")


def test_another_answer_is_an_error(released, split):
    path = released / "predictions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    rows[0][2] = "cheesecake" if rows[0][2] != "cheesecake" else "pizza"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    with pytest.raises(UserError, match=r"1 of 18 test images get another answer .*image 0: "):
        rescore(released, split, num_images=18)


def answer(position: int, recorded: str, now: str, margin: float = 1.0) -> Answer:
    return Answer(position, "pizza", recorded, now, margin)


def test_answers_are_counted():
    answers = [answer(0, "pizza", "pizza"), answer(3, "sushi", "sushi")]
    near_tie = answer(5, "pizza", "sushi", TIE / 2)  # it may fall either way on another machine
    assert compare_answers([*answers, near_tie], 10) == (
        "3 of 10 test images scored again from the downloaded files: 1 right, 2 by the card's record"
    )
    different = [answer(5, "pizza", "sushi"), answer(6, "sushi", "pizza")]
    with pytest.raises(UserError, match=r"2 of 4 .*\(image 5: pizza on the card, sushi now\)"):
        compare_answers([*answers, *different], 10)
