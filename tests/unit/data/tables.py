# SPDX-License-Identifier: Apache-2.0
"""Small data sets as folders and parquet files, and the keys to load them with."""

from pathlib import Path

import datasets
from datasets import Dataset, Features, Image

from tests.unit.toys import jpeg
from training.data.arguments import DataArguments
from training.data.scan import look_at

FOOD101_ORDER = ["cheesecake", "cheese_plate", "pizza"]


def arguments(dataset: object, **values: object) -> DataArguments:
    """The keys about data, with a slice that a few images can give."""
    return DataArguments(dataset=str(dataset), **{"selection_fraction": 0.25, **values})


def hashes(dataset: Dataset) -> list[str]:
    """What an image is, wherever it lies."""
    return [look_at(image).sha256 for image in dataset["image"]]


def write_parquet(folder: Path, rows: dict[str, list], features: Features) -> Path:
    """One file for both splits; images go in as bytes."""
    folder.mkdir(parents=True)
    dataset = Dataset.from_dict(rows, features=features)
    # Dataset.to_parquet writes paths unless the files were embedded before.
    dataset = dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    for split in ("train", "validation"):
        dataset.with_format(None).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def dishes(
    label_feature: object, labels: list, image: str = "image", label: str = "label"
) -> tuple[dict[str, list], Features]:
    """Rows with an image of its own for each of `labels`, and their features."""
    rows = {image: [{"bytes": jpeg(i), "path": None} for i in range(len(labels))], label: labels}
    return rows, Features({image: Image(), label: label_feature})
