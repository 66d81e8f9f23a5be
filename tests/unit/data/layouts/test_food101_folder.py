# SPDX-License-Identifier: Apache-2.0
"""The folder of Food-101's authors: lists decide, classes.txt numbers the labels."""

import pytest

from tests.unit.data.layouts.made import (
    LABELS,
    counts_of,
    food101_folder,
    found_counts,
    photo,
    photos,
    write,
)
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.labels import name_labels
from training.data.sources import load_source


def test_labels_are_in_the_order_of_classes_txt(tmp_path):
    root = food101_folder(tmp_path / "d", photos())
    args = DataArguments(dataset=str(root))
    _, found = load_source(args)
    assert name_labels(found, ["train", "test"], args).names == LABELS[::-1]
    write(root / "meta" / "classes.txt", b"others\n")  # of something else: sorted
    _, found = load_source(args)
    assert name_labels(found, ["train", "test"], args).names == LABELS


def test_what_is_listed_and_not_there_and_the_reverse(tmp_path):
    root = food101_folder(tmp_path / "d", photos())
    (root / "images" / LABELS[0] / "00.jpg").unlink()
    write(root / "images" / LABELS[0] / "new.jpg", photo(1))
    write(root / "README.txt", b"x")
    _, found = load_source(DataArguments(dataset=str(root)))
    assert [(e.path, e.reason) for e in found.faults] == [
        (f"images/{LABELS[0]}/00", "in meta/train.txt and not there")
    ]
    assert {e.path: e.reason for e in found.left_out} == {
        f"images/{LABELS[0]}/new.jpg": "in no list of meta/",
        "README.txt": "no image",
        **{f"meta/{name}.txt": "no image" for name in ("classes", "train", "test")},
    }


def test_a_damaged_list_is_named(tmp_path):
    root = food101_folder(tmp_path / "d", photos(), "json")
    write(root / "meta" / "train.json", b"[")
    with pytest.raises(UserError, match="train.json is no list of Food-101"):
        load_source(DataArguments(dataset=str(root)))


def test_the_list_of_labels_may_be_damaged_or_say_one_twice(tmp_path):
    root = food101_folder(tmp_path / "d", photos())
    args = DataArguments(dataset=str(root))
    write(root / "meta" / "classes.txt", "\n".join([*LABELS[::-1], LABELS[0]]).encode())
    _, found = load_source(args)
    assert name_labels(found, ["train", "test"], args).names == LABELS[::-1]
    write(root / "meta" / "classes.txt", b"cr\xe8me\n")
    with pytest.raises(UserError, match="classes.txt is no list of Food-101"):
        load_source(args)


def test_as_torchvision_leaves_it(tmp_path):
    """The archive stays beside what came out of it."""
    root, each = tmp_path / "d", photos()
    food101_folder(root, each, "json", "food-101")
    for name in ("food-101.tar.gz", "food-101/license_agreement.txt", "food-101/README.txt"):
        write(root / name, b"x")
    assert found_counts(root) == counts_of(each)
    _, found = load_source(DataArguments(dataset=str(root)))
    assert "food-101.tar.gz" in {e.path for e in found.left_out}
