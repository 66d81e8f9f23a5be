# SPDX-License-Identifier: Apache-2.0
"""Folders for labels: which level is which, and what lies beside."""

from pathlib import Path

import pytest

from tests.unit.data.layouts.made import deeper, found_counts, photo, photos, write
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.layouts.folders import read_label_folders
from training.data.layouts.walk import walk
from training.data.sources import load_source


def test_what_lies_beside_labels_and_splits_is_named(tmp_path):
    root = deeper(tmp_path / "d", photos())
    for name in ("loose.jpg", "train/loose.jpg", "extra/pizza/1.jpg", "train/notes.txt"):
        write(root / name, photo(1))
    found = read_label_folders(walk(root), "")
    assert found.layout == "test/ and train/ with a folder for each label"
    assert {each.path: each.reason for each in found.left_out} == {
        "loose.jpg": "in no folder of a split",
        "train/loose.jpg": "in no folder of a label",
        "extra/pizza/1.jpg": "in no folder of a split",
        "train/notes.txt": "no image",
    }
    assert found.num_found() == 21 + 4


def test_the_first_folder_below_the_split_is_the_label(tmp_path):
    root = tmp_path / "d"
    for split in ("train", "test"):
        for place in ("pizza/phone", "pizza/camera", "ramen/camera/2024"):
            write(root / split / place / "1.jpg", photo(1))
    assert found_counts(root) == {s: {"pizza": 2, "ramen": 1} for s in ("train", "test")}


def test_empty_label_folders_are_told_of_used_splits(tmp_path):
    root = tmp_path / "d"
    for place in ("train/pizza", "train/ramen", "test/pizza"):
        write(root / place / "1.jpg", photo(1))
    (root / "train" / "sushi" / "deeper").mkdir(parents=True)
    (root / "annotations").mkdir()
    found = read_label_folders(walk(root), "")
    assert found.empty_labels == (("train", "train/sushi"),)


def test_one_label_in_two_spellings_is_one(tmp_path):
    for folder in ("train/cre\u0300me", "train/cr\u00e8me", "train/b", "test/cr\u00e8me", "test/b"):
        write(tmp_path / "d" / folder / "1.jpg", photo(1))
    assert found_counts(tmp_path / "d")["train"] == {"cr\u00e8me": 2, "b": 1}


def test_paths_are_told_relative_to_the_data_set(tmp_path):
    root = deeper(tmp_path / "d", photos())
    _, found = load_source(DataArguments(dataset=str(root)))
    assert found.root == root.resolve()


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as error:
        found_counts(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def lay_out(root: Path, *files: str) -> Path:
    for i, name in enumerate(files):
        write(root / name, photo(i))
    return root


def test_flat_test_images_beside_labels_are_no_label(tmp_path):
    root = lay_out(tmp_path / "d", "pizza/1.jpg", "sushi/1.jpg", "test/1.jpg")
    assert "test/ lies beside pizza/, sushi/ and may be a split or a label" in refusal(root)


def test_splits_below_labels_survive_a_loose_image(tmp_path):
    below = [f"{label}/{split}/1.jpg" for label in "ab" for split in ("train", "test")]
    root = lay_out(tmp_path / "d", *below, "cover.jpg", "a/loose.jpg", "a/phone/2.jpg")
    assert found_counts(root) == {s: {"a": 1, "b": 1} for s in ("train", "test")}
    _, found = load_source(DataArguments(dataset=str(root)))
    loose = ["a/loose.jpg", "a/phone/2.jpg", "cover.jpg"]
    assert [each.path for each in found.left_out] == loose


def test_a_split_below_one_label_only_is_a_question(tmp_path):
    root = lay_out(tmp_path / "d", "data/train/a/1.jpg", "data/train/b/1.jpg", "docs/figure.png")
    assert "data/train/ is named like a split, and docs/ has none" in refusal(root)


def test_splits_that_are_not_called_so_are_a_question(tmp_path):
    """Kaggle's training_set/cats and test_set/cats: two labels were trained, train and test."""
    sets = [f"{s}/{n}/1.jpg" for s in ("training_set", "test_set") for n in ("cats", "dogs")]
    root = lay_out(tmp_path / "d", *sets, "single_prediction/1.jpg")
    assert "training_set and test_set may be splits or labels" in refusal(root)
    root = lay_out(tmp_path / "e", "bullet_train/1.jpg", "test kitchen/1.jpg")
    assert found_counts(root) == {"train": {"bullet_train": 1, "test kitchen": 1}}


def test_a_label_without_an_image_makes_no_wrapper_of_the_other(tmp_path):
    root = lay_out(tmp_path / "d", "pizza/camera/1.jpg", "pizza/phone/2.jpg", "sushi/notes.txt")
    assert found_counts(root) == {"train": {"pizza": 2}}
    found = load_source(DataArguments(dataset=str(root)))[1]
    assert found.empty_labels == (("train", "sushi"),)
    root = lay_out(tmp_path / "e", "in/train/a/1.jpg", "in/train/b/2.jpg", "docs/notes.txt")
    assert found_counts(root) == {"train": {"a": 1, "b": 1}}
