# SPDX-License-Identifier: Apache-2.0
"""A path or a name on the Hub, what was meant by it, and whether something can be written there."""

import os
from pathlib import Path

import pytest

from training.common import paths
from training.common.errors import UserError
from training.common.paths import (
    check_writable,
    did_you_mean,
    existing_folder,
    local_path,
    looks_local,
)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder and the home folder; it holds runs/sample/model and dinner.jpg."""
    (tmp_path / "runs" / "sample" / "model").mkdir(parents=True)
    (tmp_path / "dinner.jpg").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder_is_put_in(here):
    assert local_path("~/runs") == here / "runs"
    assert local_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")  # no traceback
    assert local_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    "name",
    [
        *("runs", "runs/sample", "runs/smaple", "~/runs", "dinner.jpg"),
        *("./x/y", "../x", "/x", "~/x", "x", "a/b/c", "", "runs\\sample", "user\\x/y", "C:/x"),
    ],
)
def test_what_looks_like_a_path(here, name):
    assert looks_local(name)


@pytest.mark.parametrize("name", ["user/name", "google/vit-base-patch16-224", "dinner.jpg/x"])
def test_what_looks_like_a_name_on_the_hub(here, name):
    assert not looks_local(name)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("runs/smaple", "runs/sample"),
        ("runs/smaple/", "runs/sample"),
        ("runs/smaple/model", "runs/sample/model"),
        ("runs/smaple/nothing", "runs/sample"),
        ("rusn/sample", "runs/sample"),
        ("RUNS/sample", "runs/sample"),
        ("./runs/smaple", "./runs/sample"),
        ("~/runs/smaple", "~/runs/sample"),
        ("runs/../dinnr.jpg", "runs/../dinner.jpg"),
        ("dinner.jpeg", "dinner.jpg"),
    ],
)
def test_what_was_meant(here, typed, meant):
    assert did_you_mean(typed) == f"; did you mean {meant}?"


def test_an_absolute_path(here):
    assert did_you_mean(here / "rusn") == f"; did you mean {here / 'runs'}?"


@pytest.mark.parametrize(
    "typed", ["runs", "runs/sample", "zebra", "zebra/x", "dinner.jpg/x", "", "/", "~nobody/x"]
)
def test_nothing_is_suggested(here, typed):
    assert did_you_mean(typed) == ""


def test_a_hidden_file_is_meant_by_who_types_a_dot(here):
    (here / ".dinnar").touch()
    assert did_you_mean("dinnar") == ""
    assert did_you_mean(".dinnr") == "; did you mean .dinnar?"


def test_a_folder_that_should_be_there(here):
    assert existing_folder("~/runs", "a run") == here / "runs"
    with pytest.raises(UserError, match="^rusn does not exist: give a run; did you mean runs.$"):
        existing_folder("rusn", "a run")
    with pytest.raises(UserError, match="^dinner.jpg is not a folder: give a run$"):
        existing_folder("dinner.jpg", "a run")


# ---- check_writable ---------------------------------------------------------------------------


def test_what_can_be_written_is_left_alone(here):
    check_writable("new.json")
    check_writable(here / "dinner.jpg")  # it is replaced
    check_writable("~/new.json")
    check_writable("a/b/c", folder=True)
    check_writable("runs", folder=True)
    assert sorted(os.listdir()) == ["dinner.jpg", "runs"]


@pytest.mark.parametrize(
    ("path", "folder", "says"),
    [
        ("rusn/x.json", False, "there is no folder rusn: make it first, or give another file; did "
         "you mean runs?"),
        ("zebra/x.json", False, "there is no folder zebra: make it first, or give another file"),
        ("runs", False, "is a folder: give the name of a file"),
        ("", False, "is a folder: give the name of a file"),
        ("/dev/null", False, "is no regular file: give the name of a file"),
        ("dinner.jpg", True, "is no folder: give the name of a folder"),
        ("dinner.jpg/x", False, "dinner.jpg is no folder: give another file"),
        ("dinner.jpg/x/y", True, "dinner.jpg is no folder: give another folder"),
        # It is written under a longer name first.
        ("x" * 250, False, "nothing can be written there (File name too long): give another file"),
        ("x" * 256, True, "nothing can be written there (File name too long): give another folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_written(here, path, folder, says):
    with pytest.raises(UserError) as error:
        check_writable(path, folder=folder)
    assert str(error.value).startswith(f"--output {path}") and str(error.value).endswith(says)


@pytest.mark.parametrize("folder", [False, True])
def test_a_disk_that_takes_nothing(here, monkeypatch, folder):
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"output_dir x/y.*\(Permission denied\): give another"):
        (here / "x").mkdir()
        check_writable("x/y", "output_dir", folder=folder)
