# SPDX-License-Identifier: Apache-2.0
"""What the card says of names: languages, how many, and from whom."""

from model_card.facts import CardFacts
from model_card.render import render_card
from model_card.sections.languages import sentences, with_names
from tests.unit.card_files import LABELS, files

NAMES = {
    "en": {"cheesecake": "Cheesecake", "cheese_plate": "Cheese plate", "nan": "Naan"},
    "ko": {"cheesecake": "치즈케이크"},
}


def card(**names: object) -> str:
    return render_card(CardFacts.from_json(files()["run"], files()["evaluation"]), **names)


def test_languages_and_their_sources():
    said = sentences(LABELS, NAMES, {"en": "vit-food101", "ko": "vit-food101"})
    assert said["languages"] == "`en`, `ko` (1 of 3 dishes)"
    assert said["example_language"] == "ko"
    assert "no native speaker has read the Korean ones" in said["names_source"]
    said = sentences(LABELS, NAMES, {"en": "vit-food101", "ko": "display_names"})
    assert said["names_source"] == (
        "`en`: the table of vit-food101. `ko`: given by whoever trained this model"
    )
    assert sentences(LABELS, {"en": NAMES["en"]}, {})["example_language"] == "en"


def test_the_card_names_dishes():
    text = card(names=NAMES, names_from={"en": "vit-food101", "ko": "display_names"})
    assert 'classify("photo.jpg", language="ko")' in text
    assert "in a language that you choose: `en`, `ko` (1 of 3 dishes)." in text
    assert "| Naan (`nan`) |" in text and "a readable name" not in text


def test_without_names_it_is_the_card_that_it_was():
    assert card() == card(names={}, names_from=None)
    assert "language" not in card() and "- a readable name beside each label.\n" in card()
    assert "| `nan` |" in card()


def test_only_rows_about_a_label_get_a_name():
    rows = ({"label": "nan", "n": 1}, {"label": "pho"}, {"n": 1})
    assert with_names(rows, NAMES["en"]) == (
        {"label": "nan", "n": 1, "name": "Naan"},
        {"label": "pho", "name": None},
        {"n": 1},
    )
    assert with_names({"n": 1}, NAMES["en"]) == {"n": 1}
