"""The data set itself, from the Hub, a local folder, a parquet file or the drawn sample.

Whatever the source, `select_split` gives encoded images in `image` and a ClassLabel in `label`.
"""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Image,
    load_dataset,
    load_dataset_builder,
)

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.sample import load_sample
from training.data.splits import Source


def load_source(args: DataArguments) -> tuple[Source, DatasetDict]:
    """Load all splits of the data set that `args` name, and say where it came from.

    Raises:
        UserError: the data set is missing, unreachable, empty or unreadable.
    """
    name = args.dataset
    if name == "sample":
        return Source("sample", "sample", None), load_sample()
    if _looks_local(name):
        path = Path(name).expanduser()
        return Source(path.resolve().name, "local", None), _load_local(path)
    commit, everything = _load_hub(name, args.dataset_revision)
    return Source(name, "hub", commit), everything


def _looks_local(name: str) -> bool:
    return (
        Path(name).expanduser().exists() or name.startswith((".", "/", "~")) or name.count("/") != 1
    )


def _load_local(path: Path) -> DatasetDict:
    if not path.exists():
        raise UserError(
            f"dataset {path} does not exist: give a folder, a parquet file or a Hub id (user/name)"
        )
    try:
        if path.is_file():
            return load_dataset(_format_of(path), data_files={"train": str(path)})
        if not any(p.is_file() for p in path.rglob("*")):
            raise UserError(
                f"dataset {path} is empty: put images in {path}/train/<label>/ and {path}/validation/<label>/"
            )
        return load_dataset(str(path.resolve()))
    except (datasets.exceptions.DatasetGenerationError, FileNotFoundError, ValueError) as error:
        raise UserError(f"dataset {path} cannot be read: {one_line(error)}") from error


def _format_of(path: Path) -> str:
    if path.suffix != ".parquet":
        raise UserError(
            f"dataset {path} is a {path.suffix or 'plain'} file: give a folder or a .parquet file"
        )
    return "parquet"


def _load_hub(name: str, revision: str | None) -> tuple[str | None, DatasetDict]:
    try:
        builder = load_dataset_builder(name, revision=revision)
        builder.download_and_prepare()
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"dataset {name} is not on the Hub: {one_line(error)}") from error
    except (ConnectionError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(
            f"dataset {name} cannot be loaded: {one_line(error)}; check the network, or give a "
            "local folder with --dataset PATH"
        ) from error
    # The builder's hash is the commit that was read, also offline and from the cache.
    commit = builder.hash if re.fullmatch("[0-9a-f]{40}", builder.hash or "") else None
    return commit, builder.as_dataset()


def one_line(error: Exception) -> str:
    """Say in at most 300 characters on one line what an error of `datasets` was caused by."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300]


def select_split(everything: DatasetDict, split: str, args: DataArguments) -> Dataset:
    """Take one split, with its images still encoded in `image` and its labels in `label`.

    Raises:
        UserError: no such split or column, no images in the column, no names for the labels, or no
            row.
    """
    if split not in everything:
        raise UserError(
            f"dataset {args.dataset} has no split {split}: it has {', '.join(everything)}; "
            "set train_split or test_split"
        )
    dataset = everything[split]
    for key in ("image_column", "label_column"):
        column = getattr(args, key)
        if column not in dataset.column_names:
            raise UserError(
                f"no column {column} in {args.dataset}: it has {', '.join(dataset.column_names)}; set {key}"
            )
    if not isinstance(dataset.features[args.image_column], Image):
        raise UserError(
            f"column {args.image_column} of {args.dataset} holds no images: set image_column to one "
            f"of {', '.join(dataset.column_names)}"
        )
    dataset = dataset.select_columns([args.image_column, args.label_column])
    dataset = dataset.rename_columns(
        {
            old: new
            for old, new in ((args.image_column, "image"), (args.label_column, "label"))
            if old != new
        }
    )
    if not isinstance(dataset.features["label"], ClassLabel):
        dataset = _name_labels(dataset, args)
    if len(dataset) == 0:
        raise UserError(f"split {split} of {args.dataset} is empty")
    return dataset.cast_column("image", Image(decode=False))


def _name_labels(dataset: Dataset, args: DataArguments) -> Dataset:
    if dataset.features["label"].dtype not in ("string", "large_string"):
        raise UserError(
            f"column {args.label_column} of {args.dataset} has numbers without names: it must be a "
            "ClassLabel or strings"
        )
    return dataset.class_encode_column("label")
