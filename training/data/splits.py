"""What the rooms hand to each other: images with labels, where they are from, and what names them.

A row's `image` is {"bytes", "path"}, as `datasets` stores it without decoding: the encoded bytes,
or None where they are in a local file, and its path. `image_source` and `encoded_bytes` decide
between the two for everybody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset

from training.data.found import LeftOut


@dataclass(frozen=True)
class Source:
    """Where images came from, in words that a stranger can check."""

    dataset: str  # Hub id, `sample`, or the last part of a local path
    kind: str  # hub | local | sample
    revision: str | None  # commit of a Hub data set; None where it is none, or is not known


@dataclass(frozen=True)
class Split:
    """Encoded images with labels, all of which the scan could decode.

    `dataset` has the columns `image` and `label`; `fingerprint` is the SHA-256 of `fingerprint_of`.
    """

    name: str
    dataset: Dataset
    label_names: list[str]
    fingerprint: str
    content: tuple[str, ...] = field(repr=False)  # SHA-256 of each image's encoded bytes
    left_out: int = 0  # images that could not be used: not decoded, no label, two labels
    # Files relative to the data set; "" of a row without one.
    paths: tuple[str, ...] = field(repr=False, default=())
    cut: Cut | None = None  # how it was cut out of another split; None: it is one of the data set

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, rows: list[int], name: str | None = None) -> Split:
        """Make a split of some of the rows, in this order; None keeps the name."""
        dataset, content = self.dataset.select(rows), tuple(self.content[i] for i in rows)
        return Split(
            name or self.name,
            dataset,
            self.label_names,
            fingerprint_of(self.label_names, dataset["label"][:], content),
            content,
            paths=tuple(self.paths[i] for i in rows),
        )


@dataclass(frozen=True)
class Splits:
    """What one run trains on, selects its checkpoint on and reports on."""

    source: Source
    train: Dataset
    selection: Split
    test: Split
    label_names: list[str]
    train_fingerprint: str
    train_split: str  # the name that it has in the data set
    selection_fraction: float | None  # of what was left of train; None: selection is a split
    left_out: int  # from the training split, before anything is cut from it
    identical_train_test: int  # test images with a byte-identical training image
    train_cache: dict[str, Any] | None = None  # `Cache.summary()`; None: `train` was not reduced
    originals: Split | None = None  # the rows of `train` with the images as they were before that
    inventory: Inventory | None = None  # everything that was found


@dataclass(frozen=True)
class Cut:
    """How a split was cut out of another one, so that it can be made again."""

    of: str  # the split that it was cut from
    fraction: float  # the share that was asked for
    seed: int
    content: (
        str  # SHA-256 of the labels and contents of all of that split, in an order of their own
    )


@dataclass(frozen=True)
class Inventory:
    """What a data set holds, used or not: images used, and left out, make what was found."""

    layout: str
    num_found: int  # files or rows
    left_out: tuple[LeftOut, ...]
    unusable: tuple[LeftOut, ...]  # those of them that stop a run unless it is told to skip them
    unused: dict[str, int]  # splits that are not used, with their numbers of rows


def fingerprint_of(names: list[str], labels: Iterable[int], content: Iterable[str]) -> str:
    """Compute the SHA-256 over every image's label name and content, in order.

    Args:
        names: label names in the order of their ids.
        labels: the id of each image's label.
        content: the SHA-256 of each image's encoded bytes.
    """
    digest = hashlib.sha256()
    for label, sha256 in zip(labels, content, strict=True):
        digest.update(f"{names[label]} {sha256}\n".encode())
    return digest.hexdigest()


def image_source(image: dict[str, Any]) -> bytes | str:
    """Choose what `decode_image` takes of a row's `image`: the embedded bytes, or a file's path."""
    return image["bytes"] if image["bytes"] is not None else image["path"]


def encoded_bytes(image: dict[str, Any]) -> bytes:
    """Read the encoded bytes of a row's `image`: the embedded ones, or those of its file.

    Raises:
        OSError: the file is gone, or cannot be read.
    """
    source = image_source(image)
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def in_arrow(dataset: Dataset) -> Dataset:
    """Let `dataset` give its rows as an Arrow table, which `rows_at` takes apart.

    datasets' own conversion to Python costs ten times the fetch.
    """
    return dataset.with_format("arrow", columns=["image", "label"])


def rows_at(dataset: Dataset, positions: list[int]) -> Iterator[tuple[bytes | str, int]]:
    """Yield (encoded bytes or path, label id) of each position; `dataset` comes from `in_arrow`."""
    table = dataset[positions]
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    return zip(map(image_source, images), labels, strict=True)


def image_paths(dataset: Dataset) -> list[str]:
    """List the path of every row's image, "" where it has none; no image is read."""
    paths: list[str] = []
    for table in dataset.select_columns("image").with_format("arrow").iter(batch_size=1000):
        column = pc.struct_field(table["image"], "path")
        paths += [path or "" for path in column.to_pylist()]
    return paths
