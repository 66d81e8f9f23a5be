# SPDX-License-Identifier: Apache-2.0
"""What stops a run, or is left out and counted: twenty are shown, all are listed."""

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from tests.unit.data.tables import arguments
from tests.unit.toys import LABELS, jpeg, write_image_folder
from training.common.errors import UserError
from training.data.labels import Labelled
from training.data.loading import load_splits
from training.data.scan import Look
from training.data.usable import _two_labels, row_name


@pytest.fixture
def root(tmp_path) -> Path:
    return write_image_folder(tmp_path / "dishes", train=8, validation=4)


def stopped(root: Path, **keys: object) -> list[str]:
    with pytest.raises(UserError) as error:
        load_splits(arguments(root, **keys))
    return str(error.value).splitlines()


def test_all_are_counted_and_twenty_shown(root):
    for i in range(25):
        (root / "train" / "pizza" / f"bad-{i:02}.jpg").write_bytes(b"x")
    first, *rest = stopped(root)
    assert first.startswith("25 images of 61 files or rows cannot be used: repair them, or leave")
    assert len(rest) == 21 and rest[-1] == "  and 5 more"
    splits = load_splits(arguments(root, undecodable_images="skip"))
    assert splits.left_out == 25 and len(splits.inventory.left_out) == 25
    assert len(splits.train) + len(splits.selection) + len(splits.test) + 25 == 61


def test_the_same_bytes_under_two_labels_in_one_split(root):
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    (root / "train" / "cheesecake" / "twin.jpg").write_bytes(twin)
    first, *rest = stopped(root)
    assert first.startswith("2 images of 37")
    assert rest == [
        "  train/cheesecake/twin.jpg: the same bytes under two labels: train/pizza/0.jpg (pizza) too",
        "  train/pizza/0.jpg: the same bytes under two labels: train/cheesecake/twin.jpg (cheesecake) too",
    ]
    splits = load_splits(arguments(root, undecodable_images="skip"))
    assert splits.left_out == 2 and len(splits.originals) + len(splits.selection) == 23


def test_the_same_bytes_under_two_labels_in_two_splits(root):
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    (root / "validation" / "cheesecake" / "twin.jpg").write_bytes(twin)
    _, *rest = stopped(root)
    assert len(rest) == 2 and "validation/cheesecake/twin.jpg" in rest[0] + rest[1]
    splits = load_splits(arguments(root, undecodable_images="skip"))
    assert (splits.left_out, splits.test.left_out, splits.identical_train_test) == (1, 1, 0)


def test_a_whole_label_of_photographs_that_cannot_be_read_stops_in_any_case(root):
    """A phone's HEIC: it vanished, and the model never heard of the dish."""
    for i in range(5):
        path = root / "train" / "sushi" / f"IMG_{i}.HEIC"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    assert len(stopped(root)) == 6
    (only,) = stopped(root, undecodable_images="skip")
    assert only.startswith("no image of sushi in split train can be used (train/sushi/IMG_0.HEIC: ")


def test_a_label_whose_rows_have_none_left_in_the_test_split(root):
    for path in (root / "validation" / LABELS[0]).iterdir():
        path.write_bytes(b"x")
    (only,) = stopped(root, undecodable_images="skip")
    assert f"no image of {LABELS[0]} in split validation can be used" in only


def test_a_name_for_a_person():
    assert (
        row_name("a/b.jpg", 3, "train") == "a/b.jpg"
        and row_name("", 3, "train") == "row 3 of train"
    )


def test_copies_under_one_label_are_used(root):
    (root / "train" / "pizza" / "copy.jpg").write_bytes(
        (root / "train" / "pizza" / "0.jpg").read_bytes()
    )
    (root / "train" / "pizza" / "other.jpg").write_bytes(jpeg(4711))
    splits = load_splits(arguments(root))
    assert len(splits.train) + len(splits.selection) == 26 and splits.left_out == 0


def test_many_copies_under_two_labels(monkeypatch):
    """As of links to one photograph: of a hundred thousand, comparing each with each took hours."""
    n = 20_000
    rows = Dataset.from_dict(
        {"image": [None] * n, "label": [0] * (n // 2) + [1] * (n // 2)},
        features=Features({"image": Image(decode=False), "label": ClassLabel(names=["a", "b"])}),
    )
    labelled = Labelled(["a", "b"], {"train": rows}, {"train": []}, ())
    faults = _two_labels(labelled, {"train": [Look("x", "", 1)] * n}, {"train": [""] * n})
    assert len(faults) == n
    assert faults["train", 0].reason.endswith(f": row {n // 2} of train (b) too")


def test_a_name_with_a_line_break_takes_one_line(root):
    (root / "train" / "pizza" / "a\nb.jpg").write_bytes(b"x")
    assert len(stopped(root)) == 2
