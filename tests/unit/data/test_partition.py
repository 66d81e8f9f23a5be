# SPDX-License-Identifier: Apache-2.0
"""Which split is what, and how parts are cut: by label, by content, with a seed."""

import hashlib
from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found
from training.data.partition import (
    choose_splits,
    content_of,
    cut,
    refuse_few,
    selection_fraction_of,
    split_to_score,
)


def found(*splits: str, unlabelled: tuple[str, ...] = ()) -> Found:
    features = Features({"image": Image(decode=False), "label": Value("string")})

    def rows(split: str) -> list[Dataset]:
        label = None if split in unlabelled else "a"
        row = {"image": [{"bytes": b"x", "path": None}], "label": [label]}
        return [Dataset.from_dict(row, features=features)]

    return Found("in memory", {split: rows(split) for split in (*splits, *unlabelled)})


def choose(*splits: str, unlabelled: tuple[str, ...] = (), **keys: object) -> tuple:
    plan = choose_splits(found(*splits, unlabelled=unlabelled), DataArguments("d", **keys))
    return plan.train, plan.selection, plan.test, plan.unused


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "validation"), ("train", None, "validation", ())),  # ethz/food101
        (("train", "test"), ("train", None, "test", ())),
        (("train", "validation", "test"), ("train", "validation", "test", ())),
        (("train", "val", "test"), ("train", "val", "test", ())),
        (("Train", "Dev", "Evaluation"), ("Train", "Dev", "Evaluation", ())),
        (("train",), ("train", None, None, ())),
        (("full",), ("full", None, None, ())),
        (("train", "validation", "test", "unsupervised"), ("train", "validation", "test", ("unsupervised",))),
    ],
)  # fmt: skip
def test_by_their_names(splits, expected):
    assert choose(*splits) == expected


def test_a_test_without_labels_is_no_test():
    assert choose("train", "validation", unlabelled=("test",)) == (
        "train", None, "validation", ("test",),
    )  # fmt: skip
    plan = choose_splits(found("train", unlabelled=("test", "validation")), DataArguments("d"))
    assert (plan.selection, plan.test) == (None, None)
    assert plan.notes == tuple(
        f"no row of {split} has a label: it is not scored" for split in ("test", "validation")
    )


