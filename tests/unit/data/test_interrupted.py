# SPDX-License-Identifier: Apache-2.0
"""Caches that are damaged, that nobody finished, or that two processes want at once."""

import errno
import logging
import multiprocessing
import os
import select
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.unit.toys import images, originals, write_image_folder
from training.common.errors import UserError
from training.data import reduced as cache
from training.data import shards
from training.data.arguments import DataArguments
from training.data.loading import load_split
from training.data.reduced import find_or_build
from training.data.shards import reduce_short_side
from training.data.splits import Split

pytestmark = pytest.mark.usefixtures("place")
SHORT = 20  # the pictures of the folder are 40 x 36
FORK = multiprocessing.get_context("fork")


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
    with caplog.at_level(logging.INFO, "training"):
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
    monkeypatch.setattr(cache, "usable_cores", lambda: workers)
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
    monkeypatch.setattr(cache, "usable_cores", lambda: 1)
    reduced.clear()
    made = find_or_build(split, SHORT)
    assert len(reduced) == 24 - 4 * (len(there) - 1)
    assert images(made.open()) == [reduce_short_side(data, SHORT) for data in originals(split)]


def test_a_place_that_cannot_be_used(split, place):
    place.parent.mkdir()
    place.write_text("a file in the way")
    with pytest.raises(UserError, match="cannot be written .*HF_DATASETS_CACHE"):
        find_or_build(split, SHORT)


def test_an_image_that_went_away(tmp_path):
    root = write_image_folder(tmp_path / "dishes")
    one = load_split(DataArguments(dataset=str(root)), "train")[1]
    gone = root / "train" / "cheesecake" / "1.jpg"
    gone.unlink()
    with pytest.raises(UserError) as error:
        find_or_build(one, SHORT)
    assert f"image 5 of the training split ({gone})" in str(error.value)


def test_a_worker_that_is_killed(split, monkeypatch):
    monkeypatch.setattr(cache, "usable_cores", lambda: 2)
    monkeypatch.setattr(
        shards, "reduce_short_side", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(UserError, match="was killed .*run the same command again"):
        find_or_build(split, SHORT)


def test_the_progress_line(caplog, split):
    with caplog.at_level(logging.INFO, "training"):
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
    cache.usable_cores = lambda: cores
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
