"""Find the images that a command line asks for: files, folders, globs, and a list on standard input."""

from __future__ import annotations

import functools
import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from inference.food_images import FORMATS, HEIC
from training.common.errors import UserError
from training.common.paths import did_you_mean

# Photographs by their ending which cannot be read here: to skip them in silence would be worse.
NOT_READ = (".heic", ".heif")


@dataclass(frozen=True)
class Asked:
    """A path that was asked for, or what stands in the way of one."""

    path: str
    problem: str | None = None  # what is wrong and the cure; None: a file to read


def find_images(words: Iterable[str], listed: Iterable[bytes] = ()) -> Iterator[Asked]:
    """Find one path after the other, so that a million of them need no memory.

    A folder stands for the images in it and below, sorted by name, through links and without hidden
    files; a glob for what it matches; `-` for `listed`; `~` for the home folder. What is named twice
    is found twice.

    Args:
        words: as the person typed them.
        listed: lines with a path each, of a file or a folder, as the operating system encodes it.

    Raises:
        UserError: `listed` is something else than paths, as an image itself would be.
    """
    for word in words:
        yield from _listed(listed) if word == "-" else _of_word(word)


def _of_word(word: str) -> Iterator[Asked]:
    path = os.path.expanduser(word)
    if os.path.isdir(path):
        yield from _of_folder(path)
    elif os.path.lexists(path) or "://" in word or word.startswith("data:"):
        yield Asked(path)  # who reads it says that URLs are not fetched
    elif glob.has_magic(path):
        found = sorted(glob.iglob(path, recursive=True))
        images = (each for each in found if os.path.isdir(each) or is_image(each))
        if "**" in path:  # it has matched what is in the folders, too
            images = (each for each in images if not os.path.isdir(each))
        empty = True
        for each in images:
            empty = False
            yield from _of_folder(each) if os.path.isdir(each) else [Asked(each)]
        if empty:
            yield Asked(word, "it matches no image; give a pattern that does, or a folder")
    else:
        yield Asked(path, f"no such file; give the path of an image file{did_you_mean(path)}")


def _of_folder(folder: str) -> Iterator[Asked]:
    empty = True
    for asked in _walk(folder, frozenset()):
        empty = False
        yield asked
    if empty:
        yield Asked(folder, "no image in this folder; give one that has some, or image files")


def _walk(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Asked]:
    """Walk a folder; `above` are the folders on the way to it, into which a link may lead back."""
    try:
        status = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Asked(folder, f"the folder cannot be read ({error.strerror}); check its permissions")
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _walk(path, above | {here})
        elif is_image(path):
            yield Asked(path)


def _listed(lines: Iterable[bytes]) -> Iterator[Asked]:
    for line in lines:
        line = line.rstrip(b"\r\n")
        if b"\0" in line:
            raise UserError(
                "standard input is not a list of paths, one a line: give `-` such a list (of `find` "
                "without -print0), or the image as a file"
            )
        if not line:
            continue
        path = os.fsdecode(line)
        path = path if os.path.lexists(path) else os.path.expanduser(path)
        yield from _of_folder(path) if os.path.isdir(path) else [Asked(path)]


def is_image(path: str) -> bool:
    """Say whether a file is an image by its ending, or else by how it begins."""
    if os.path.splitext(path)[1].lower() in endings():
        return True
    if not os.path.isfile(path):  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            if re.match(HEIC, file.read(4096), re.S):  # decoded, or named with its cure
                return True
        with (
            warnings.catch_warnings()
        ):  # of damaged files, which are complained of when they are read
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS):
                return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's readers raise anything
        return False


@functools.cache
def endings() -> frozenset[str]:
    """List the endings of image files, in small letters: {".jpg", ".png", ...}."""
    known = Image.registered_extensions().items()
    return frozenset({ending for ending, kind in known if kind in FORMATS} | set(NOT_READ))