def test_by_the_keys():
    assert choose("train", "validation", "test", test_split="validation") == (
        "train", None, "validation", ("test",),
    )  # fmt: skip
    assert choose("a", "b", "c", train_split="a", test_split="c", selection_split="b") == (
        "a", "b", "c", (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("splits", "keys", "words"),
    [
        (("train", "validation"), {"test_split": "x"}, "dataset d has no split x: it has train, validation"),
        (("a", "b"), {}, "dataset d has no split train: it has a, b; set train_split"),
        (("train", "test"), {"test_split": "train"}, "train_split and test_split are both train: the report"),
        (("train", "test"), {"selection_split": "test"}, "selection_split and test_split are both test"),
        (("train", "val", "test"), {"selection_fraction": 0.1}, "selection_fraction is 0.1 and the data set"),
        (("train", "test"), {"test_fraction": 0.3}, "test_fraction is 0.3 and the data set has a test split"),
    ],
)  # fmt: skip
def test_what_is_refused(splits, keys, words):
    with pytest.raises(UserError) as error:
        choose(*splits, **keys)
    assert str(error.value).startswith(words)


def test_a_split_without_labels_cannot_be_named():
    with pytest.raises(UserError, match="no row of split test of d has a label: set test_split"):
        choose("train", unlabelled=("test",), test_split="test")


def test_what_a_finished_model_is_scored_on():
    def score(*splits: str, **keys: object) -> str:
        return split_to_score(found(*splits), DataArguments("d", **keys))

    assert score("train", "validation", "test") == "test" and score("train", "val") == "val"
    assert score("photos") == "photos" and score("a", "b", test_split="b") == "b"
    with pytest.raises(UserError, match="d has no test split: give one of a, b with --split"):
        score("a", "b")


# ---- cutting ------------------------------------------------------------------------------------


def shas(n: int, first: int = 0) -> list[str]:
    return [hashlib.sha256(str(first + i).encode()).hexdigest() for i in range(n)]


def test_without_copies_the_rows_are_those_of_datasets():
    """So that a run of an earlier version can be repeated, rows and order."""
    labels = [i % 4 for i in range(80)]
    features = Features({"label": ClassLabel(names=list("abcd")), "row": Value("int64")})
    rows = Dataset.from_dict({"label": labels, "row": range(80)}, features)
    for fraction, seed in ((0.05, 0), (0.2, 3), (0.1, 1)):
        parts = rows.train_test_split(test_size=fraction, stratify_by_column="label", seed=seed)
        kept, chosen, raised = cut(labels, shas(80), "abcd", fraction, seed, "f")
        assert (kept, chosen, raised) == (parts["train"]["row"], parts["test"]["row"], False)


def test_copies_are_on_one_side_and_nothing_is_lost():
    labels, content = [i % 2 for i in range(40)], shas(40)
    labels, content = labels * 3, content * 3
    kept, chosen, _ = cut(labels, content, "ab", 0.25, 0, "f")
    assert sorted(kept + chosen) == list(range(120)) and len(chosen) == 30
    assert not {content[i] for i in kept} & {content[i] for i in chosen}


def test_every_label_is_on_both_sides_however_rare():
    labels = [0] * 200 + [1] * 2 + [2] * 3
    kept, chosen, raised = cut(labels, shas(205), "abc", 0.05, 0, "f")
    assert Counter(labels[i] for i in chosen) == {0: 10, 1: 1, 2: 1} and raised
    assert set(Counter(labels[i] for i in kept)) == {0, 1, 2}
    assert cut(labels, shas(205), "abc", 0.05, 0, "f")[1] == chosen
    assert cut(labels, shas(205), "abc", 0.05, 1, "f")[1] != chosen


def test_a_large_share_leaves_one_of_each_label():
    labels = [0] * 3 + [1] * 3
    kept, chosen, _ = cut(labels, shas(6), "ab", 0.9, 0, "f")
    assert Counter(labels[i] for i in kept) == {0: 1, 1: 1} and len(chosen) == 4


def test_too_few_different_images_are_named_with_their_number():
    with pytest.raises(
        UserError, match=r"1 of 2 labels have fewer than 2 .* f needs: b \(1\); add"
    ):
        cut([0, 0, 1, 1], [*shas(2), "x", "x"], "ab", 0.5, 0, "f")
    with pytest.raises(UserError, match=r"fewer than 3 different images, .*: a \(2\), b \(0\)"):
        refuse_few([0, 0], shas(2), "ab", 3, "x")
    refuse_few([0, 0, 0], shas(3), "a", 3, "x")


def test_the_content_has_no_order_and_knows_labels():
    one = content_of("ab", [0, 1], ["x", "y"])
    assert one == content_of("ab", [1, 0], ["y", "x"]) == content_of("ba", [1, 0], ["x", "y"])
    assert one != content_of("ab", [1, 0], ["x", "y"]) != content_of("ab", [0], ["x"])


def test_a_small_data_set_selects_on_a_larger_share():
    assert [selection_fraction_of(n) for n in (75_750, 5_000, 4_999, 500, 499)] == [
        0.05, 0.05, 0.1, 0.1, 0.2,
    ]  # fmt: skip


def test_two_thousand_labels_of_three_images():
    labels = [i // 3 for i in range(6_000)]
    names = [str(i) for i in range(2_000)]
    kept, chosen, raised = cut(labels, shas(6_000), names, 0.01, 0, "f")
    assert (len(kept), len(chosen), raised) == (4_000, 2_000, True)
