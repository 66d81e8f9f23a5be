# SPDX-License-Identifier: Apache-2.0
"""What the verbs' parsers have in common."""

import argparse
import logging
import os

import pytest

from inference.food_images import MAX_IMAGE_PIXELS
from training.cli.parsing import (
    FoodParser,
    add_pixel_limit,
    add_verb,
    number,
    plain_options,
    positive,
    quiet_libraries,
)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", " 1", "²"])
def test_what_is_no_whole_number_of_at_least_1(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number of at least 1"):
        positive(text)


def test_a_whole_number():
    assert (positive("1"), positive("12")) == (1, 12)


def test_the_limit_on_pixels_in_the_help_is_that_of_the_decoder():
    parser = argparse.ArgumentParser()
    add_pixel_limit(parser)
    assert f"(default: {MAX_IMAGE_PIXELS:,})" in " ".join(parser.format_help().split())


def test_a_number():
    assert (number("0.9"), number("-1"), number("1e-1")) == (0.9, -1.0, 0.1)
    for text in ("", "most", "a.jpg", "0,9"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number; give the images"):
            number(text)


def test_a_complaint_is_one_line_and_exit_code_2(capsys):
    parser = FoodParser(prog="food101")
    verbs = parser.add_subparsers()

    def label() -> None:
        pass

    add_verb(verbs, label, "label photographs").add_argument("--top_k", type=positive)
    assert parser.parse_args(["label"]).verb is label
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["label", "--top_k", "0"])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.count("\n") == 1
    assert err.startswith("error: argument --top_k: '0' is not a whole")
    assert err.endswith("(see `food101 label --help`)\n")


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        (["--top-k", "3"], ["--top_k", "3"]),
        (["--top_k=3", "a-b.jpg"], ["--top_k=3", "a-b.jpg"]),
        (["--repo-id=user/a-b", "--tag", "x-y"], ["--repo_id=user/a-b", "--tag", "x-y"]),
        (["--", "--dry-run"], ["--", "--dry-run"]),
        (["-h", "-"], ["-h", "-"]),
        (["--dry---run-"], ["--dry___run_"]),
        (["--top-k", "-1"], ["--top_k=-1"]),
        (["--gb", "-1e3", "-inf"], ["--gb=-1e3", "-inf"]),
        (["--gb=1", "-1"], ["--gb=1", "-1"]),
        (["-1"], ["-1"]),
        ([], []),
    ],
)
def test_options_as_they_may_be_typed(typed, plain):
    assert plain_options(typed) == plain
    assert plain_options(plain) == plain  # a verb's parser gets them again


@pytest.mark.parametrize("number", ["-1", "-1e3", "-inf", "-0.5"])
def test_a_negative_number_gets_our_sentence(capsys, number):
    parser = FoodParser(prog="food101")
    parser.add_argument("--top_k", type=positive)
    with pytest.raises(SystemExit):
        parser.parse_args(["--top-k", number])
    assert f"'{number}' is not a whole number of at least 1" in capsys.readouterr().err


def test_libraries_are_quiet_unless_somebody_said_otherwise(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    quiet_libraries()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    for package in ("training", "inference"):
        assert logging.getLogger(package).level == logging.INFO
