# SPDX-License-Identifier: Apache-2.0
"""Checks of single values: what they accept, what they say of the rest."""

import math

import pytest

from model_card import checks
from model_card.checks import FactError, MissingFactError, read_json, read_value

ROW = {"name": checks.text, "n": checks.whole}


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (checks.text, "pizza", "pizza"),
        (checks.sha256, "ab12" * 16, "ab12" * 16),
        (checks.one_of(1, 2), 2, 2),
        (checks.whole, 0, 0),
        (checks.positive, 1, 1),
        (checks.number, -1, -1.0),
        (checks.amount, 0, 0.0),
        (checks.share, 1, 1.0),
        (checks.optional(checks.share), None, None),
        (checks.interval, [-1, 2], (-1.0, 2.0)),
        (checks.channels, [1, 0.5, 0], (1.0, 0.5, 0.0)),
        (checks.grids, [37, 16], (37, 16)),
        (checks.names, ["b", "a"], ("b", "a")),
        (checks.texts, ["a"], ("a",)),
        (checks.any_texts, [], ()),
        (checks.pairs, {"b": 1, "a": 2}, (("a", 2), ("b", 1))),
        (checks.fields(n=checks.whole), {"n": 1, "more": 2}, {"n": 1}),
        (checks.rows(**ROW), [{"name": "a", "n": 1, "more": 2}], ({"name": "a", "n": 1},)),
        (checks.objects(**ROW), {"k": {"name": "a", "n": 1, "x": 2}}, {"k": {"name": "a", "n": 1}}),
    ],
)
def test_accepted(check, value, expected):
    assert check(value) == expected


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (checks.text, " ", "a text with something in it"),
        (checks.sha256, "AB12" * 16, "a SHA-256 of 64"),
        (checks.one_of(1, 2), 3, "one of 1, 2"),
        (checks.whole, True, "a whole number, 0 or more"),
        (checks.positive, 0, "a whole number, 1 or more"),
        (checks.number, math.nan, "a finite number"),
        (checks.amount, -0.1, "a finite number, 0 or more"),
        (checks.share, 1.01, "a number from 0 to 1"),
        (checks.interval, [2, 1], r"a pair \[low, high\]"),
        (checks.interval, [1, None], "a finite number"),
        (checks.channels, [1, 2], "a list of three numbers"),
        (checks.grids, [37], r"a pair \[old, new\]"),
        (checks.grids, [37, 0], "a whole number, 1 or more"),
        (checks.names, ["a", "a"], "two or more different names"),
        (checks.texts, [], "one or more texts"),
        (checks.any_texts, [""], "a text with something in it"),
        (checks.pairs, [], "an object of names and values"),
        (checks.fields(n=checks.whole), 1, "an object of names and values"),
        (checks.rows(**ROW), {}, "a list of objects"),
        (checks.rows(**ROW), [{"name": "a", "n": -1}], r"a list with .* in \[0\].n"),
        (checks.objects(**ROW), [], "an object of objects"),
        (checks.objects(**ROW), {"k": {"name": "", "n": 1}}, r"an object with .* in \.k\.name"),
    ],
)
def test_refused(check, value, said):
    with pytest.raises(ValueError, match=said):
        check(value)


def test_a_column_that_is_not_there_is_a_gap():
    with pytest.raises(MissingFactError, match=r"^\[1\]\.n$"):
        checks.rows(**ROW)([{"name": "a", "n": 1}, {"name": "b"}])
    with pytest.raises(MissingFactError, match=r"^\.k\.n$"):
        checks.objects(**ROW)({"k": {"name": "b"}})
    with pytest.raises(MissingFactError, match=r"^\.torch$"):
        checks.versions({"vit-food101": "1", "python": "3", "transformers": "5"})


def test_a_value_is_looked_up_and_named():
    parsed = {"run.json": {"data": {"n": -1, "cache": None}}, "evaluation.json": {}}
    with pytest.raises(
        FactError, match=r"^run.json: data.n is -1, not a whole number, 0 or more: "
    ):
        read_value(parsed, "run.data.n", checks.whole)
    for source in ("run.data.cache", "run.data.more", "run.other.n", "evaluation.n"):
        key = source.split(".", 1)[1]
        with pytest.raises(MissingFactError, match=f"json has no {key}: "):
            read_value(parsed, source, checks.whole)
    assert read_value(parsed, "run.data.cache", checks.optional(checks.whole)) is None
    assert read_value(parsed, "run.data.more", checks.later(checks.whole)) is None
    with pytest.raises(MissingFactError):
        read_value(parsed, "run.data.more", checks.optional(checks.whole))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingFactError, match=r"evaluation\.json does not exist: run `food101"):
        read_json(tmp_path / "evaluation.json")
    (tmp_path / "run.json").write_bytes(b"\xff")
    with pytest.raises(FactError, match="is not JSON .*: train again"):
        read_json(tmp_path / "run.json")
