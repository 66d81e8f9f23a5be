# SPDX-License-Identifier: Apache-2.0
"""A data set as three splits: labels by name, the slice, and what is left out."""

import logging
from collections import Counter
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Value

from tests.unit.data.tables import FOOD101_ORDER, arguments, dishes, hashes, write_parquet
from tests.unit.toys import LABELS, jpeg, write_image_folder
from training.common.errors import UserError
from training.data import sample
from training.data.arguments import DataArguments
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
    assert len(split) == 12 and split.cut is None
    splits = load_splits(arguments(file))
    assert (len(splits.train), len(splits.selection), len(splits.test)) == (6, 3, 3)
    assert splits.test.cut.of == "train" and splits.test.name == "test"


def test_string_labels_are_sorted(tmp_path):
    folder = write_parquet(tmp_path / "data", *dishes(Value("string"), FOOD101_ORDER * 4))
    splits = load_splits(arguments(folder))
    assert splits.label_names == LABELS
    assert splits.test.dataset["label"][:3] == [1, 0, 2]


def test_a_missing_split_lists_those_that_are_there(folder):
    for key in ("train_split", "test_split", "selection_split"):
        with pytest.raises(UserError, match=f"no split x: it has train, validation; set {key}"):
            load_splits(arguments(folder, **{key: "x"}))


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
    words = "train has no image of ramen; only train has cheese_plate, cheesecake"
    with pytest.raises(UserError, match=words):
        load_splits(arguments(folder))


def test_a_label_that_only_the_test_folder_has_is_refused(tmp_path):
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
    assert align_labels(dataset, ["sushi", *LABELS])["label"] == [1, 1, 2, 2, 3, 3]
    with pytest.raises(UserError, match="3 against 3; the model does not know pizza"):
        align_labels(dataset, [*LABELS[:2], "sushi"])


def test_labels_of_the_model_without_an_image_are_said(folder, caplog):
    caplog.set_level(logging.INFO)
    load_split(arguments(folder), "validation", [*LABELS, "sushi"])
    assert "validation has no image of 1 of the model's 4 labels: sushi" in caplog.text


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


def test_a_slice_too_small_for_the_labels_is_raised_aloud(folder, caplog):
    caplog.set_level(logging.INFO)
    splits = load_splits(arguments(folder, selection_fraction=0.05))
    assert Counter(splits.selection.dataset["label"]) == {0: 1, 1: 1, 2: 1}
    assert (
        "selection_fraction 0.05 is too small for an image of each of 3 labels: raised"
        in caplog.text
    )


# ---- which split is what ------------------------------------------------------------------------


def three(root: Path) -> Path:
    """train, validation and test, whose images are all different."""
    write_image_folder(root, train=6, validation=2)
    for i, label in enumerate(LABELS * 3):
        path = root / "test" / label / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(900 + i))
    return root


