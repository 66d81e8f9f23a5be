"""Read what `save_to_disk` wrote, and what `load_dataset` knows by a README with `configs`."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, load_dataset_builder, load_from_disk

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found
from training.data.layouts.columns import as_piece, resolver


def is_saved(folder: Path) -> bool:
    """Say whether `save_to_disk` of a Dataset or DatasetDict wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def has_configs(folder: Path) -> bool:
    """Say whether a README tells `datasets` where the splits are, as in a repository of the Hub."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    front = re.match(r"\A---\s*\n(.*?)\n---", readme.read_text("utf-8", "replace"), re.DOTALL)
    return (
        bool(front) and re.search(r"^(configs|dataset_info):", front[1], re.MULTILINE) is not None
    )


def read_saved(folder: Path, args: DataArguments) -> Found:
    """Read a saved Dataset, which is one split, or DatasetDict; each split keeps its own label names.

    Raises:
        UserError: it is damaged, or a column cannot be chosen.
    """
    try:
        saved = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"dataset {folder} cannot be read: {reason}") from error
    splits = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
    what = "DatasetDict" if isinstance(saved, DatasetDict) else "Dataset"
    return Found(
        layout=f"a saved {what} with {', '.join(splits)}",
        splits={
            split: [as_piece(each, args, f"{folder.name} ({split})", resolver([folder]))]
            for split, each in splits.items()
        },
        root=folder.resolve(),
    )


def read_configured(folder: Path, args: DataArguments) -> Found:
    """Read a folder as `datasets` does, which follows the README.

    Raises:
        UserError: it cannot be read, or a column cannot be chosen.
    """
    try:
        builder = load_dataset_builder(str(folder.resolve()))
        builder.download_and_prepare(download_mode="reuse_cache_if_exists")
        splits: dict[str, Dataset] = builder.as_dataset()
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"dataset {folder} cannot be read by its README: {reason}") from error
    return Found(
        layout="a folder as its README says, read by datasets",
        splits={
            split: [as_piece(each, args, f"{folder.name} ({split})", resolver([folder]))]
            for split, each in splits.items()
        },
        root=folder.resolve(),
    )
