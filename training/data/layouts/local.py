"""Find out how somebody keeps labelled images on a disk, and read them: folder, table, archive or glob."""

from __future__ import annotations

import glob
import os
from dataclasses import replace
from pathlib import Path

from training.common.errors import UserError
from training.common.paths import did_you_mean, local_path
from training.data.arguments import DataArguments
from training.data.found import Found, LeftOut
from training.data.layouts.archives import (
    are_parts,
    is_archive,
    is_tar,
    read_webdataset,
    unpack,
)
from training.data.layouts.folders import read_label_folders
from training.data.layouts.food101_folder import is_food101_folder, read_food101_folder
from training.data.layouts.saved import has_configs, is_saved, read_configured, read_saved
from training.data.layouts.split_words import split_of
from training.data.layouts.tables import (
    is_table,
    read_files,
    read_metadata,
    read_tables,
    refuse_other_labels,
)
from training.data.layouts.walk import Tree, kind_of, walk


def is_glob(name: str) -> bool:
    """Say whether a name is a pattern of files and no file itself."""
    return glob.has_magic(name) and not os.path.exists(local_path(name))


def read_local(args: DataArguments) -> Found:
    """Read the labelled images at a path or glob.

    Raises:
        UserError: nothing is there, or it cannot be told which image has which label.
    """
    path = local_path(args.dataset)
    if is_glob(args.dataset):
        return _read_glob(str(path), args)
    if not args.dataset or not os.path.exists(path):
        raise UserError(
            f"dataset {args.dataset} does not exist: give a folder, a table, an archive or a Hub id "
            f"(user/name){did_you_mean(args.dataset)}"
        )
    if _is_no_utf8(str(path.resolve())):
        raise UserError(
            f"dataset {ascii(args.dataset)} has a name that is not UTF-8: rename it, or a folder above it"
        )
    if not path.is_file() and not path.is_dir():
        raise UserError(f"dataset {path} is no file and no folder: give one of them")
    try:
        if path.is_file():
            return _read_archives([path], args) if is_archive(path) else read_files([path], args)
        return read_folder(path, args)
    except UserError as error:
        if str(error).startswith("dataset "):
            raise
        raise UserError(f"dataset {path}: {error}") from error
    except PermissionError as error:
        raise UserError(
            f"dataset {path}: {error.filename} cannot be read: {error.strerror}"
        ) from error


def read_folder(folder: Path, args: DataArguments) -> Found:
    """Read a folder by the first layout that fits, in it or in the one folder that wraps all of it.

    Raises:
        UserError: none fits, and why.
    """
    os.scandir(folder).close()  # one that nobody may look into is an error, not an empty one
    tree = walk(folder)
    bases = _bases(tree)
    for base in bases:
        inner = tree.root / base
        if is_food101_folder(inner):
            return read_food101_folder(tree, base)
        if is_saved(inner):
            return read_saved(tree, base, args)
        if has_configs(inner) and (tree.images or any(map(is_table, tree.others))):
            return read_configured(tree, base, args)
        if found := read_metadata(tree, base, args, _has_label_folders(tree, base)):
            return found
        if not _has_label_folders(tree, base) and (found := _read_others(tree, base, args)):
            return found
    found = read_label_folders(tree, bases[-1])
    notes = [note for base in bases for note in refuse_other_labels(tree, base, found, args)]
    return replace(found, notes=(*found.notes, *notes))


def _read_others(tree: Tree, base: str, args: DataArguments) -> Found | None:
    """Read tables or archives of a folder without label folders; None where there are none."""
    inside = [name for name in tree.others if name.startswith(base)]
    archives = [name for name in inside if is_archive(Path(name))]
    if archives and not tree.images:
        return _with_others(
            _read_archives([tree.root / name for name in archives], args), tree, set(archives)
        )
    return read_tables(tree, base, args) if any(map(is_table, inside)) else None


def _read_archives(archives: list[Path], args: DataArguments) -> Found:
    if all(is_tar(path.name) for path in archives):
        if found := read_webdataset(unpack(archives), archives):
            return found
    return read_folder(unpack(archives, together=are_parts(archives)), args)


def _read_glob(pattern: str, args: DataArguments) -> Found:
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in files if path.is_file()]
    if not files:
        raise UserError(f"dataset {pattern} fits no file: give a folder, a file or another pattern")
    if all(is_archive(path) for path in files):
        return _read_archives(files, args)
    return read_files(files, args)


def _bases(tree: Tree) -> list[str]:
    """List the folder itself, "", and those inside that alone hold everything, from the outside in."""
    content = [
        *tree.images,
        *(n for n in tree.others if is_table(n) or n.endswith(".arrow")),
        # An archive beside images is what they came out of.
        *(n for n in tree.others if is_archive(Path(n)) and not tree.images),
    ]
    bases, base = [""], ""
    while True:
        inside = [name[len(base) :].split("/") for name in content]
        tops = {parts[0] for parts in inside if len(parts) > 1}
        if len(tops) != 1:
            return bases
        (top,) = tops
        wrapper = _is_wrapper(tree, base, top, inside)
        if any(len(parts) == 1 for parts in inside) and not wrapper:
            return bases
        only_images = all(len(parts) == 2 for parts in inside) and not any(map(is_table, content))
        if split_of(top) or only_images:
            return bases
        beside = [f for f in tree.folders if f.startswith(base) and "/" not in f[len(base) :]]
        if len(beside) > 1 and tree.images and not wrapper:
            return bases  # the others may be labels without an image
        base = f"{base}{top}/"
        content = [name for name in content if name.startswith(base)]
        bases.append(base)


def _is_wrapper(tree: Tree, base: str, top: str, inside: list[list[str]]) -> bool:
    """Say whether a folder holds the data set, whatever lies beside it, and is no label."""
    # A split somewhere in it, with folders of labels: parts[-1] is a file, parts[-2] a label or deeper.
    splits = any(split_of(part) for parts in inside for part in parts[1:-2])
    return splits or is_food101_folder(tree.root / base / top)


def _has_label_folders(tree: Tree, base: str) -> bool:
    """Say whether images lie in at least two folders that are no splits, or in folders of a split."""
    parts = [name[len(base) :].split("/") for name in tree.images if name.startswith(base)]
    tops = {p[0] for p in parts if len(p) > 1}
    if any(split_of(p[0]) for p in parts if len(p) > 2):
        return True
    return len([top for top in tops if not split_of(top)]) > 1


def _with_others(found: Found, tree: Tree, archives: set[str]) -> Found:
    """Add what lies beside the archives to what was left out of them."""
    outside = [
        LeftOut(name, kind_of(name), "beside the data set")
        for name in tree.others
        if name not in archives
    ]
    left_out = (*found.left_out, *outside, *tree.left_out)
    return replace(found, left_out=left_out, faults=(*found.faults, *tree.faults))


def _is_no_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
