"""TODO."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
)


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


def fingerprint_of(names: list[str], labels: Iterable[int], content: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for label, sha256 in zip(labels, content, strict=True):
        digest.update(f"{names[label]} {sha256}\n".encode())
    return digest.hexdigest()


def read_image(image: dict[str, Any]) -> bytes:
    """The encoded bytes; none where the file has gone."""
    source = image_bytes(image)
    try:
        return source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError:
        return b""


def image_bytes(image: dict[str, Any]) -> bytes | str:
    """What `decode_image` takes: the embedded bytes, or the path of a local folder's file."""
    return image["bytes"] if image["bytes"] is not None else image["path"]


def in_arrow(dataset: Dataset) -> Dataset:
    """Rows as an Arrow table: datasets' own conversion to Python costs ten times the fetch."""
    return dataset.with_format("arrow", columns=["image", "label"])


def rows_at(dataset: Dataset, positions: list[int]) -> Iterator[tuple[bytes | str, int]]:
    """(encoded bytes or path, class id) of each position, from what `in_arrow` gives."""
    table = dataset[positions]
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    return zip(map(image_bytes, images), labels, strict=True)
