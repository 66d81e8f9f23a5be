# SPDX-License-Identifier: Apache-2.0
"""Labels of all kinds go by name, or are refused."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found
from training.data.labels import Labelled, is_labelled, name_labels, text_of

NAMES = ["a", "b", "c"]


def piece(labels: list, feature: object, paths: list[str] | None = None) -> Dataset:
    images = [{"bytes": b"x", "path": p} for p in paths or [None] * len(labels)]
    features = Features({"image": Image(decode=False), "label": feature})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def name(splits: dict, order: tuple | None = None, **keys: object) -> Labelled:
    pieces = {s: each if isinstance(each, list) else [each] for s, each in splits.items()}
    found = Found("in memory", pieces, label_order=order)
    return name_labels(found, list(splits), DataArguments("d", **keys))


def texts(labelled: Labelled, split: str) -> list[str]:
    return [labelled.names[i] for i in labelled.splits[split]["label"]]


STRING, NUMBER = Value("string"), Value("int64")


@pytest.mark.parametrize(
    "other",
    [
        piece(["c", "a"], STRING),
        piece([0, 2], ClassLabel(names=["c", "b", "a"])),
        piece([1, 0], ClassLabel(names=["a", "c"])),  # a list that is a subset
        [piece(["c"], STRING), piece([0], ClassLabel(names=["a"]))],
    ],
)
def test_two_splits_that_number_their_classes_differently(other):
    for first in (piece([0, 1, 2], ClassLabel(names=NAMES)), piece(["b", "a", "c"], STRING)):
        labelled = name({"train": first, "validation": other})
        assert labelled.names == NAMES
        assert texts(labelled, "validation") == ["c", "a"]
        assert labelled.splits["validation"].features["label"].names == NAMES


def test_the_order_is_the_first_splits(caplog):
    labelled = name(
        {"train": piece(["b", "c"], STRING), "test": piece([0, 1], ClassLabel(names=["c", "b"]))}
    )
    assert labelled.names == ["b", "c"] and texts(labelled, "test") == ["c", "b"]


def test_nothing_is_copied_where_the_numbers_are_right():
    first = piece([0, 1, 2], ClassLabel(names=NAMES))
    assert name({"train": first}).splits["train"] is first


def test_a_label_that_train_does_not_have_is_refused():
    for other in (piece(["c"], STRING), piece([1], ClassLabel(names=["a", "c"]))):
        with pytest.raises(UserError, match="train has no image of c; only train has (a, )?b"):
            name({"train": piece(["a", "b"], STRING), "test": other})


def test_names_without_an_image_are_left_out_aloud():
    labelled = name({"train": piece([0, 2], ClassLabel(names=NAMES))})
    assert labelled.names == ["a", "c"] and texts(labelled, "train") == ["a", "c"]
    assert "1 of 3 labels that the data set names have no image" in labelled.notes[0]


# ---- numbers ------------------------------------------------------------------------------------


def test_numbers_without_names_are_their_digits_aloud():
    labelled = name({"train": piece([10, 9, 2, 10], NUMBER)})
    assert labelled.names == ["2", "9", "10"] and texts(labelled, "train") == ["10", "9", "2", "10"]
    assert labelled.notes[0].startswith("labels are numbers without names and stay so (2, 9, 10)")


def test_whole_floats_are_numbers():
    """pandas makes them of numbers with a gap."""
    labelled = name({"train": piece([1.0, None, 0.0, float("nan")], Value("float64"))})
    assert labelled.names == ["0", "1"] and len(labelled.faults["train"]) == 2


@pytest.mark.parametrize("labels", [piece([2, 0], NUMBER), piece(["2", "0"], STRING)])
def test_label_names_name_them(labels, tmp_path):
    (tmp_path / "names.txt").write_text("pizza\nramen\ncrème brûlée\n\n", encoding="utf-8")
    for given in (["pizza", "ramen", "crème brûlée"], [str(tmp_path / "names.txt")]):
        labelled = name({"train": labels}, label_names=given)
        assert labelled.names == ["pizza", "crème brûlée"]
        assert texts(labelled, "train") == ["crème brûlée", "pizza"] and len(labelled.notes) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a", "b", "a"], "label_names has a twice"),
        (["a", ""], "label_names has an empty name"),
        (["nowhere.txt"], "label_names nowhere.txt cannot be read (No such file or directory)"),
    ],
)
def test_label_names_that_do_not_fit(given, words):
    with pytest.raises(UserError) as error:
        name({"train": piece([0], NUMBER)}, label_names=given)
    assert str(error.value).startswith(words)


def test_label_names_for_labels_that_have_names():
    with pytest.raises(UserError, match="label_names is given and d has names of its own"):
        name({"train": piece([0], ClassLabel(names=NAMES))}, label_names=["x", "y"])


def test_numbers_here_and_names_there_are_refused():
    for first, second in (
        (piece([0, 1], NUMBER), piece(["a"], STRING)),
        (piece([0], ClassLabel(names=NAMES)), piece([0], NUMBER)),
    ):
        with pytest.raises(UserError, match="some splits number their labels and some name them"):
            name({"train": first, "test": second})


def test_booleans_are_false_and_true():
    assert name({"train": piece([True, False], Value("bool"))}).names == ["false", "true"]


# ---- rows without a usable label ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "feature", "reason"),
    [
        (["a", None], STRING, "has no label"),
        (["a", " "], STRING, "has no label"),
        ([0, -1], ClassLabel(names=NAMES), "has no label"),
        ([0, None], ClassLabel(names=NAMES), "has no label"),
        ([0, -1], NUMBER, "has no label"),
        ([0, -7], NUMBER, "has an impossible label: -7"),
        ([1.0, 0.5], Value("float64"), "has a float as its label: 0.5"),
        ([[0], [1, 2]], List(NUMBER), "has a list as its label: [1, 2]"),
        ([{"x": "a"}, {"x": "b"}], {"x": STRING}, "has a dict as its label: {'x': 'b'}"),
    ],
)
def test_a_row_and_its_split_are_named(labels, feature, reason):
    labelled = name({"train": piece(labels, feature, ["/p/1.jpg", "/p/2.jpg"])})
    fault = labelled.faults["train"][-1]
    assert fault.path.endswith("2.jpg (row 1 of train)") and fault.reason == reason
    assert len(labelled.splits["train"]) == 2 - len(labelled.faults["train"])


def test_a_number_beyond_the_names():
    assert text_of(3, NAMES, None) == (None, "has a label without a name: 3 of 3")
    assert text_of(7, None, ["x"]) == (None, "has a label without a name: 7 of 1")


def test_rows_are_counted_through_all_pieces():
    splits = {"train": [piece(["a", "b"], STRING), piece(["a", None], STRING)]}
    assert name(splits).faults["train"][0].path == "row 3 of train"


def test_a_split_without_any_label():
    assert not is_labelled([piece([-1, -1], ClassLabel(names=NAMES)), piece([None], STRING)])
    assert is_labelled([piece([None], STRING), piece(["a"], STRING)])
    assert is_labelled([piece([0], ClassLabel(names=NAMES))])


def test_names_that_are_none_or_one_twice():
    labelled = name({"train": piece([0, 1, 2], ClassLabel(names=["a", "", "b"]))})
    assert labelled.names == ["a", "b"]
    assert [each.reason for each in labelled.faults["train"]] == [
        "has a label with an empty name: 1"
    ]
    twins = name({"train": piece([0, 1, 2], ClassLabel(names=["cre\u0300me", "cr\u00e8me", "b"]))})
    assert texts(twins, "train") == ["cr\u00e8me", "cr\u00e8me", "b"]


def test_a_digit_that_is_no_number():
    labelled = name({"train": piece(["\u00b2", "0"], STRING)}, label_names=["x", "y"])
    assert labelled.names == ["x", "\u00b2"]


def test_a_name_of_two_lines_is_refused():
    with pytest.raises(UserError, match=r"^label 'a\\nb' holds a line break") as error:
        name({"train": piece(["a\nb", "c"], STRING)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "labels", [[float("nan"), None], [-1.0, -1.0], ["", " \t"], [None, None]], ids=str
)
def test_what_is_no_label_labels_no_split(labels):
    feature = STRING if isinstance(labels[0], str) else Value("float64")
    assert not is_labelled([piece(labels, feature)])
