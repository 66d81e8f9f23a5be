# SPDX-License-Identifier: Apache-2.0
"""Keys of a recipe: limits, choices, their words, and what a card says of them."""

import dataclasses
import math
from dataclasses import dataclass

import pytest

from training.common.arguments import (
    Key,
    cards_of,
    check_ranges,
    default_of,
    key,
    keys_of,
)
from training.common.errors import UserError
from training.config.recipe import CLASSES


@dataclass
class Toy:
    rate: float = key(0.0, "a rate", at_least=0, below=1, note=" (0.1 is usual)", card="rate {}")
    rounds: int | None = key(None, "rounds", at_least=2, note=", or leave it out", card="{} rounds")
    kind: str = key("off", "a kind", choices=("off", "soft", "hard"))
    sizes: list[float] = key([1.0, 2.0], "sizes", above=0)
    plain: int = 3


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"at_least": 0, "at_most": 1}, "0 to 1"),
        ({"above": 0, "at_most": 1}, "above 0 to 1"),
        ({"at_least": 0, "below": 1}, "0 to below 1"),
        ({"above": 0, "below": 1}, "above 0 to below 1"),
        ({"at_least": 1}, "at least 1"),
        ({"above": 0.5}, "above 0.5"),
        ({"below": 1e6}, "below 1,000,000"),
        ({"choices": ("stop", "skip")}, "stop or skip"),
        ({"choices": ("off", "soft", "hard")}, "off, soft or hard"),
        ({"choices": ("only",)}, "only"),
        ({"at_least": 0, "give": "a number from 0 up"}, "a number from 0 up"),
        ({}, ""),
    ],
)
def test_the_words_are_made_from_the_limits(limits, words):
    assert Key("help", **limits).words() == words


@pytest.mark.parametrize("value", [0, 0.5, 0.999, None, [0.1, 0.9], []])
def test_what_is_within_the_limits(value):
    assert Key("help", at_least=0, below=1).accepts(value)


@pytest.mark.parametrize("value", [-1e-9, 1, math.nan, math.inf, -math.inf, [0.5, 1.0], [math.nan]])
def test_what_is_not(value):
    assert not Key("help", at_least=0, below=1).accepts(value)


def test_a_number_without_an_upper_limit_is_finite():
    for limit in ({"at_least": 0}, {"above": 0}):
        assert Key("help", **limit).accepts(1e300)
        assert not Key("help", **limit).accepts(math.inf)
    assert Key("help").accepts(math.inf)  # no limit, no opinion


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 1.0}, "rate is 1.0: give 0 to below 1 (0.1 is usual)"),
        ({"rate": math.nan}, "rate is nan: give 0 to below 1 (0.1 is usual)"),
        ({"rounds": 1}, "rounds is 1: give at least 2, or leave it out"),
        ({"kind": "harsh"}, "kind is 'harsh': give off, soft or hard"),
        ({"sizes": [1.0, 0.0]}, "sizes is [1.0, 0.0]: give above 0"),
    ],
)
def test_the_first_bad_value_is_one_line(values, message):
    with pytest.raises(UserError) as error:
        check_ranges(Toy(**values))
    assert str(error.value) == message


def test_good_values_and_fields_that_are_no_keys_are_left_alone():
    check_ranges(Toy(rate=0.5, rounds=2, kind="hard", sizes=[3.0], plain=-7))
    assert list(keys_of(Toy)) == list(keys_of(Toy())) == ["rate", "rounds", "kind", "sizes"]


def test_a_list_is_copied_for_each_instance():
    one, two = Toy(), Toy()
    one.sizes.append(9.0)
    assert two.sizes == [1.0, 2.0] == default_of(dataclasses.fields(Toy)[3])


def test_a_card_names_the_keys_that_are_on():
    assert cards_of(Toy()) == []
    assert cards_of(Toy(rate=0.25, rounds=4, kind="hard")) == ["rate 0.25", "4 rounds"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_key_has_a_help_and_a_default_within_its_range(kind):
    for field in dataclasses.fields(kind):
        if "key" in field.metadata:
            facts = field.metadata["key"]
            assert facts.help == field.metadata["help"] != ""
            assert facts.accepts(default_of(field)), field.name
