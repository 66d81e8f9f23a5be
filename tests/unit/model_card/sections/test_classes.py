# SPDX-License-Identifier: Apache-2.0
"""The blocks about single dishes."""

import pytest

from model_card.checks import MissingFactError
from model_card.sections.classes import ByDish, MostConfused


def dish(label: str, recall: float | None, n: int = 10, precision: float | None = 0.5) -> dict:
    return {"label": label, "n": n, "recall": recall, "precision": precision, "f1": 0.5}


def test_few_dishes_are_all_shown_the_weakest_first():
    block = ByDish()
    rows = [dish("sushi", 0.9), dish("pizza", 0.2, precision=None), dish("waffles", None, n=0)]
    assert block.markdown(block.check(rows), n=20).splitlines() == [
        "The weakest first. Without a test image: 1 of 3.",
        "",
        "| Dish | Recall | Precision | n |",
        "| --- | --- | --- | --- |",
        "| `pizza` | 20.0 % | never given | 10 |",
        "| `sushi` | 90.0 % | 50.0 % | 10 |",
    ]


def test_what_a_dish_is_called_stands_before_its_label():
    rows = [{**dish("pho", 0.2), "name": "Pho | *soup*"}, {**dish("x", 0.9), "name": None}]
    text = ByDish().markdown(tuple(rows), n=20)
    assert r"| Pho \| \*soup\* (`pho`) | 20.0 % |" in text and "| `x` | 90.0 % |" in text
    same = ByDish().markdown(({**dish("김치", 0.2), "name": "김치"},), n=20)
    assert "| `김치` |" in same


def test_of_many_dishes_both_ends_are_shown():
    block = ByDish()
    text = block.markdown(block.check([dish(f"d{i:02}", i / 20) for i in range(12)]), n=120)
    assert text.startswith("The 5 weakest and the 5 best of 12, by recall.\n\n")
    shown = [line.split("`")[1] for line in text.splitlines() if "`" in line]
    assert shown == [f"d{i:02}" for i in (0, 1, 2, 3, 4, 7, 8, 9, 10, 11)]


def test_confused_pairs():
    block = MostConfused()
    pairs = [("b", "a", 1), ("a", "b", 1), ("c", "a", 1200)]
    rows = [dict(zip(("label", "predicted", "n"), pair, strict=True)) for pair in pairs]
    assert block.markdown(block.check(rows), n=5000).splitlines()[2:] == [
        "| `c` | `a` | 1,200 |",
        "| `a` | `b` | 1 |",
        "| `b` | `a` | 1 |",
    ]
    assert block.markdown((), n=5000) == (
        "`evaluation.json` lists no pair of dishes that was confused."
    )


def test_what_cannot_be_true_is_refused():
    with pytest.raises(ValueError, match=r"a number from 0 to 1 in \[0\].recall"):
        ByDish().check([dish("pizza", 1.5)])
    with pytest.raises(ValueError, match=r"a whole number, 1 or more in \[0\].n"):
        MostConfused().check([{"label": "a", "predicted": "b", "n": 0}])
    with pytest.raises(MissingFactError, match=r"^\[0\].predicted$"):
        MostConfused().check([{"label": "a", "n": 1}])
