# SPDX-License-Identifier: Apache-2.0
"""What the card shows of abstain and coverage is what its model can answer."""

import pytest

from model_card.render import render_card
from model_card.sections.answers import explained_by, words
from tests.unit.card_files import DIGEST, facts_of, files

CODE = ("food_classification.py", "food_answers.py", "food_images.py")
THRESHOLDS = {"0.8": 0.3, "0.9": 0.5, "0.95": 0.7, "0.99": None}
SETS = {"0.5": 0.9, "0.9": 0.1, "0.99": 0.01}


@pytest.mark.parametrize(
    ("thresholds", "sets", "options"),
    [
        (THRESHOLDS, SETS, "abstain=True, coverage=0.9"),
        ({**THRESHOLDS, "0.95": None}, SETS, "abstain=0.9, coverage=0.9"),
        (dict.fromkeys(THRESHOLDS), {"0.5": 0.9, "0.51": 0.8}, "coverage=0.51"),
        (THRESHOLDS, {}, "abstain=True"),
        (None, None, ""),
    ],
)
def test_the_example_can_be_run(thresholds, sets, options):
    assert words(thresholds, sets, CODE)["answer_options"] == options


def card(code=CODE, **stored) -> str:
    return render_card(facts_of(files()), code_sha256=dict.fromkeys(code, DIGEST), **stored)


def test_the_card_shows_it():
    text = card(thresholds=THRESHOLDS, sets=SETS)
    assert 'classify("photo.jpg", abstain=True, coverage=0.9)\n```' in text
    assert "- `abstain` (`0.8`, `0.9`, `0.95`; `True` is 0.95): `answered` says" in text
    assert "- `coverage` (`0.5` to `0.99`): `set` lists" in text
    assert "decodes them, and `food_answers.py`, which says how sure it is.\n" in text


def test_a_model_or_code_that_cannot_answer_shows_nothing_of_it():
    assert "`coverage` (" not in card(thresholds=THRESHOLDS, sets={})
    without = [card(), card(CODE[:1], thresholds=THRESHOLDS, sets=SETS)]
    for text in without:
        usage = text.split("## Results")[0]
        assert "abstain" not in usage and "coverage" not in usage
    assert "food_answers" not in without[1]


def test_a_card_says_what_can_be_explained_where_the_code_can():
    text = card((*CODE, "food_explain.py"))
    assert (
        "- `explain=True`, or a label" in text and "`food_explain.py`, which shows why.\n" in text
    )
    assert "AttnLRP, arXiv:2402.05602" in text and "explain" not in card()


def test_the_method_is_that_of_the_network():
    assert explained_by("DeiTForImageClassificationWithTeacher", CODE) == ""
    code = (*CODE, "food_explain.py")
    assert "AttnLRP" in explained_by("DeiTForImageClassificationWithTeacher", code)
    assert "Grad-CAM" in explained_by("ResNetForImageClassification", code)
