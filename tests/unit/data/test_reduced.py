# SPDX-License-Identifier: Apache-2.0
"""Reduced training images: what is written, what names a cache, and what training does with it."""

import json

import datasets
import pytest
from datasets import Dataset, load_dataset

from inference.food_images import decode_image
from tests.unit.toys import LABELS, images, jpeg, originals, tiny_network, write_image_folder
from training.cli import main as cli
from training.common.errors import UserError
from training.data import reduced as cache
from training.data.arguments import DataArguments
from training.data.loading import load_split, load_splits
from training.data.reduced import find_or_build
from training.data.shards import reduce_short_side
from training.data.splits import encoded_bytes
from training.run.record import warn_of_small_images

pytestmark = pytest.mark.usefixtures("place")
SHORT = 20  # the pictures of the folder are 40 x 36


# ---- a whole cache ----------------------------------------------------------------------------


def test_rows_labels_and_record(split):
    made = find_or_build(split, SHORT)
    dataset = made.open()
    assert images(dataset) == [reduce_short_side(data, SHORT) for data in originals(split)]
    assert dataset["label"] == split.dataset["label"]
    assert dataset.features["label"].names == LABELS
    assert [row["image"]["path"] for row in dataset][:2] == ["0.jpg", "1.jpg"]
    assert dataset.cache_files[0]["filename"] == str(made.folder / "mapped.arrow")
    record = json.loads((made.folder / "cache.json").read_text())
    assert (record["num_images"], record["num_kept"], len(record["shards"])) == (24, 1, 6)
    assert record["source_bytes"] == sum(map(len, originals(split)))
    assert record["image_bytes"] == sum(map(len, images(dataset)))
    assert "pillow" in record["made_with"][0]
    assert made.summary()["short_side"] == SHORT
    assert sorted(p.name for p in made.folder.iterdir() if p.suffix != ".parquet") == [
        ".lock",
        "cache.json",
        "mapped.arrow",
    ]


def test_anyone_can_read_the_parquet(split, tmp_path):
    made = find_or_build(split, SHORT)
    files = sorted(map(str, made.folder.glob("*.parquet")))
    dataset = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "other"))["train"]
    assert dataset.features["image"] == datasets.Image()
    assert dataset.features["label"].names == LABELS
    assert dataset["label"] == split.dataset["label"]
    assert images(dataset.cast_column("image", datasets.Image(decode=False))) == images(made.open())


def test_no_path_of_this_machine_is_in_it(split, tmp_path, dishes):
    for file in find_or_build(split, SHORT).folder.iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content and str(dishes).encode() not in content


def test_the_second_time_nothing_is_done(split, reduced):
    first = find_or_build(split, SHORT)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert len(reduced) == 24 and not first.was_there
    again = find_or_build(split, SHORT)
    again.open()
    assert again.was_there and (again.folder, again.record) == (first.folder, first.record)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    assert len(reduced) == 24


def test_several_processes_write_the_same(split, monkeypatch):
    alone = find_or_build(split, SHORT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(alone.folder.parents[1] / "2"))
    monkeypatch.setattr(cache, "usable_cores", lambda: 3)
    together = find_or_build(split, SHORT)
    assert together.folder != alone.folder
    for file in alone.folder.glob("0*.parquet"):
        assert (together.folder / file.name).read_bytes() == file.read_bytes()


def test_other_content_another_folder(split, dishes, tmp_path, monkeypatch):
    folders = [find_or_build(split, SHORT).folder, find_or_build(split, SHORT + 1).folder]
    other = write_image_folder(tmp_path / "dishes", train=8, validation=2)
    (other / "train" / "pizza" / "0.jpg").write_bytes(jpeg(99))
    folders.append(find_or_build(load_split(arguments(other), "train")[1], SHORT).folder)
    # The same images and names; the numbers of the labels differ.
    turned = load_split(arguments(dishes), "train", ["pizza", "cheesecake", "cheese_plate"])[1]
    assert turned.fingerprint == split.fingerprint
    made = find_or_build(turned, SHORT)
    folders.append(made.folder)
    assert made.open()["label"] == turned.dataset["label"] != split.dataset["label"]
    monkeypatch.setattr(cache, "QUALITY", 91)
    folders.append(find_or_build(split, SHORT).folder)
    assert len(set(folders)) == 5


# ---- in training ------------------------------------------------------------------------------


def arguments(dataset: object, **values: object) -> DataArguments:
    return DataArguments(dataset=str(dataset), selection_fraction=0.25, **values)


def content(dataset: Dataset) -> list[bytes]:
    return [encoded_bytes(row["image"]) for row in dataset]


def test_only_training_images_are_reduced_and_the_rows_are_the_same(dishes):
    plain, small = (
        load_splits(arguments(dishes)),
        load_splits(arguments(dishes, train_short_side=SHORT)),
    )
    assert content(small.selection.dataset) == content(plain.selection.dataset)
    assert content(small.test.dataset) == content(plain.test.dataset)
    expected = [reduce_short_side(data, SHORT) for data in content(plain.train)]
    assert content(small.train) == expected != content(plain.train)
    assert small.train["label"] == plain.train["label"]
    assert small.train.features == plain.train.features
    assert small.train_fingerprint == plain.train_fingerprint
    assert small.test.fingerprint == plain.test.fingerprint
    assert plain.train_cache is None
    assert small.train_cache["short_side"] == SHORT and small.train_cache["num_kept"] == 1
    assert min(min(decode_image(data).shape[:2]) for data in content(small.train)) <= SHORT


def test_images_that_are_left_out_are_not_in_it(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    (root / "train" / "pizza" / "1.jpg").write_text("not an image")
    values = {"undecodable_images": "skip"}
    plain = load_splits(arguments(root, **values))
    small = load_splits(arguments(root, train_short_side=SHORT, **values))
    assert small.left_out == 1 and small.train_cache["num_images"] == 11
    assert content(small.train) == [reduce_short_side(d, SHORT) for d in content(plain.train)]


@pytest.mark.parametrize("value", [0, -256])
def test_a_bad_short_side(value):
    with pytest.raises(UserError, match=f"train_short_side is {value}: give a number of pixels"):
        DataArguments(train_short_side=value)


def test_a_short_side_below_the_models_size_is_said(dishes, caplog):
    network = tiny_network()  # 32 pixels
    for short_side, count in ((None, 0), (32, 0), (31, 1)):
        caplog.clear()
        warn_of_small_images(load_splits(arguments(dishes, train_short_side=short_side)), network)
        assert len(caplog.messages) == count
    assert "train_short_side 31 is below the model's 32 pixels" in caplog.text


def test_the_command(dishes, place, capfd):
    words = ["cache", str(dishes), "--short_side", str(SHORT)]
    assert cli.main(words) == 0
    out = capfd.readouterr().out
    (where,) = place.glob("train-*")
    assert out.startswith(f"{where}\n24 images of split train: ") and "; 1 were no larger" in out
    assert out.endswith(f"--train_short_side {SHORT}\n")
    assert cli.main(words) == 0
    assert capfd.readouterr().out == out.replace(
        f"{where}\n", f"{where} was there already; nothing was done\n"
    )
    assert load_splits(arguments(dishes, train_short_side=SHORT)).train_cache["key"] in where.name
    assert list(place.glob("train-*")) == [where]


@pytest.mark.parametrize("words", [[], ["--short_side=0"], ["--short_side=x"]])
def test_the_command_needs_a_short_side(words, dishes, capfd):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["cache", str(dishes), *words])
    assert stopped.value.code == 2
    err = capfd.readouterr().err
    assert "--short_side" in err and err.count("\n") == 1
