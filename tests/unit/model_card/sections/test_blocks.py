# SPDX-License-Identifier: Apache-2.0
"""How a block plugs into the card: a class, and one more entry in the list."""

import pytest

from model_card import checks, facts, render
from model_card.facts import FactError, MissingFactError
from model_card.front_matter import validate_card
from model_card.render import render_card
from model_card.sections.blocks import BLOCKS
from tests.unit.card_files import facts_of, files


class Darkness:
    key, title, required = "darkness", "In the dark", False

    def check(self, value: object) -> float:
        return checks.share(value)

    def markdown(self, value: float, n: int) -> str:
        return f"{value:.0%} of {n} images are dark."


@pytest.fixture
def darkness(monkeypatch):
    for module in (facts, render):
        monkeypatch.setattr(module, "BLOCKS", (*BLOCKS, Darkness()))


def test_the_blocks_are_shown_in_their_order():
    text = render_card(facts_of(files()))
    places = [text.index(f"\n### {block.title}\n\n") for block in BLOCKS]
    assert places == sorted(places) and [block.key for block in BLOCKS] == [
        "per_class",
        "most_confused",
        "calibration",
        "abstention",
        "sets",
        "not_food",
    ]


REQUIRED = [block for block in BLOCKS if block.required]


@pytest.mark.parametrize("block", REQUIRED, ids=lambda block: block.key)
def test_a_required_key_is_asked_for(block):
    both = files()
    del both["evaluation"][block.key]
    with pytest.raises(MissingFactError, match=f"evaluation.json has no {block.key}: run"):
        facts_of(both)


@pytest.mark.parametrize("absent", ["no key", None])
def test_what_is_not_required_may_be_lacking(absent):
    both = files()
    optional = [block for block in BLOCKS if not block.required]
    for block in optional:
        del both["evaluation"][block.key]
        if absent is None:
            both["evaluation"][block.key] = None
    text = render_card(facts_of(both))
    validate_card(text)
    assert optional and not any(f"### {block.title}\n" in text for block in optional)


def test_another_block_is_shown_where_its_key_is(darkness):
    both = files()
    without = render_card(facts_of(both))
    assert "dark" not in without
    both["evaluation"]["darkness"] = 0.25
    text = render_card(facts_of(both))
    validate_card(text)
    added = "### In the dark\n\n25% of 25250 images are dark.\n\n"
    assert text == without.replace("## How to repro", f"{added}## How to repro")


def test_its_check_is_applied(darkness):
    both = files()
    both["evaluation"]["darkness"] = 2
    with pytest.raises(FactError, match="darkness is 2, not a number from 0 to 1: run `food101"):
        facts_of(both)
