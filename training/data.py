"""Images and labels: a Hub id, a local folder or parquet, or the sample -> `Splits`.

Three splits, each with one use: `train` updates weights, `selection` (a stratified slice of the
data set's own training split) chooses the checkpoint, `test` is scored once, after training.
The Hub's food101 calls its official, reviewed 25,250-image test set `validation`.
Images stay encoded: every split has the columns `image` ({"bytes", "path"}) and `label`.
With `train_short_side` the images of `train` come from a cache; those of the others never do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    Value,
    load_dataset,
    load_dataset_builder,
)

from training.cache import Cache, find_or_build
from training.config import DataArguments
from training.errors import UserError
from training.sample import load_sample
from training.scan import local_main_first, scan_images


@dataclass(frozen=True)
class Source:
    """Where images came from, in words that a stranger can check."""

    dataset: str  # Hub id, `sample`, or the last part of a local path
    kind: str  # hub | local | sample
    revision: str | None  # commit of a Hub data set


@dataclass(frozen=True)
class Split:
    """Encoded images with labels, and what the scan found.

    `fingerprint` is a sha256 over every image's content and label name, in order.
    """

    name: str
    dataset: Dataset
    label_names: list[str]
    fingerprint: str
    content: tuple[str, ...] = field(repr=False)  # sha256 of each image
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(frozen=True)
class Splits:
    """What one run trains on, selects on and reports on."""

    source: Source
    train: Dataset
    selection: Split
    test: Split
    label_names: list[str]
    train_fingerprint: str
    left_out: int  # from the training split, before the selection slice is cut
    identical_train_test: int  # test images with a byte-identical training image
    train_cache: dict[str, Any] | None = None  # how `train` was reduced; none: the originals
    originals: Split | None = None  # the images of `train`, as they were before that


def load_splits(args: DataArguments) -> Splits:
    """Load, scan and cut the three splits; the same on every process.

    Raises:
        UserError: data missing, unreachable or unusable; the message says what to change.
    """
    source, everything = _load(args)
    train = _scan(_select(everything, args.train_split, args), args.train_split, args)
    test = _scan(_select(everything, args.test_split, args), args.test_split, args)
    if args.train_split == args.test_split:
        raise UserError(
            f"train_split and test_split are both {args.train_split}: the report would be on training data"
        )
    if train.label_names != test.label_names:
        raise UserError(
            f"{args.train_split} and {args.test_split} have different labels: "
            f"{_differ(train.label_names, test.label_names)}"
        )
    _refuse_untrained(test, train)
    kept, chosen = _cut_selection(train, args)
    cache, images = None, train.dataset
    if args.train_short_side is not None:
        cache, images = open_cache(train, args.train_short_side)
    return Splits(
        source=source,
        train=images.select(kept),
        selection=_slice(train, chosen, "selection"),
        test=test,
        label_names=train.label_names,
        train_fingerprint=train.fingerprint,
        left_out=train.left_out,
        identical_train_test=_count_identical(test, train),
        train_cache=cache.summary() if cache else None,
        originals=_slice(train, kept, "training"),
    )


def open_cache(train: Split, short_side: int) -> tuple[Cache, Dataset]:
    """The cache of a training split and its images, rows in the split's order."""
    with local_main_first():
        cache = find_or_build(train, short_side)
        return cache, cache.open()


def _refuse_untrained(test: Split, train: Split) -> None:
    """A folder's splits share one list of labels, whichever of them have images."""
    unseen = set(test.dataset["label"][:]) - set(train.dataset["label"][:])
    if unseen:
        names = _some([test.label_names[i] for i in sorted(unseen)])
        raise UserError(
            f"{train.name} and {test.name} have different labels: {train.name} has no image of {names}"
        )


def _count_identical(test: Split, train: Split) -> int:
    seen = set(train.content)
    return sum(sha256 in seen for sha256 in test.content)


def load_split(
    args: DataArguments, split: str, label_names: list[str] | None = None
) -> tuple[Source, Split]:
    """Load and scan one split; with `label_names`, number the labels as that model does.

    Raises:
        UserError: as `load_splits`, and where the label set differs from `label_names`.
    """
    source, everything = _load(args)
    dataset = _select(everything, split, args)
    if label_names is not None:
        dataset = align_labels(dataset, label_names)
    return source, _scan(dataset, split, args)


