# SPDX-License-Identifier: Apache-2.0
"""The record of `make test-versions`: what code and card claim is what was run, and it fails when it must."""

import json

import pytest

from inference.food_classification import TRIED_WITH
from tests.versions import run


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads(run.RESULTS.read_text(encoding="utf-8"))


def test_the_code_claims_the_versions_that_were_run(recorded):
    assert tuple(each["transformers"] for each in recorded["environments"]) == TRIED_WITH
    assert {row["transformers"] for row in recorded["rows"]} == set(TRIED_WITH)
    assert all(row["same"] and "error" not in row for row in recorded["rows"])
    assert {each["torch"].split("+")[0] for each in recorded["environments"]} == {run.TORCH}


def test_the_page_is_the_record(recorded):
    assert run.PAGE.read_text(encoding="utf-8") == run.page(recorded), (
        "run `make test-versions`, or write the page again from its record"
    )


def test_the_record_names_no_machine(recorded):
    assert '"/' not in json.dumps(recorded)


def outcome(version, **ways):
    return {"versions": {"transformers": version}, "ways": ways}


def test_other_answers_and_errors_are_not_the_same():
    one = {"scores": {"a.png": {"pho": 0.5}}}
    for other in (
        {"scores": {"a.png": {"pho": 0.5001}}},
        {"scores": {"a.png": {"ramen": 0.5}}},
        {"scores": {"b.png": {"pho": 0.5}}},
        {"error": "AttributeError: dtype"},
    ):
        rows = run.compare([outcome("4", food=other), outcome("5", food=one)])
        assert [row["same"] for row in rows] == [False, True]
        rows = run.compare([outcome("4", food=one), outcome("5", food=other)])
        assert not rows[0]["same"]
    rows = run.compare([outcome("4", food=one), outcome("5", food=one)])
    assert [row["same"] for row in rows] == [True, True]
