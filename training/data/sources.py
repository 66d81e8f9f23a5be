"""Load the data set that a recipe names: from the Hub, from a disk, or the drawn sample."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, load_dataset_builder
from datasets.packaged_modules.parquet.parquet import ParquetConfig
from huggingface_hub import hf_hub_download

from training.common.errors import UserError
from training.common.paths import local_path, looks_local
from training.data.arguments import DataArguments
from training.data.found import Found
from training.data.layouts.columns import as_piece, resolver
from training.data.layouts.local import is_glob, read_local
from training.data.layouts.parquet import own_label_names
from training.data.layouts.tables import refuse_split_column
from training.data.sample import load_sample
from training.data.splits import Source


def load_source(args: DataArguments) -> tuple[Source, Found]:
    """Load all splits of the data set that `args` name, and say where it came from.

    Raises:
        UserError: the data set is missing, unreachable, empty or unreadable.
    """
    name = args.dataset
    if name == "sample":
        splits = {split: [each] for split, each in load_sample().items()}
        splits = {split: [as_undecoded(each[0])] for split, each in splits.items()}
        return Source("sample", "sample", None), Found("the drawn sample", splits)
    if is_glob(name) or looks_local(name):
        found = read_local(args)
        return Source(local_path(name).resolve().name, "local", None), found
    commit, found = _load_hub(args)
    return Source(name, "hub", commit), found


def as_undecoded(dataset: Dataset) -> Dataset:
    """Keep images encoded: rows have {"bytes", "path"}."""
    return dataset.cast_column("image", datasets.Image(decode=False))


def _load_hub(args: DataArguments) -> tuple[str | None, Found]:
    name, revision = args.dataset, args.dataset_revision
    try:
        builder = load_dataset_builder(name, revision=revision)
        builder.download_and_prepare()
    except datasets.exceptions.DatasetNotFoundError as error:
        raise UserError(f"dataset {name} is not on the Hub: {one_line(error)}") from error
    except (ValueError, RuntimeError, datasets.exceptions.DataFilesNotFoundError) as error:
        raise UserError(
            f"dataset {name} cannot be read ({one_line(error)}): download the files that you want, and give "
            "their folder"
        ) from error
    except (ConnectionError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(
            f"dataset {name} cannot be loaded: {one_line(error)}; check the network, or give a "
            "local folder with --dataset PATH"
        ) from error
    splits = builder.as_dataset()
    if len(splits) == 1:
        refuse_split_column(next(iter(splits.values())), name)
    # The builder's hash is the commit that was read, also offline and from the cache.
    commit = builder.hash if re.fullmatch("[0-9a-f]{40}", builder.hash or "") else None
    splits = {
        str(split): [
            as_piece(_own_names(each, builder, str(split), args), args, name, resolver([]))
        ]
        for split, each in splits.items()
    }
    return commit, Found(f"the Hub's {name} with {', '.join(splits)}", splits)


def _own_names(
    dataset: Dataset, builder: datasets.DatasetBuilder, split: str, args: DataArguments
) -> Dataset:
    """Give a split's labels the names that its own parquet files have for them.

    datasets casts every split to the features of the first one: ids stay, and names are swapped.

    Raises:
        UserError: files of one split number their labels differently.
    """
    columns = [n for n, f in dataset.features.items() if isinstance(f, ClassLabel)]
    if not isinstance(builder.config, ParquetConfig) or not columns:
        return dataset
    files = [_local_file(str(file)) for file in builder.config.data_files[split]]
    for column in columns:
        lists = {tuple(own_label_names(file, column) or ()) for file in files} - {()}
        if len(lists) > 1:
            raise UserError(
                f"the files of split {split} of {args.dataset} number the labels in {column} differently: "
                "write them with one list of names"
            )
        own = list(lists.pop()) if lists else None
        if own not in (None, dataset.features[column].names):
            features = dataset.features.copy()
            features[column] = ClassLabel(names=own)
            dataset = dataset.cast(features)  # keeps the ids, which are of these names
    return dataset


def _local_file(file: str) -> Path:
    """Find the local copy of a data file, which was downloaded before: a Hub address, or a path."""
    match = re.fullmatch(r"hf://datasets/([^/]+/[^/@]+|[^/@]+)@([^/]+)/(.+)", file)
    if match is None:
        return Path(file)
    return Path(hf_hub_download(match[1], match[3], repo_type="dataset", revision=match[2]))


def one_line(error: Exception) -> str:
    """Say in at most 300 characters on one line what an error of `datasets` was caused by."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300]
