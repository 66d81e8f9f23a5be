"""Read what `save_to_disk` wrote, and what `load_dataset` knows by a README with `configs`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import datasets
import yaml
from datasets import Dataset, DatasetDict, load_dataset_builder, load_from_disk

from training.common.errors import UserError
from training.common.files import sha256_file
from training.data.arguments import DataArguments
from training.data.array_store import cache_folder
from training.data.found import Found, LeftOut
from training.data.layouts.archives import unpacked_around
from training.data.layouts.columns import as_piece, resolver
from training.data.layouts.tables import is_table, read_shared_out, refuse_split_column
from training.data.layouts.walk import Tree, kind_of
from training.data.splits import image_paths


def is_saved(folder: Path) -> bool:
    """Say whether `save_to_disk` of a Dataset or DatasetDict wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def has_configs(folder: Path) -> bool:
    """Say whether a README tells `datasets` where the splits are, as in a repository of the Hub.

    Facts about splits (`dataset_info`) do not say where they are.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    front = re.match(r"\A---\s*\n(.*?)\n---", readme.read_text("utf-8", "replace"), re.DOTALL)
    return bool(front) and re.search(r"^configs:", front[1], re.MULTILINE) is not None


def read_saved(tree: Tree, base: str, args: DataArguments) -> Found:
    """Read a saved Dataset, which is one split, or DatasetDict; each split keeps its own label names.

    Args:
        base: folder in the tree that was saved, with "/" at its end; "" is the tree's own.

    Raises:
        UserError: it is damaged, or a column cannot be chosen.
    """
    folder = tree.root / base
    try:
        saved = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"dataset {folder} cannot be read: {reason}") from error
    splits = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    inside = [f"{split}/" for split in splits] if isinstance(saved, DatasetDict) else [""]
    used = {folder / "dataset_dict.json"}
    used |= {
        folder / each / f"{name}.json" for each in inside for name in ("state", "dataset_info")
    }
    used |= {Path(file["filename"]) for each in splits.values() for file in each.cache_files}
    pieces = _pieces(splits, folder, args)
    what = f"a saved {type(saved).__name__} with {', '.join(splits)}"
    return _found(what, pieces, tree, set(map(str, used)))


def read_configured(tree: Tree, base: str, args: DataArguments) -> Found:
    """Read a folder as its README says: its tables as any, and the rest by `datasets`.

    `datasets` would cast the tables of all splits to the label names of the first.

    Args:
        base: folder in the tree with the README, with "/" at its end; "" is the tree's own.

    Raises:
        UserError: it cannot be read, or a column cannot be chosen.
    """
    folder = tree.root / base
    layout = "a folder as its README says"
    says_files = "data_files:" in (folder / "README.md").read_text("utf-8", "replace")
    try:
        builder = load_dataset_builder(str(folder))
        files = {
            str(split): [_relative(file, tree) for file in each]
            for split, each in (builder.config.data_files or {}).items()
        }
        if files and all(name and is_table(name) for each in files.values() for name in each):
            found = read_shared_out(tree, files, args)
            return replace(found, layout=f"{layout}: {found.layout}")
        if not says_files:  # datasets would look for words in paths, and find train in bullet_train
            raise ValueError("it gives no data_files for each split")
        # datasets knows files by their times: here content decides.
        cache = cache_folder() / "configured" / _content_of(tree)
        builder = load_dataset_builder(str(folder), cache_dir=str(cache))
        builder.download_and_prepare()
        splits: dict[str, Dataset] = builder.as_dataset()
    except (
        datasets.exceptions.DatasetsError, OSError, ValueError, TypeError, KeyError, yaml.YAMLError,
    ) as error:  # fmt: skip
        raise UserError(
            f"dataset {folder} cannot be read by its README.md: {_why(error)}"
        ) from error
    pieces = _pieces(splits, folder, args)
    used = {tree.path(name) for each in files.values() for name in each if name}
    return _found(f"{layout}, read by datasets", pieces, tree, used)


def _pieces(
    splits: dict[str, Dataset], folder: Path, args: DataArguments
) -> dict[str, list[Dataset]]:
    resolve = resolver([folder], unpacked_around(folder))
    if len(splits) == 1:
        refuse_split_column(next(iter(splits.values())), folder.name)
    return {
        split: [as_piece(each, args, f"{folder.name} ({split})", resolve)]
        for split, each in splits.items()
    }


def _found(layout: str, splits: dict[str, list[Dataset]], tree: Tree, used: set[str]) -> Found:
    """Add to what was read every file that is neither in `used` nor an image of a row."""
    used = used | {
        path for each in splits.values() for piece in each for path in image_paths(piece)
    }
    beside = [name for name in (*tree.images, *tree.others) if tree.path(name) not in used]
    left_out = [LeftOut(name, kind_of(name), "beside the data set") for name in beside]
    return Found(
        layout=layout,
        splits=splits,
        left_out=(*left_out, *tree.left_out),
        faults=tuple(tree.faults),
        root=tree.root,
    )


def _relative(file: str, tree: Tree) -> str:
    """Name a file relative to the tree; "" of one that lies elsewhere, or in an archive."""
    path = Path(file)
    return path.relative_to(tree.root).as_posix() if tree.root in path.parents else ""


def _content_of(tree: Tree) -> str:
    digest = hashlib.sha256()
    for name in (*tree.images, *tree.others):
        digest.update(f"{name} {sha256_file(tree.root / name)}\n".encode())
    return digest.hexdigest()[:32]


def _why(error: Exception) -> str:
    text = " ".join(str(error.__cause__ or error).split())
    if several := re.search(r"available configs: \[(.*?)\]", text):
        return f"it has several configs ({several[1]}): give the path of one's folder, or a glob of its files"
    return f"{text[:300]}; mend it, or move it away"
