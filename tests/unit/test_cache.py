# SPDX-License-Identifier: Apache-2.0
"""Reduced training images: what is written, when it is made again, and who makes it."""

import errno
import io
import json
import logging
import multiprocessing
import os
import select
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image, JpegImagePlugin

from inference.food_classification import decode_image
from tests.unit.pictures import encode, exif, photo
from tests.unit.toys import LABELS, jpeg, tiny_network, write_image_folder
from training import cache, cli, run, shards
from training.cache import find_or_build
from training.config import DataArguments
from training.data import Split, load_split, load_splits
from training.errors import UserError
from training.shards import reduce_short_side

SHORT = 20  # the pictures of the folder are 40 x 36
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """24 training images, one of them too small to be reduced."""
    root = write_image_folder(tmp_path_factory.mktemp("folder") / "dishes", train=8, validation=2)
    (root / "train" / "pizza" / "7.jpg").write_bytes(jpeg(7, (18, 30)))
    return root


@pytest.fixture(scope="module")
def split(folder) -> Split:
    return load_split(DataArguments(dataset=str(folder)), "train")[1]


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path) -> Path:
    """An empty place for caches; shards of 4 rows, so that there are 6; one process."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    monkeypatch.setattr(shards, "GROUP_ROWS", 3)
    monkeypatch.setattr(cache, "_cores", lambda: 1)
    return tmp_path / "hf" / "vit-food101"


@pytest.fixture
def reduced(monkeypatch) -> list[bytes]:
    """Every image that is reduced in this process from here on."""
    seen = []
    real = reduce_short_side
    monkeypatch.setattr(
        shards, "reduce_short_side", lambda data, n: seen.append(data) or real(data, n)
    )
    return seen


def originals(split: Split) -> list[bytes]:
    return [Path(row["image"]["path"]).read_bytes() for row in split.dataset]


def images(dataset: Dataset) -> list[bytes]:
    return [row["image"]["bytes"] for row in dataset]


def difference(a: Image.Image, b: Image.Image) -> float:
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).mean()


# ---- one image --------------------------------------------------------------------------------


def test_what_is_written_for_an_image():
    picture = photo(48, 64)
    written = Image.open(io.BytesIO(reduce_short_side(encode(picture, "PNG"), 24)))
    reference = encode(picture.resize((32, 24), Image.Resampling.BICUBIC), quality=90)
    assert (written.format, written.mode, written.size) == ("JPEG", "RGB", (32, 24))
    assert difference(written, Image.open(io.BytesIO(reference))) < 1
    assert JpegImagePlugin.get_sampling(written) == 2  # 4:2:0
    assert written.quantization == Image.open(io.BytesIO(reference)).quantization


def test_an_image_is_written_upright():
    picture = photo(48, 64)
    data = reduce_short_side(encode(picture, exif=exif(6), quality=95), 24)
    written = Image.open(io.BytesIO(data))
    upright = encode(picture.transpose(Image.Transpose.ROTATE_270), quality=95)
    assert written.size == (24, 32) and not written.getexif()
    assert difference(written, Image.open(io.BytesIO(reduce_short_side(upright, 24)))) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_is_not_larger_keeps_its_bytes(kind):
    data = encode(photo(24, 64), kind)
    assert reduce_short_side(data, 24) is data and reduce_short_side(data, 500) is data
    assert reduce_short_side(data, 23) != data


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


def test_no_path_of_this_machine_is_in_it(split, tmp_path, folder):
    for file in find_or_build(split, SHORT).folder.iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content and str(folder).encode() not in content


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
    monkeypatch.setattr(cache, "_cores", lambda: 3)
    together = find_or_build(split, SHORT)
    assert together.folder != alone.folder
    for file in alone.folder.glob("0*.parquet"):
        assert (together.folder / file.name).read_bytes() == file.read_bytes()


def test_other_content_another_folder(split, folder, tmp_path, monkeypatch):
    folders = [find_or_build(split, SHORT).folder, find_or_build(split, SHORT + 1).folder]
    other = write_image_folder(tmp_path / "dishes", train=8, validation=2)
    (other / "train" / "pizza" / "0.jpg").write_bytes(jpeg(99))
    folders.append(find_or_build(load_split(arguments(other), "train")[1], SHORT).folder)
    # The same images and names; the numbers of the labels differ.
    turned = load_split(arguments(folder), "train", ["pizza", "cheesecake", "cheese_plate"])[1]
    assert turned.fingerprint == split.fingerprint
    made = find_or_build(turned, SHORT)
    folders.append(made.folder)
    assert made.open()["label"] == turned.dataset["label"] != split.dataset["label"]
    monkeypatch.setattr(cache, "QUALITY", 91)
    folders.append(find_or_build(split, SHORT).folder)
    assert len(set(folders)) == 5


# ---- half a cache -----------------------------------------------------------------------------


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_inside(path: Path) -> None:
    """The footer is whole: only the recorded size tells."""
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[200:])


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, cut_inside])
def test_a_damaged_shard_is_made_again(split, reduced, damage, caplog):
    made = find_or_build(split, SHORT)
    before = images(made.open())
    reduced.clear()
    damage(made.folder / "00002-of-00006.parquet")
    with caplog.at_level(logging.INFO, "training.cache"):
        again = find_or_build(split, SHORT)
    assert reduced == originals(split)[8:12]
    assert "1 of 6 shards are damaged and made again" in caplog.text
    assert images(again.open()) == before and find_or_build(split, SHORT).was_there


@pytest.mark.parametrize("damage", [Path.unlink, cut_short])
def test_a_damaged_copy_is_joined_again(split, reduced, damage):
    made = find_or_build(split, SHORT)
    before = images(made.open())
    reduced.clear()
    damage(made.folder / "mapped.arrow")
    assert images(find_or_build(split, SHORT).open()) == before and not reduced


def test_a_shard_that_is_found_damaged_while_joining_is_removed(split, place):
    made = find_or_build(split, SHORT)
    (made.folder / "mapped.arrow").unlink()
    shard = made.folder / "00002-of-00006.parquet"
    data = shard.read_bytes()
    shard.write_bytes(b"x" * 1000 + data[1000:])
    with pytest.raises(UserError, match="00002-of-00006.parquet was damaged and is removed"):
        find_or_build(split, SHORT)
    assert images(find_or_build(split, SHORT).open())[8:12] == [
        reduce_short_side(data, SHORT) for data in originals(split)[8:12]
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(split, place, monkeypatch, workers, reduced):
    """One line; what is whole stays, nothing else does, and it goes on from there."""
    monkeypatch.setattr(cache, "_cores", lambda: workers)
    real = os.replace

    def replace(source, target):
        if Path(target).name[:5] in ("00003", "00004", "00005"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError) as error:
        find_or_build(split, SHORT)
    message = str(error.value)
    assert "\n" not in message and "cannot be written (No space left on device): free" in message
    (where,) = place.iterdir()
    there = {path.name for path in where.iterdir()}
    assert there <= {".lock", *(f"0000{i}-of-00006.parquet" for i in range(3))} and len(there) > 1
    monkeypatch.setattr(os, "replace", real)
    monkeypatch.setattr(cache, "_cores", lambda: 1)
    reduced.clear()
    assert images(find_or_build(split, SHORT).open())[0] == reduce_short_side(
        reduced[0], SHORT
    ) or (len(reduced) == 24 - 4 * (len(there) - 1))


def test_a_place_that_cannot_be_used(split, place):
    place.parent.mkdir()
    place.write_text("a file in the way")
    with pytest.raises(UserError, match="cannot be written .*HF_DATASETS_CACHE"):
        find_or_build(split, SHORT)


def test_an_image_that_went_away(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    one = load_split(arguments(root), "train")[1]
    gone = root / "train" / "cheesecake" / "1.jpg"
    gone.unlink()
    with pytest.raises(UserError) as error:
        find_or_build(one, SHORT)
    assert f"image 5 of the training split ({gone})" in str(error.value)


def test_a_worker_that_is_killed(split, monkeypatch):
    monkeypatch.setattr(cache, "_cores", lambda: 2)
    monkeypatch.setattr(
        shards, "reduce_short_side", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(UserError, match="was killed .*run the same command again"):
        find_or_build(split, SHORT)


def test_the_progress_line(caplog, split):
    with caplog.at_level(logging.INFO, "training.cache"):
        cache._log_progress(iter([4, 4, 4]), 12, every_seconds=0)
    lines = caplog.text.splitlines()
    assert len(lines) == 2 and "reduced 4 of 12 images, " in lines[0] and " s left" in lines[0]


# ---- several processes ------------------------------------------------------------------------


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def build(split: Split, log: Path, cores: int, wait: Path | None, limit: int = 0) -> None:
    """In a process of its own: note what is said and reduced; pause after `limit` images."""
    torch.set_num_threads(1)
    handler = logging.FileHandler(log)
    logging.getLogger("training").addHandler(handler)
    logging.getLogger("training").setLevel(logging.INFO)
    notes, real = log.with_suffix(".reduced"), reduce_short_side

    def slow(data: bytes, short_side: int) -> bytes:
        with notes.open("a") as file:
            file.write(f"{os.getpid()}\n")
        while wait and not wait.exists() and len(notes.read_text().splitlines()) > limit:
            time.sleep(0.01)
        return real(data, short_side)

    shards.reduce_short_side = slow
    cache._cores = lambda: cores
    find_or_build(split, SHORT)


def reduced_by(log: Path) -> list[str]:
    notes = log.with_suffix(".reduced")
    return notes.read_text().split() if notes.exists() else []


def stop(process: multiprocessing.Process, log: Path) -> None:
    for pid in {process.pid, *map(int, reduced_by(log))}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.join(10)


def test_two_at_once_one_builds(split, tmp_path):
    first, second, go = tmp_path / "1.log", tmp_path / "2.log", tmp_path / "go"
    one = FORK.Process(target=build, args=(split, first, 1, go))
    two = FORK.Process(target=build, args=(split, second, 1, None))
    try:
        one.start()
        until(lambda: reduced_by(first))
        two.start()
        until(lambda: second.exists() and "waiting for it" in second.read_text())
        go.touch()
        for process in (one, two):
            process.join(30)
        assert (one.exitcode, two.exitcode) == (0, 0)
    finally:
        stop(one, first)
        if two.pid:
            stop(two, second)
    assert len(reduced_by(first)) == 24 and reduced_by(second) == []
    assert second.read_text().count("\n") == 1
    assert find_or_build(split, SHORT).was_there


def test_killed_in_the_middle_and_continued(split, tmp_path, place, reduced):
    """Its workers end too: they would hold the lock, and memory, for ever."""
    log, never = tmp_path / "1.log", tmp_path / "never"
    alive, held = os.pipe()  # every process below holds the writing end: it ends with the last
    process = FORK.Process(target=build, args=(split, log, 2, never, 11))
    try:
        process.start()
        os.close(held)
        until(lambda: len(reduced_by(log)) >= 12)  # one waits now, in the middle of a shard
        os.kill(process.pid, signal.SIGKILL)
        readable, _, _ = select.select([alive], [], [], 20)
        assert readable, "a worker outlived its parent"
    finally:
        os.close(alive)
        stop(process, log)
    (where,) = place.iterdir()
    whole = list(where.glob("0*.parquet"))
    assert whole and not (where / "cache.json").exists()
    assert list(where.glob(".0*"))  # what was being written
    made = find_or_build(split, SHORT)
    assert len(reduced) == 24 - 4 * len(whole)
    assert not list(where.glob(".0*"))
    reduced.clear()
    assert images(made.open()) == [reduce_short_side(data, SHORT) for data in originals(split)]


# ---- in training ------------------------------------------------------------------------------


def arguments(dataset: object, **values: object) -> DataArguments:
    return DataArguments(dataset=str(dataset), selection_fraction=0.25, **values)


def content(dataset: Dataset) -> list[bytes]:
    found = [row["image"] for row in dataset]
    return [i["bytes"] if i["bytes"] is not None else Path(i["path"]).read_bytes() for i in found]


def test_only_training_images_are_reduced_and_the_rows_are_the_same(folder):
    plain, small = (
        load_splits(arguments(folder)),
        load_splits(arguments(folder, train_short_side=SHORT)),
    )
    assert content(small.selection) == content(plain.selection)
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


def test_a_short_side_below_the_models_size_is_said(folder, caplog):
    network = tiny_network()  # 32 pixels
    for short_side, count in ((None, 0), (32, 0), (31, 1)):
        caplog.clear()
        run.warn_of_small_images(
            load_splits(arguments(folder, train_short_side=short_side)), network
        )
        assert len(caplog.messages) == count
    assert "train_short_side 31 is below the model's 32 pixels" in caplog.text


def test_the_command(folder, place, capfd):
    words = ["cache", str(folder), "--short_side", str(SHORT)]
    assert cli.main(words) == 0
    out = capfd.readouterr().out
    (where,) = place.iterdir()
    assert out.startswith(f"{where}\n24 images of split train: ") and "; 1 were no larger" in out
    assert out.endswith(f"--train_short_side {SHORT}\n")
    assert cli.main(words) == 0
    assert capfd.readouterr().out == out.replace(
        f"{where}\n", f"{where} was there already; nothing was done\n"
    )
    assert load_splits(arguments(folder, train_short_side=SHORT)).train_cache["key"] in where.name
    assert list(place.iterdir()) == [where]


@pytest.mark.parametrize("words", [[], ["--short_side=0"], ["--short_side=x"]])
def test_the_command_needs_a_short_side(words, folder, capfd):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["cache", str(folder), *words])
    assert stopped.value.code == 2
    err = capfd.readouterr().err
    assert "--short_side" in err and err.count("\n") == 1
