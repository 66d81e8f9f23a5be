# SPDX-License-Identifier: Apache-2.0
"""A data set as three splits: labels by name, the slice, and what is left out."""

from collections import Counter
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Value

from tests.unit.data.tables import FOOD101_ORDER, arguments, dishes, hashes, write_parquet
from tests.unit.toys import LABELS, jpeg, write_image_folder
from training.common.errors import UserError
from training.data import sample
from training.data.loading import align_labels, load_split, load_splits
from training.data.splits import Source, Splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("folder") / "dishes", train=8, validation=2)


@pytest.fixture(scope="module")
def splits(folder) -> Splits:
    return load_splits(arguments(folder))


# ---- sources ----------------------------------------------------------------------------------


def test_a_folder_of_images(splits):
    assert (len(splits.train), len(splits.selection), len(splits.test)) == (18, 6, 6)
    assert splits.label_names == LABELS
    assert (splits.source.dataset, splits.source.kind, splits.source.revision) == (
        "dishes",
        "local",
        None,
    )
    assert splits.train.column_names == ["image", "label"]
    assert splits.identical_train_test == splits.left_out == splits.test.left_out == 0


def test_images_stay_encoded(splits, folder):
    image = splits.test.dataset[0]["image"]
    assert image["bytes"] is None
    assert image["path"] == str(folder / "validation" / LABELS[0] / "0.jpg")


def test_parquet_with_embedded_bytes(tmp_path):
    folder = write_parquet(
        tmp_path / "data", *dishes(ClassLabel(names=FOOD101_ORDER), [0, 1, 2] * 4)
    )
    splits = load_splits(arguments(folder))
    assert splits.label_names == FOOD101_ORDER  # the file's order, not the sorted one
    assert splits.test.dataset[0]["image"]["bytes"] == jpeg(0)
    assert splits.identical_train_test == 12  # both splits were written from the same rows


def test_one_parquet_file_is_one_split(tmp_path):
    folder = write_parquet(
        tmp_path / "data", *dishes(ClassLabel(names=FOOD101_ORDER), [0, 1, 2] * 4)
    )
    file = folder / "train-00000-of-00001.parquet"
    _, split = load_split(arguments(file), "train")
    assert len(split) == 12
    with pytest.raises(UserError, match="has no split validation: it has train"):
        load_splits(arguments(file))


def test_string_labels_are_sorted(tmp_path):
    folder = write_parquet(tmp_path / "data", *dishes(Value("string"), FOOD101_ORDER * 4))
    splits = load_splits(arguments(folder))
    assert splits.label_names == LABELS
    assert splits.test.dataset["label"][:3] == [1, 0, 2]


def test_a_missing_split_lists_those_that_are_there(folder):
    with pytest.raises(
        UserError, match="no split test: it has train, validation; set .*test_split"
    ):
        load_splits(arguments(folder, test_split="test"))


def test_reporting_on_the_training_split_is_refused(folder):
    with pytest.raises(UserError, match="train_split and test_split are both train"):
        load_splits(arguments(folder, test_split="train"))


