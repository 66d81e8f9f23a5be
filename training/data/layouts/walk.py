"""Walk a folder: which files are images, which are something else, and which cannot be reached."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from inference.food_images import FORMATS, HEIC
from training.data.found import LeftOut

# A file with such a name is meant as a photograph, readable here or not.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jif .jfif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm "
    ".avif .avifs .heic .heif .hif .jxl .jp2 .j2k .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .psd .tga "
    ".ico".split()
)
UNREADABLE, BROKEN = "cannot be read", "broken link"
HEAD_BYTES = 4096  # of a file, which say what it is
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}  # of Windows, macOS and a NAS


@dataclass
class Tree:
    """The files below a folder, by their path relative to it with "/", sorted."""

    root: Path
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # tables, texts, archives, ...
    left_out: list[LeftOut] = field(default_factory=list)  # hidden files and folders, broken links
    # Images and folders that cannot be reached, or whose names cannot be written down.
    faults: list[LeftOut] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # every visible folder, empty ones too

    def path(self, name: str) -> str:
        """Return the absolute path of a file, for `datasets`."""
        return str(self.root / name)

    def not_used(self, used: set[str], reason: str = "no image") -> list[LeftOut]:
        """List every file that is not in `used`: other files as `reason`, and what was hidden."""
        return [
            *self.left_out,
            *(LeftOut(name, kind_of(name), reason) for name in self.others if name not in used),
        ]


def walk(root: Path) -> Tree:
    """Sort out everything below `root`; links are followed, a link to a folder above it is not.

    Hidden folders count as one thing each. A file is an image by its name or, with a name that says
    nothing, by its first bytes.
    """
    tree = Tree(root.resolve())
    for name, problem in _files(tree.root, PurePosixPath(), (), tree.folders):
        if problem:
            meant = problem.startswith(UNREADABLE) or (problem == BROKEN and _is_named_image(name))
            into = tree.faults if meant else tree.left_out
            into.append(LeftOut(_shown(name), problem.split(":")[0], problem))
        elif _shown(name) != name:
            into = tree.faults if is_image(tree.root / name) else tree.left_out
            into.append(LeftOut(_shown(name), kind_of(name), "has a name that is not UTF-8"))
        elif is_image(tree.root / name):
            tree.images.append(name)
        else:
            tree.others.append(name)
    return tree


def _files(
    root: Path, below: PurePosixPath, above: tuple[tuple[int, int], ...], folders: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield (relative path, "" or why it is left out) of everything in a folder, sorted."""
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        yield str(below), f"{UNREADABLE}: {error.strerror}"
        return
    here = os.stat(root / below)
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        name = str(below / entry.name)
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES:
            yield name, "hidden"
            continue
        try:
            status = entry.stat()
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
            yield name, BROKEN if gone else f"{UNREADABLE}: {error.strerror}"
            continue
        if stat.S_ISREG(status.st_mode):
            yield name, ""
        elif not stat.S_ISDIR(status.st_mode):
            yield name, "no file"
        elif (status.st_dev, status.st_ino) in above:
            yield name, "link to a folder above it"
        else:
            folders.append(name)
            yield from _files(root, below / entry.name, above, folders)


def is_image(path: Path) -> bool:
    """Say whether a file is meant as an image: by its name, else by its first bytes."""
    if _is_named_image(path.name):
        return True
    if path.suffix.lower() in (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".md"):
        return False  # where an image of 100,000 has a text beside it, none of those is opened
    try:
        with path.open("rb") as file:
            if re.match(HEIC, file.read(HEAD_BYTES), re.S):  # decoded, or named with its cure
                return True
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True  # it is refused by name when it is decoded
    except Exception:  # Pillow raises anything on what is no image
        return False


def _is_named_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def kind_of(name: str) -> str:
    """Name the kind of a file for counting: its extension, as it is written."""
    return PurePosixPath(name).suffix or "no extension"


def label_of(folder: str) -> str:
    """Return the label that a folder's name says: composed as on most systems (NFC)."""
    return unicodedata.normalize("NFC", folder)


def _shown(name: str) -> str:
    """Write a file's name so that it can be printed; bytes that are no UTF-8 become a mark."""
    return name.encode("utf-8", "replace").decode("utf-8")
