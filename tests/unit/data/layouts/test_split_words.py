# SPDX-License-Identifier: Apache-2.0
"""Whole names are splits; parts of names never are (datasets#5021)."""

import pytest

from training.common.errors import UserError
from training.data.layouts.split_words import (
    find_split,
    refuse_like_splits,
    split_of,
    split_of_file,
)


@pytest.mark.parametrize(
    "name", ["bullet_train", "test kitchen", "train-station", "evaluated", "devil", "trainers", ""]
)
def test_words_inside_names_are_none(name):
    assert split_of(name) is None and split_of_file(name) is None


@pytest.mark.parametrize(
    ("stem", "split"),
    [("train", "train"), ("Train-00000-of-00008", "train"), ("val_0", "validation"), ("test.000001", "test"),
     ("train-00000-of-00001-0123456789abcdef", "train"), ("train-data", None), ("my-train-00000", None)],
)  # fmt: skip
def test_the_name_of_a_file(stem, split):
    assert split_of_file(stem) == split


def test_a_split_is_found_by_what_it_means():
    assert find_split(["Train", "Val"], "validation") == "Val"
    assert find_split(["a", "b"], "test") is None and find_split(["odd"], "odd") == "odd"
    with pytest.raises(UserError, match="splits val and dev both mean validation"):
        find_split(["train", "val", "dev"], "validation")
    assert find_split(["validation", "dev"], "validation") == "validation"  # by its name


@pytest.mark.parametrize(
    "names",
    [("training_set", "test_set"), ("food-train-01", "food-val-01"), ("train2017", "val2017")],
)
def test_what_may_be_splits_is_a_question(names):
    with pytest.raises(UserError, match=f"{names[0]} and {names[1]} may be splits or labels"):
        refuse_like_splits(names)


def test_a_word_in_one_name_only_says_nothing():
    refuse_like_splits(["bullet_train", "freight train", "pizza", "contest", "train", "test"])
    refuse_like_splits(["train and test", "test"])