def test_three_splits_are_used_as_they_are_called(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    splits = load_splits(arguments(three(tmp_path / "d"), selection_fraction=None))
    assert (len(splits.train), len(splits.selection), len(splits.test)) == (18, 6, 9)
    assert (splits.selection.name, splits.test.name) == ("validation", "test")
    assert splits.selection_fraction is None
    assert "train: split train; selection: split validation; test: split test" in caplog.text


def test_a_split_that_is_not_used_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = three(tmp_path / "d")
    splits = load_splits(arguments(root, selection_fraction=None, test_split="validation"))
    assert (splits.test.name, splits.selection.name) == ("validation", "selection")
    assert splits.inventory.unused == {"test": 9}
    assert "split test (9 rows) is not used" in caplog.text


def test_test_images_without_labels_are_no_test(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = write_image_folder(tmp_path / "d", train=8)
    for i in range(3):
        (root / "test").mkdir(exist_ok=True)
        (root / "test" / f"{i}.jpg").write_bytes(jpeg(900 + i))
    splits = load_splits(arguments(root))
    assert (splits.test.name, splits.selection.name) == ("validation", "selection")
    assert "no row of test has a label: it is not scored" in caplog.text


# ---- a test split that is cut -------------------------------------------------------------------


@pytest.fixture
def one_folder(tmp_path) -> Path:
    """LABEL/N.jpg."""
    root = write_image_folder(tmp_path / "d", train=10, validation=1) / "train"
    return root.rename(tmp_path / "dishes")


def test_a_folder_of_labels_is_enough(one_folder, caplog):
    caplog.set_level(logging.INFO)
    splits = load_splits(DataArguments(dataset=str(one_folder)))
    assert Counter(splits.test.dataset["label"]) == {0: 2, 1: 2, 2: 2}  # a fifth
    assert (len(splits.train), len(splits.selection)) == (19, 5)
    parts = [hashes(part) for part in (splits.train, splits.selection.dataset, splits.test.dataset)]
    assert len(set(sum(parts, []))) == 30
    assert (
        "no test split: 6 of the 30 images of train are kept back as test (test_fraction 0.2"
        in (caplog.text)
    )


def test_the_cut_is_by_content_and_seed(one_folder):
    """Files may be renamed, and lie elsewhere."""
    args = arguments(one_folder, test_fraction=0.3)
    before = load_splits(args)
    for i, path in enumerate(sorted(one_folder.rglob("*.jpg"))):
        path.rename(path.with_name(f"{(7 * i) % 30:02}-new.jpg"))
    after = load_splits(args)
    assert sorted(after.test.content) == sorted(before.test.content)
    assert after.test.cut == before.test.cut
    other = load_splits(arguments(one_folder, test_fraction=0.3, split_seed=1))
    assert sorted(other.test.content) != sorted(before.test.content)


def test_the_cut_is_made_again_from_its_record(one_folder):
    made = load_splits(arguments(one_folder, test_fraction=0.3, split_seed=4)).test
    _, again = load_split(DataArguments(dataset=str(one_folder)), None, LABELS, made.cut)
    assert again.fingerprint == made.fingerprint and again.content == made.content
    (one_folder / "pizza" / "new.jpg").write_bytes(jpeg(999))
    with pytest.raises(UserError, match="is not what the test images were cut from: images were"):
        load_split(DataArguments(dataset=str(one_folder)), None, LABELS, made.cut)


def test_equal_files_stay_together(one_folder):
    for label in LABELS:
        for i in range(10):
            data = (one_folder / label / f"{i}.jpg").read_bytes()
            (one_folder / label / f"copy-{i}.jpg").write_bytes(data)
    splits = load_splits(arguments(one_folder))
    parts = [set(p.content) for p in (splits.originals, splits.selection, splits.test)]
    assert sum(map(len, parts)) == 30 and not set.intersection(*parts)
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert splits.identical_train_test == 0


def test_a_label_needs_three_different_images(one_folder):
    for path in sorted((one_folder / "pizza").iterdir())[1:]:
        path.write_bytes((one_folder / "pizza" / "0.jpg").read_bytes())
    with pytest.raises(
        UserError, match=r"1 of 3 labels have fewer than 3 different .*: pizza \(1\)"
    ):
        load_splits(arguments(one_folder))


def test_one_label_is_no_data_set(tmp_path):
    for i in range(5):
        path = tmp_path / "d" / "pizza" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    with pytest.raises(UserError, match=r"has one label \(pizza\)"):
        load_splits(arguments(tmp_path / "d"))


def test_a_label_folder_without_an_image_stops(one_folder):
    (one_folder / "ramen" / "deeper").mkdir(parents=True)
    (one_folder / "ramen" / "notes.txt").write_text("later")
    with pytest.raises(UserError, match="^1 label folder without an image: ramen; add images"):
        load_splits(arguments(one_folder))


# ---- the scan ---------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path) -> Path:
    """The second pizza of train is cut short, the first cheesecake of validation is no image."""
    root = write_image_folder(tmp_path / "dishes")
    pizza = root / "train" / "pizza" / "1.jpg"
    pizza.write_bytes(pizza.read_bytes()[:-200])
    (root / "validation" / "cheesecake" / "0.jpg").write_text("not an image")
    return root


def test_undecodable_images_stop_before_the_first_step(damaged):
    with pytest.raises(UserError) as error:
        load_splits(arguments(damaged))
    first, *rest = str(error.value).splitlines()
    assert first.startswith("2 images of 18 files or rows cannot be used") and "skip" in first
    assert (
        rest[0].startswith("  train/pizza/1.jpg: not a readable image") and "truncated" in rest[0]
    )
    assert rest[1].startswith("  validation/cheesecake/0.jpg: not a readable image")


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
    with pytest.raises(UserError, match="row 4 of train: the row has no image"):
        load_splits(arguments(folder))
    assert load_splits(arguments(folder, undecodable_images="skip")).test.left_out == 1


def test_nothing_left_is_refused(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    for path in (root / "train").rglob("*.jpg"):
        path.write_text("not an image")
    with pytest.raises(UserError, match="split train of .* has no image that can be used"):
        load_splits(arguments(root, undecodable_images="skip"))


def test_identical_images_in_train_and_test_are_counted(tmp_path, caplog):
    root = write_image_folder(tmp_path / "dishes")
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    (root / "validation" / "pizza" / "0.jpg").write_bytes(twin)
    caplog.set_level(logging.INFO)
    assert load_splits(arguments(root)).identical_train_test == 1
    assert "1 of the 6 test images are byte for byte training images too" in caplog.text


def test_two_copies_of_a_test_image_count_twice(tmp_path):
    """The field says: test images with a byte-identical training image."""
    root = write_image_folder(tmp_path / "dishes")
    twin = (root / "train" / "pizza" / "0.jpg").read_bytes()
    for i in range(2):
        (root / "validation" / "pizza" / f"{i}.jpg").write_bytes(twin)
    assert load_splits(arguments(root)).identical_train_test == 2
