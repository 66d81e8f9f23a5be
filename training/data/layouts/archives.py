"""Unpack zip and tar files below datasets' own cache, once for each content, and read what is in them.

HF_DATASETS_CACHE/vit-food101/unpacked/SHA256/ is written under a temporary name and moved, so it is
whole or absent. Nothing is written outside it: paths that lead out and links are refused, and so is
an archive that grows as no photographs do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from training.common.errors import UserError
from training.common.files import sha256_file
from training.data.array_store import GB, RESERVE, cache_folder
from training.data.found import Found
from training.data.layouts.folders import as_dataset
from training.data.layouts.split_words import split_of_file
from training.data.layouts.walk import label_of, walk

# Photographs are compressed already: what expands to more than this is no archive of photographs.
MOST_TIMES, ALWAYS_ALLOWED = 20, GB
ZIP, TARS = ".zip", (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# (path inside the archive, size in bytes, how to open it)
Member = tuple[str, int, "contextlib.AbstractContextManager[IO[bytes]]"]


def is_archive(path: Path) -> bool:
    """Say whether a file is a zip or tar, by its name."""
    return path.name.lower().endswith((ZIP, *TARS))


def is_tar(name: str) -> bool:
    """Say whether a file is a tar, by its name."""
    return name.lower().endswith(TARS)


def unpack(archives: list[Path]) -> Path:
    """Unpack archives, or find them unpacked; several go into folders of their names.

    Raises:
        UserError: an archive is damaged, encrypted or too large, or wants to write elsewhere.
    """
    digest = hashlib.sha256("\n".join(sha256_file(path) for path in archives).encode()).hexdigest()
    folder = cache_folder() / "unpacked" / digest
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{digest[:16]}.", dir=folder.parent))
    try:
        for path in archives:
            _unpack(path, temporary / _stem(path) if len(archives) > 1 else temporary)
        with contextlib.suppress(OSError):  # another process was first
            os.rename(temporary, folder)
    except OSError as error:
        raise UserError(
            f"dataset {path} cannot be unpacked below {folder.parent}: {error.strerror or error}; free space, or "
            "choose another place with HF_DATASETS_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_webdataset(folder: Path, tars: list[Path]) -> Found | None:
    """Read unpacked tars in which x.jpg lies beside x.cls, x.txt or x.json; None where they do not.

    A label is what .cls or .txt holds, or the entry label, cls or class of .json.
    """
    tree = walk(folder)
    beside: dict[str, dict[str, str]] = defaultdict(dict)
    for name in tree.others:
        beside[_key(name)][PurePosixPath(name).suffix.lower()] = name
    if not any({".cls", ".txt", ".json"} & beside[_key(name)].keys() for name in tree.images):
        return None
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


def _unpack(path: Path, folder: Path) -> None:
    size = path.stat().st_size
    room = shutil.disk_usage(folder.parent).free - RESERVE
    allowed = max(ALWAYS_ALLOWED, MOST_TIMES * size)
    total, seen = 0, set()
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
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened as source, target.open("wb") as file:
                _copy(source, file, expands_to, path)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        reason = str(error).split("\n")[0].rstrip(":- ")  # tarfile lists what it tried
        raise UserError(f"dataset {path} cannot be unpacked: {reason}") from error
    folder.mkdir(parents=True, exist_ok=True)


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
                if not info.is_dir():
                    yield _inside(path, _zip_name(info)), info.file_size, archive.open(info)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isfile():
                kind = "is a link" if member.issym() or member.islnk() else "is no file"
                raise UserError(_refused(path, member.name, kind))
            yield _inside(path, member.name), member.size, archive.extractfile(member)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Read a name as UTF-8 where the archive does not say it is: macOS forgets to."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
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