def align_labels(dataset: Dataset, label_names: list[str]) -> Dataset:
    """Renumber labels by name: food101's own order is not the sorted one (ids 16 and 17)."""
    names = dataset.features["label"].names
    if set(names) != set(label_names):
        raise UserError(f"the data set's labels are not the model's: {_differ(names, label_names)}")
    if names == label_names:
        return dataset
    return dataset.align_labels_with_mapping(
        {name: i for i, name in enumerate(label_names)}, "label"
    )


def _differ(left: list[str], right: list[str]) -> str:
    only_left, only_right = sorted(set(left) - set(right)), sorted(set(right) - set(left))
    return (
        f"{len(left)} against {len(right)} labels; only in the first: {_some(only_left)}; "
        f"only in the second: {_some(only_right)}"
    )


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    )


# ---- loading ----------------------------------------------------------------------------------


def _load(args: DataArguments) -> tuple[Source, DatasetDict]:
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
        raise UserError(f"dataset {path} cannot be read: {_one_line(error)}") from error


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
        raise UserError(f"dataset {name} is not on the Hub: {_one_line(error)}") from error
    except (ConnectionError, OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise UserError(
            f"dataset {name} cannot be loaded: {_one_line(error)}; check the network, or give a "
            "local folder with --dataset PATH"
        ) from error
    # The builder's hash is the commit that was read, also offline and from the cache.
    commit = builder.hash if re.fullmatch("[0-9a-f]{40}", builder.hash or "") else None
    return commit, builder.as_dataset()


def _one_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:300]


# ---- columns and splits -----------------------------------------------------------------------


def _select(everything: DatasetDict, split: str, args: DataArguments) -> Dataset:
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


def _cut_selection(train: Split, args: DataArguments) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to select on."""
    features = Features({"label": ClassLabel(names=train.label_names), "row": Value("int64")})
    columns = {"label": train.dataset["label"][:], "row": range(len(train))}
    rows = Dataset.from_dict(columns, features)
    try:
        parts = rows.train_test_split(
            test_size=args.selection_fraction, stratify_by_column="label", seed=args.split_seed
        )
    except ValueError as error:
        raise UserError(
            f"selection_fraction {args.selection_fraction} of {len(train)} images with {len(train.label_names)} "
            f"labels cannot be cut by label: {_one_line(error)}; give a larger share or more images"
        ) from error
    return parts["train"]["row"][:], parts["test"]["row"][:]


def _slice(train: Split, rows: list[int], name: str) -> Split:
    dataset, content = train.dataset.select(rows), tuple(train.content[i] for i in rows)
    fingerprint = _fingerprint(train.label_names, dataset["label"][:], content)
    return Split(name, dataset, train.label_names, fingerprint, content)


# ---- the scan: every image is decoded once before the first step -------------------------------


def _scan(dataset: Dataset, split: str, args: DataArguments) -> Split:
    found = scan_images(dataset, split)
    bad = [i for i, error in enumerate(found["error"]) if error]
    names = dataset.features["label"].names
    if bad and args.undecodable_images == "stop":
        raise UserError(
            f"image {bad[0]} of split {split} ({found['path'][bad[0]] or 'no path'}): {found['error'][bad[0]]}; "
            f"{len(bad)} such images; repair them, or leave them out with --undecodable_images skip"
        )
    good = sorted(set(range(len(dataset))) - set(bad))
    if not good:
        raise UserError(f"split {split} of {args.dataset} has no image that can be decoded")
    kept = dataset.select(good) if bad else dataset
    content = tuple(found["sha256"][i] for i in good)
    return Split(
        name=split,
        dataset=kept,
        label_names=names,
        fingerprint=_fingerprint(names, kept["label"][:], content),
        content=content,
        left_out=len(bad),
    )


def _fingerprint(names: list[str], labels: Iterable[int], content: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for label, sha256 in zip(labels, content, strict=True):
        digest.update(f"{names[label]} {sha256}\n".encode())
    return digest.hexdigest()
