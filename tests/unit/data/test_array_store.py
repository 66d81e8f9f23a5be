# SPDX-License-Identifier: Apache-2.0
"""Arrays in files: whole or not there, within a limit, and one process at a time.

How decoded images are kept in them is tested in input/test_eval_images.
"""

import logging
import os
import time
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest
from filelock import FileLock

from training.data import array_store
from training.data.array_store import (
    GB,
    RESERVE,
    NoRoomError,
    cache_folder,
    header,
    make_room,
    only_one,
    open_array,
    size_of,
    store,
    write_array,
)

SHAPE = 4, 3
VALUES = np.arange(12, dtype=np.float32).reshape(SHAPE)


def keep(path: Path, limit_gb: float = 1.0) -> str:
    def write() -> None:
        write_array(path, SHAPE, np.float32, [VALUES[:1], VALUES[1:]])

    return store(path, SHAPE, np.float32, limit_gb, write)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*.npy"))


def test_the_folder_is_below_the_cache_of_datasets(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "vit-food101" and not cache_folder().exists()


# ---- one file ---------------------------------------------------------------------------------


def test_numpy_writes_the_same_bytes(tmp_path):
    write_array(tmp_path / "a.npy", SHAPE, np.float32, [VALUES[:1], VALUES[1:]])
    np.save(tmp_path / "b.npy", VALUES)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (tmp_path / "a.npy").stat().st_size == size_of(SHAPE, np.float32)
    assert np.array_equal(open_array(tmp_path / "a.npy", SHAPE, np.float32), VALUES)


def test_a_write_stays_in_memory(tmp_path):
    write_array(tmp_path / "a.npy", SHAPE, np.float32, [VALUES])
    open_array(tmp_path / "a.npy", SHAPE, np.float32)[:] = 0
    assert np.array_equal(open_array(tmp_path / "a.npy", SHAPE, np.float32), VALUES)


@pytest.mark.parametrize("damage", ["missing", "short", "long", "shape", "dtype", "header"])
def test_what_is_not_the_whole_array_is_not_opened(tmp_path, damage):
    path, start = tmp_path / "a.npy", header(SHAPE, np.float32)
    body = VALUES.tobytes()
    content = {
        "short": start + body[:-1],
        "long": start + body + b"x",
        "shape": header((3, 4), np.float32) + body,
        "dtype": header(SHAPE, np.int32) + body,
        "header": b"\0" * len(start) + body,
    }
    if damage != "missing":
        path.write_bytes(content[damage])
    assert open_array(path, SHAPE, np.float32) is None


def test_a_file_that_is_read_is_used(tmp_path):
    write_array(tmp_path / "a.npy", SHAPE, np.float32, [VALUES])
    os.utime(tmp_path / "a.npy", (1, 1))
    open_array(tmp_path / "a.npy", SHAPE, np.float32)
    assert time.time() - (tmp_path / "a.npy").stat().st_mtime < 60


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def parts():
        yield VALUES[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_array(tmp_path / "a.npy", SHAPE, np.float32, parts())
    assert os.listdir(tmp_path) == []


# ---- the folder -------------------------------------------------------------------------------


def test_an_array_is_kept_once(tmp_path):
    assert keep(tmp_path / "cache" / "a.npy") == ""
    written = (tmp_path / "cache" / "a.npy").stat().st_ino
    assert keep(tmp_path / "cache" / "a.npy") == ""
    assert (tmp_path / "cache" / "a.npy").stat().st_ino == written


def test_a_damaged_array_is_made_again_and_said(tmp_path, caplog):
    (tmp_path / "a.npy").write_bytes(b"x")
    with caplog.at_level(logging.INFO, "training"):
        assert keep(tmp_path / "a.npy") == ""
    assert caplog.messages == [f"{tmp_path}/a.npy is damaged or unreadable: it is made again"]
    assert np.array_equal(open_array(tmp_path / "a.npy", SHAPE, np.float32), VALUES)


def test_an_array_that_is_not_kept_has_a_reason(tmp_path):
    assert keep(tmp_path / "a.npy", limit_gb=1e-8) == "eval_cache_gb is 1e-08"
    (tmp_path / "file").write_text("in the way")
    assert "exists" in keep(tmp_path / "file" / "a.npy")
    assert names(tmp_path) == []


@pytest.fixture
def three(tmp_path) -> Path:
    """Arrays of a hundred bytes: a is the oldest, then b, then c; and what is none of them."""
    for age, name in enumerate(("c.npy", "b.npy", "a.npy", ".d.npy", "e.txt")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (10_000 - age,) * 2)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(400, "abc"), (399, "bc"), (300, "bc"), (299, "c"), (199, ""), (100, "")],
)
def test_the_least_recently_used_go_until_it_fits(three, limit, kept):
    make_room(three, 100, limit / GB)
    assert names(three) == [f"{name}.npy" for name in kept]
    assert (three / ".d.npy").exists() and (three / "e.txt").exists()


def test_nothing_goes_for_what_would_never_fit(three, monkeypatch):
    with pytest.raises(NoRoomError, match="^eval_cache_gb is "):
        make_room(three, 101, 100 / GB)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(array_store.shutil, "disk_usage", lambda _: usage(0, 0, RESERVE - 101))
    with pytest.raises(NoRoomError, match="^the disk has 2.00 GB free, 2 are left alone$"):
        make_room(three, 100, 200 / GB)  # a and b would go, which is a byte too little
    assert names(three) == ["a.npy", "b.npy", "c.npy"]


def test_what_goes_counts_as_free(three, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(array_store.shutil, "disk_usage", lambda _: usage(0, 0, RESERVE - 100))
    make_room(three, 100, 200 / GB)
    assert names(three) == ["c.npy"]


def test_the_next_process_clears_up_and_holds_the_lock(three):
    with only_one(three):
        assert not (three / ".d.npy").exists() and names(three) == ["a.npy", "b.npy", "c.npy"]
        lock = FileLock(three / ".lock")
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0)
    lock.acquire(timeout=0)
    lock.release()