def test_the_sample(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(sample, "IMAGES_PER_CLASS", {"train": 2, "validation": 1})
    splits = load_splits(arguments("sample", selection_fraction=0.5))
    assert (len(splits.train), len(splits.selection), len(splits.test)) == (10, 10, 10)
    assert splits.label_names == sample.SAMPLE_LABELS
    assert splits.source == Source("sample", "sample", None)


# ---- labels -----------------------------------------------------------------------------------


def test_splits_with_different_labels_are_refused(tmp_path):
    folder = write_parquet(tmp_path / "data", *dishes(Value("string"), FOOD101_ORDER * 4))
    other = write_parquet(tmp_path / "other", *dishes(Value("string"), ["pizza", "ramen"] * 4))
    (other / "validation-00000-of-00001.parquet").replace(
        folder / "validation-00000-of-00001.parquet"
    )
    with pytest.raises(
        UserError, match="3 against 2 labels; .*first: cheese_plate, cheesecake; .*second: ramen"
    ):
        load_splits(arguments(folder))


def test_a_label_that_only_the_test_folder_has_is_refused(tmp_path):
    """imagefolder numbers the labels of all splits together, so the lists of names agree."""
    root = write_image_folder(tmp_path / "dishes")
    (root / "validation" / "pizza").rename(root / "validation" / "ramen")
    with pytest.raises(UserError, match="have different labels: train has no image of ramen"):
        load_splits(arguments(root))


def test_labels_are_aligned_by_name(folder):
    """food101 has cheesecake (16) before cheese_plate (17); a folder sorts them the other way."""
    plain = load_split(arguments(folder), "validation")[1]
    aligned = load_split(arguments(folder), "validation", FOOD101_ORDER)[1]
    assert plain.label_names == LABELS and aligned.label_names == FOOD101_ORDER
    assert plain.dataset["label"] == [0, 0, 1, 1, 2, 2]
    assert aligned.dataset["label"] == [1, 1, 0, 0, 2, 2]
    for a, b in zip(plain.dataset, aligned.dataset, strict=True):
        assert a["image"] == b["image"]
        assert plain.label_names[a["label"]] == aligned.label_names[b["label"]]
        assert Path(a["image"]["path"]).parent.name == plain.label_names[a["label"]]
    assert plain.fingerprint == aligned.fingerprint  # names count, numbers do not


def test_labels_that_are_not_the_models_are_refused(folder):
    dataset = load_split(arguments(folder), "validation")[1].dataset
    assert align_labels(dataset, LABELS) is dataset
    with pytest.raises(UserError, match="3 against 4 labels; only in the first: none; .*: sushi"):
        align_labels(dataset, [*LABELS, "sushi"])
    with pytest.raises(UserError, match="only in the first: pizza; only in the second: sushi"):
        align_labels(dataset, [*LABELS[:2], "sushi"])


# ---- the selection slice ----------------------------------------------------------------------


def test_the_slice_is_stratified_disjoint_and_complete(splits, folder):
    assert Counter(splits.selection.dataset["label"]) == {0: 2, 1: 2, 2: 2}
    assert Counter(splits.train["label"]) == {0: 6, 1: 6, 2: 6}
    train, selection = hashes(splits.train), hashes(splits.selection.dataset)
    assert not set(train) & set(selection)
    everything = load_split(arguments(folder), "train")[1]
    assert sorted(train + selection) == sorted(hashes(everything.dataset))


def test_the_slice_depends_on_its_seed_only(splits, folder):
    again = load_splits(arguments(folder))
    assert hashes(again.selection.dataset) == hashes(splits.selection.dataset)
    assert hashes(again.train) == hashes(splits.train)
    other = load_splits(arguments(folder, split_seed=1))
    assert hashes(other.selection.dataset) != hashes(splits.selection.dataset)
    assert other.train_fingerprint == splits.train_fingerprint


def test_the_slice_is_the_one_that_datasets_cuts(splits, folder):
    """Rows and their order: a run of an earlier version can be repeated."""
    everything = load_split(arguments(folder), "train")[1].dataset
    parts = everything.train_test_split(test_size=0.25, stratify_by_column="label", seed=0)
    assert hashes(splits.train) == hashes(parts["train"])
    assert hashes(splits.selection.dataset) == hashes(parts["test"])


def test_a_slice_too_small_for_the_labels_is_refused(folder):
    with pytest.raises(
        UserError, match="selection_fraction 0.05 of 24 images with 3 labels cannot"
    ):
        load_splits(arguments(folder, selection_fraction=0.05))


# ---- the scan ---------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path) -> Path:
    """The second pizza of train is cut short, the first cheesecake of validation is no image."""
    root = write_image_folder(tmp_path / "dishes")
    pizza = root / "train" / "pizza" / "1.jpg"
    pizza.write_bytes(pizza.read_bytes()[:-200])
    (root / "validation" / "cheesecake" / "0.jpg").write_text("not an image")
    return root


def test_an_undecodable_image_stops_before_the_first_step(damaged):
    with pytest.raises(UserError) as error:
        load_splits(arguments(damaged))
    message = str(error.value)
    assert "image 9 of split train" in message
    assert str(damaged / "train" / "pizza" / "1.jpg") in message
    assert "truncated" in message and "1 such images" in message and "skip" in message


def test_undecodable_images_are_left_out_and_counted(damaged):
    splits = load_splits(arguments(damaged, undecodable_images="skip"))
    assert (splits.left_out, splits.test.left_out) == (1, 1)
    assert len(splits.train) + len(splits.selection) == 11 and len(splits.test) == 5
    paths = [row["image"]["path"] for row in splits.test.dataset]
    assert str(damaged / "validation" / "cheesecake" / "0.jpg") not in paths


def test_a_row_without_an_image(tmp_path):
    rows, features = dishes(ClassLabel(names=FOOD101_ORDER), [0, 1, 2] * 4)
    rows["image"][4] = None
    folder = write_parquet(tmp_path / "data", rows, features)
    with pytest.raises(
        UserError, match=r"image 4 of split train \(no path\): the row has no image"
    ):
        load_splits(arguments(folder))
    assert load_splits(arguments(folder, undecodable_images="skip")).test.left_out == 1


def test_nothing_left_is_refused(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    for path in (root / "train").rglob("*.jpg"):
        path.write_text("not an image")
    with pytest.raises(UserError, match="split train of .* has no image that can be decoded"):
        load_splits(arguments(root, undecodable_images="skip"))


def test_identical_images_in_train_and_test_are_counted(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    (root / "validation" / "pizza" / "0.jpg").write_bytes(twin)
    assert load_splits(arguments(root)).identical_train_test == 1


def test_two_copies_of_a_test_image_count_twice(tmp_path):
    """The field says: test images with a byte-identical training image."""
    root = write_image_folder(tmp_path / "dishes")
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    for i in range(2):
        (root / "validation" / "pizza" / f"{i}.jpg").write_bytes(twin)
    assert load_splits(arguments(root)).identical_train_test == 2
