"""Unpack zip and tar files below datasets' own cache, once for each content, and read what is in them.

HF_DATASETS_CACHE/vit-food101/unpacked/SHA256/ is written under a temporary name and moved, so it is
whole or absent. Nothing is written outside it: paths that lead out and links are refused, and so is
an archive that grows as no photographs do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from training.common.errors import UserError
from training.common.files import sha256_file
from training.data.array_store import GB, RESERVE, cache_folder
from training.data.found import Found
from training.data.layouts.folders import as_dataset
from training.data.layouts.split_words import refuse_like_splits, split_of, split_of_file
from training.data.layouts.walk import Tree, label_of, walk

# Photographs are compressed already: what expands to more than this is no archive of photographs.
MOST_TIMES, ALWAYS_ALLOWED = 20, GB
ZIP, TARS = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What the standard library raises on damaged content, on encrypted (RuntimeError) and on a compression
# that it does not know (NotImplementedError); gzip and bzip2 raise an OSError without a number, too.
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
)

# (path inside the archive, size in bytes, how to open it)
Member = tuple[str, int, "contextlib.AbstractContextManager[IO[bytes]]"]


def is_archive(path: Path) -> bool:
    """Say whether a file is a zip or tar, by its name."""
    return path.name.lower().endswith((ZIP, *TARS))


def is_tar(name: str) -> bool:
    """Say whether a file is a tar, by its name."""
    return name.lower().endswith(TARS)


def are_parts(archives: list[Path]) -> bool:
    """Say whether archives are parts of one: their names differ in a last number only.

    Google gives takeout-20240101T000000Z-001.zip and -002.zip. Those of a split are none.
    """
    found = [re.match(r"(.*?)[-_. ]*\(?(\d+)\)?$", _stem(path)) for path in archives]
    if len(archives) < 2 or not all(found) or len({each[2] for each in found}) < len(found):
        return False
    names = {each[1] for each in found}
    return len(names) == 1 and split_of(names.pop()) is None


def unpack(archives: list[Path], together: bool = False) -> Path:
    """Unpack archives, or find them unpacked; several go into folders of their names.

    Args:
        together: all go into one folder.

    Raises:
        UserError: an archive is damaged, encrypted or too large, wants to write elsewhere, or two of them
            have one name.
    """
    folders = {path: _stem(path) for path in archives} if not together and archives[1:] else {}
    twice = [path for path, stem in folders.items() if list(folders.values()).count(stem) > 1]
    if twice:
        raise UserError(f"dataset {twice[0]} and {twice[1]} have one name: rename one of them")
    # What is unpacked into depends on the names too: val.tar may be renamed to test.tar.
    parts = [f"{sha256_file(path)} {folders.get(path, '')}".strip() for path in archives]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = cache_folder() / "unpacked" / digest
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{digest[:16]}.", dir=folder.parent))
    seen: set[str] = set()
    try:
        for path in archives:
            _unpack(path, temporary / folders.get(path, ""), seen if together else set())
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    except OSError as error:
        raise UserError(
            f"dataset {path} cannot be unpacked below {folder.parent}: {error.strerror or error}; free space, or "
            "choose another place with HF_DATASETS_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def unpacked_around(folder: Path) -> Path | None:
    """Return the folder into which the archive that holds `folder` was unpacked; None: it was not in one."""
    unpacked = (cache_folder() / "unpacked").resolve()
    inside = [folder.resolve(), *folder.resolve().parents]
    return next((each for each in inside if each.parent == unpacked), None)


def read_webdataset(folder: Path, tars: list[Path]) -> Found | None:
    """Read unpacked tars in which x.jpg lies beside x.cls, x.txt or x.json; None where they do not.

    A label is what .cls or .txt holds, or the entry label, cls or class of .json. Beside images that
    lie in several folders a .txt is a caption, or boxes.
    """
    tree = walk(folder)
    beside: dict[str, dict[str, str]] = defaultdict(dict)
    for name in tree.others:
        beside[_key(name)][PurePosixPath(name).suffix.lower()] = name
    if not _has_labels_beside(tree, [beside.get(_key(name), {}) for name in tree.images], tars):
        return None
    refuse_like_splits(stem for stem in map(_stem, tars) if not split_of_file(stem))
    rows, used = defaultdict(list), set()
    for name in tree.images:
        top = name.split("/")[0] if len(tars) > 1 else _stem(tars[0])
        label = None
        for suffix in (".cls", ".json", ".txt"):
            if suffix in (files := beside[_key(name)]) and label is None:
                label = _label(tree.root / files[suffix])
                used.add(files[suffix])
        rows[split_of_file(top) or "train"].append((name, label))
    return Found(
        layout="WebDataset: images and their labels beside each other in tar files",
        splits={split: [as_dataset(tree, each)] for split, each in rows.items()},
        left_out=tuple(tree.not_used(used)),
        faults=tuple(tree.faults),
        root=tree.root,
    )


def _has_labels_beside(tree: Tree, beside: list[dict[str, str]], tars: list[Path]) -> bool:
    if any(".cls" in files for files in beside):
        return True
    facts = [files[".json"] for files in beside if ".json" in files][:20]
    if any(_label(tree.root / name) for name in facts):
        return True
    level = 1 if len(tars) > 1 else 0
    parts = [PurePosixPath(name).parts[level:-1] for name in tree.images]
    folders = {tuple(part for part in each if not split_of(part)) for each in parts}
    return len(folders) == 1 and any(".txt" in files for files in beside)


def _key(name: str) -> str:
    """Return what files of one WebDataset sample share: the path up to the first dot of the name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.split(".")[0])


