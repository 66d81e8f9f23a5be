# SPDX-License-Identifier: Apache-2.0
"""Every file is an image, something else, or left out with a reason."""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.unit.data.layouts.made import photo, write
from training.data.found import LeftOut
from training.data.layouts.walk import is_image, kind_of, label_of, walk


def test_files_are_sorted_out(tmp_path):
    for name in ("b/2.jpg", "a/1.HEIC", "a/no extension", "a/photo.jpg.txt", "x.md"):
        write(tmp_path / name, photo(1) if "no ext" in name else b"x")
    for name in (".hidden/1.jpg", "a/.DS_Store", "__MACOSX/a/._1.jpg", "Thumbs.db"):
        write(tmp_path / name, b"x")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    tree = walk(tmp_path)
    assert tree.images == ["a/1.HEIC", "a/no extension", "b/2.jpg"]
    assert tree.others == ["a/photo.jpg.txt", "x.md"]
    assert tree.folders == ["a", "b", "empty"]
    assert [(each.path, each.reason) for each in tree.left_out] == [
        (".hidden", "hidden"), ("Thumbs.db", "hidden"), ("__MACOSX", "hidden"),
        ("a/.DS_Store", "hidden"), ("a/up", "link to a folder above it"),
        ("broken", "broken link"), ("pipe", "no file"),
    ]  # fmt: skip
    assert tree.faults == [LeftOut("broken.jpg", "broken link", "broken link")]
    assert tree.not_used({"x.md"})[-1] == LeftOut("a/photo.jpg.txt", ".txt", "no image")


def test_a_name_that_is_not_utf_8_is_a_fault_of_an_image(tmp_path):
    for name, data in ((b"\xff.jpg", photo(1)), (b"\xff.txt", b"x")):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(data)
    tree = walk(tmp_path)
    assert [each.path for each in tree.faults] == ["?.jpg"]
    assert [each.path for each in tree.left_out] == ["?.txt"] and not tree.images


def test_content_decides_where_the_name_says_nothing(tmp_path):
    assert is_image(write(tmp_path / "a.dat", photo(1, "PNG")))
    assert is_image(write(tmp_path / "phone", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"))
    assert not is_image(write(tmp_path / "b.dat", b"text"))
    assert not is_image(write(tmp_path / "c.docx", b""))
    assert kind_of("a/b.JPG") == ".JPG" and kind_of("a.b/c") == "no extension"


def test_a_label_is_composed():
    """macOS writes é as two characters; the other split came from Windows."""
    assert label_of("cre\u0300me") == "cr\u00e8me"


def test_a_folder_that_cannot_be_read_is_a_fault(tmp_path, monkeypatch):
    """Nobody knows how many images are in it."""
    for name in ("a/1.jpg", "secret/1.jpg"):
        write(tmp_path / name, photo(1))
    scandir = os.scandir

    def refuse(folder: Path) -> Iterator:
        if folder.name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    tree = walk(tmp_path)
    assert tree.faults == [LeftOut("secret", "cannot be read", "cannot be read: Permission denied")]
    assert tree.images == ["a/1.jpg"] and not tree.left_out
