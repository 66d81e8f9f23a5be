# SPDX-License-Identifier: Apache-2.0
"""Which images a command line asks for: files, folders, globs, a list."""

import os
import warnings
from pathlib import Path

import pytest

from inference.apps import images
from inference.apps.images import Asked, endings, find_images, is_image
from tests.unit.toys import jpeg
from training.common.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The current folder: b/1.jpg, b/deep/2.PNG, b/notes.txt, b/.hidden.jpg, a.jpg, and empty/."""
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("b/1.jpg", "b/deep/2.PNG", "b/.hidden.jpg", "a.jpg"):
        (tmp_path / name).write_bytes(jpeg(0))
    (tmp_path / "b" / "notes.txt").write_text("Python is no image, nor is P5, nor BM")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def found(*words: str, listed: tuple[bytes, ...] = ()) -> list[str]:
    """The paths; a path with a problem is followed by its first words."""
    return [
        asked.path if asked.problem is None else f"{asked.path}: {asked.problem.split(';')[0]}"
        for asked in find_images(words, listed)
    ]


def test_a_folder_is_walked_in_order_without_hidden_files(here):
    assert found("b") == ["b/1.jpg", "b/deep/2.PNG"]
    assert found("b/") == ["b/1.jpg", "b/deep/2.PNG"]
    assert found(".") == ["./a.jpg", "./b/1.jpg", "./b/deep/2.PNG"]
    assert found("empty") == ["empty: no image in this folder"]


def test_links_are_followed_but_not_in_circles(here):
    (here / "linked").symlink_to(here / "b")
    (here / "b" / "deep" / "up").symlink_to(here / "b")
    (here / "b" / "self").symlink_to(".")
    assert found("linked") == ["linked/1.jpg", "linked/deep/2.PNG"]
    (here / "b" / "gone.jpg").symlink_to("nowhere")  # a photograph that is lost is told
    assert found("b") == ["b/1.jpg", "b/deep/2.PNG", "b/gone.jpg"]


def test_a_folder_that_cannot_be_read_is_told(here, monkeypatch):
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(images.os, "listdir", listdir)
    assert found("b") == ["b/1.jpg", "b/deep: the folder cannot be read (Permission denied)"]


def test_files_are_taken_as_they_are_and_as_often(here):
    assert found("a.jpg", "b/notes.txt", "a.jpg") == ["a.jpg", "b/notes.txt", "a.jpg"]
    assert found("~/a.jpg") == [f"{here}/a.jpg"]
    assert found("zebra.jpg") == ["zebra.jpg: no such file"]
    (asked,) = find_images(["aa.jpg"])
    assert asked == Asked(
        "aa.jpg", "no such file; give the path of an image file; did you mean a.jpg?"
    )
    assert found("https://example.org/a.jpg?size=1", "data:image/jpeg;base64,xx") == [
        "https://example.org/a.jpg?size=1",
        "data:image/jpeg;base64,xx",
    ]


def test_globs(here):
    (here / "[1].jpg").write_bytes(jpeg(0))
    assert found("[1].jpg") == ["[1].jpg"]  # a file of that name comes first
    assert found("b/*") == ["b/1.jpg", "b/deep/2.PNG"]
    assert found("b/**") == found("b/**/*") == ["b/1.jpg", "b/deep/2.PNG"]
    assert found("~/b/?.jpg") == [f"{here}/b/1.jpg"]
    assert found("b/*.txt") == ["b/*.txt: it matches no image"]
    assert found("empty/*", "a.*") == ["empty/*: it matches no image", "a.jpg"]


def test_a_list(here):
    lines = (b"a.jpg\n", b"\n", b"b\r\n", b"~/a.jpg\n", b"gone *.jpg\n", b" a.jpg")
    told = ["a.jpg", "b/1.jpg", "b/deep/2.PNG", f"{here}/a.jpg", "gone *.jpg", " a.jpg"]
    assert found("-", listed=lines) == told
    assert found("a.jpg", "-", listed=(b"b/1.jpg",)) == ["a.jpg", "b/1.jpg"]
    assert found("-") == []


def test_a_name_that_is_no_text(here):
    (path,) = found("-", listed=(b"caf\xe9.jpg\n",))
    assert os.fsencode(path) == b"caf\xe9.jpg"


@pytest.mark.parametrize("data", [jpeg(0), b"a.jpg\0b.jpg"])
def test_what_is_no_list(data):
    with pytest.raises(UserError, match="standard input is not a list of paths, one a line"):
        found("-", listed=tuple(data.splitlines(keepends=True)))


def test_one_path_after_the_other(here):
    """However long the list is: nothing is read ahead."""

    def lines():
        yield b"a.jpg\n"
        pytest.fail("read ahead")

    assert next(find_images(["-"], lines())) == Asked("a.jpg")


# ---- is_image ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.webp", "x.avif", "x.tif", "x.heic"])
def test_the_ending_tells(name):
    assert is_image(name)


def test_else_the_content_tells(here):
    (here / "photo").write_bytes(jpeg(0))
    (here / "photo.download").write_bytes(jpeg(0))
    assert is_image("photo") and is_image("photo.download")
    for name in ("b/notes.txt", "nowhere", "b"):
        assert not is_image(name)
    os.mkfifo(here / "pipe")
    assert not is_image("pipe")  # and does not wait for it
    assert ".pdf" not in endings() and ".eps" not in endings()


def test_an_image_of_too_many_pixels_is_still_one(here, monkeypatch):
    (here / "photo").write_bytes(jpeg(0))
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_image("photo")
        monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 10)
        assert is_image("photo")


def test_a_phones_photograph_without_an_ending(tmp_path):
    (tmp_path / "IMG_1").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "notes").write_bytes(b"text")
    assert is_image(str(tmp_path / "IMG_1")) and not is_image(str(tmp_path / "notes"))
