# SPDX-License-Identifier: Apache-2.0
"""The folder of Food-101's authors: lists decide, classes.txt numbers the labels."""

import pytest

from tests.unit.data.layouts.made import LABELS, food101_folder, photo, photos, write
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