def _label(path: Path) -> str | None:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if path.suffix.lower() != ".json":
        return label_of(text) or None
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    found = [facts[key] for key in ("label", "cls", "class", "class_name") if key in facts]
    return str(found[0]) if found else None


def _stem(path: Path) -> str:
    name = path.name
    ending = next(end for end in (ZIP, *TARS) if name.lower().endswith(end))
    return name[: -len(ending)]


def _unpack(path: Path, folder: Path, seen: set[str]) -> None:
    size = path.stat().st_size
    room = shutil.disk_usage(cache_folder()).free - RESERVE
    allowed = max(ALWAYS_ALLOWED, MOST_TIMES * size)
    total = 0
    try:
        for name, expands_to, opened in _members(path):
            total += expands_to
            if total > allowed or total > room:
                limit = f"{min(allowed, max(room, 0)) / GB:.3g} GB"
                raise UserError(
                    f"dataset {path} expands to more than {limit}: photographs do not shrink so much, or the "
                    "disk has no room; unpack it yourself and give the folder"
                )
            if name in seen:
                raise UserError(f"dataset {path} holds two files called {name}: unpack it yourself")
            seen.add(name)
            target = folder / name
            with opened as source, _create(target, name, path) as file:
                _copy(source, file, expands_to, path)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).split("\n")[0].rstrip(":- ")  # tarfile lists what it tried
        raise UserError(f"dataset {path} cannot be unpacked: {reason}") from error
    folder.mkdir(parents=True, exist_ok=True)


def _create(target: Path, name: str, path: Path) -> IO[bytes]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("wb")
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            what = "is too long" if error.errno == errno.ENAMETOOLONG else "is a file and a folder"
            raise UserError(_refused(path, name, what)) from error
        raise


def _copy(source: IO[bytes], file: IO[bytes], size: int, path: Path) -> None:
    left = size
    while chunk := source.read(min(1 << 20, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise UserError(
                f"dataset {path} holds a file that is larger than it says: do not use it"
            )
        file.write(chunk)


def _members(path: Path) -> Iterator[Member]:
    if path.name.lower().endswith(ZIP):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise UserError(_refused(path, info.filename, "is a link"))
                # A folder that Windows wrote ends with its own slash.
                if not info.is_dir() and not (info.filename[-1:] == "\\" and not info.file_size):
                    yield _inside(path, _zip_name(path, info)), info.file_size, archive.open(info)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isfile():
                kind = "is a link" if member.issym() or member.islnk() else "is no file"
                raise UserError(_refused(path, member.name, kind))
            yield _inside(path, member.name), member.size, archive.extractfile(member)
        while archive.fileobj.read(1 << 20):  # to the checksum at the end
            pass


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """Read a name as UTF-8 where the archive does not say it is: macOS forgets to.

    Raises:
        UserError: a folder's name is in the encoding of some country's Windows; which one, nothing says.
    """
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError as error:
        folder = info.filename.replace("\\", "/").rpartition("/")[0]
        if not folder.isascii():
            why = "is not in UTF-8, so that a label would be misspelt"
            raise UserError(_refused(path, info.filename, why)) from error
        return info.filename


def _inside(path: Path, name: str) -> str:
    """Check that a member lies inside the archive; return its path with "/"."""
    clean = name.replace("\\", "/")
    parts = PurePosixPath(clean).parts
    if clean.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        raise UserError(_refused(path, name, "leads out of it"))
    return "/".join(parts)


def _refused(path: Path, name: str, why: str) -> str:
    return f"dataset {path} is refused: {name!r} {why}; unpack it yourself and give the folder"
