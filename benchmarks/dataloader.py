# SPDX-License-Identifier: Apache-2.0
"""A whole DataLoader over a Parquet file with embedded images, as the Hub's food101 is stored.

    python benchmarks/dataloader.py --json benchmarks/results/dataloader.json

Two workers, batch 32, persistent workers, prefetch 4, one epoch a round, wall time; the example's
way gets the same workers (its own default is none).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ExampleWay, Group, build, describe_photographs, parser, photograph_paths, report
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from machine import environment
from torch.utils.data import DataLoader

from training.input.arguments import Augmentation
from training.input.batch import EpochSampler, collate, to_model_input
from training.input.train_images import TrainImages, random_resized_crop

PEER = "example's way"


def main(argv: list[str] | None = None) -> int:
    p = parser(__doc__, rounds=7)
    p.add_argument("--workers", type=int, default=2)
    args = p.parse_args(argv)
    paths = photograph_paths(args.photographs, 8 if args.toy else 640)
    batch, size = (4, 32) if args.toy else (32, 224)
    start = environment()
    with tempfile.TemporaryDirectory() as folder:
        dataset = parquet(paths, Path(folder))
        options = {"batch_size": batch, "num_workers": args.workers, "drop_last": True}
        options |= {"persistent_workers": True, "prefetch_factor": 4}
        example, loaders = ExampleWay(size), Loaders(dataset, size, options)
        group = Group("loader", PEER, "image", len(paths) // batch * batch)
        group.variants = {
            PEER: loaders.epoch_of(loaders.example(example)),
            "ours": loaders.epoch_of(loaders.ours("off")),
            "ours and normalised here": loaders.normalised(loaders.ours("off")),
            "ours, reduced decoding loose": loaders.epoch_of(loaders.ours("loose")),
        }
        rows = group.measure(args.rounds)
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        example=example.how,
        loader={**options, "dataset": "Parquet, embedded bytes"},
    )


def parquet(paths: list[Path], folder: Path) -> Any:
    """One Parquet file with the bytes inside, opened as the Hub's would be."""
    features = Features({"image": Image(), "label": ClassLabel(names=[f"d{i}" for i in range(10)])})
    columns = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "label": [i % 10 for i in range(len(paths))],
    }
    file = folder / "train.parquet"
    Dataset.from_dict(columns, features=features).to_parquet(str(file))
    return load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(folder / "cache")
    )


class Loaders:
    """Loaders over the same rows that differ in the transform and its place."""

    def __init__(self, dataset: Any, size: int, options: dict[str, Any]) -> None:
        self.dataset, self.options = dataset, options
        config = {"image_size": size, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 1, "intermediate_size": 32}
        self.preprocessing = build(config).preprocessing

    def example(self, way: ExampleWay) -> DataLoader:
        """`with_transform` and a collate function of float tensors, as the example has them."""
        rng = np.random.default_rng(0)

        def transform(rows: dict[str, list]) -> dict[str, list]:
            pixels = []
            for image in rows["image"]:
                box = random_resized_crop(image.height, image.width, (0.08, 1.0), rng)
                pixels.append(way.train(image, box, bool(rng.random() < 0.5)))
            return {"pixel_values": pixels, "labels": rows["label"]}

        data = self.dataset.with_transform(transform)
        return DataLoader(data, shuffle=True, collate_fn=collate, **self.options)

    def ours(self, reduced: str) -> DataLoader:
        rows = self.dataset.cast_column("image", Image(decode=False))
        images = TrainImages(rows, self.preprocessing, Augmentation([0.08, 1.0], 0.5, reduced), 0)
        sampler = EpochSampler(len(rows), self.options["batch_size"], seed=0)
        return DataLoader(images, sampler=sampler, collate_fn=collate, **self.options)

    def epoch_of(self, loader: DataLoader) -> Any:
        def call() -> None:
            for batch in loader:
                assert batch["pixel_values"].dtype in (torch.uint8, torch.float32)

        return call

    def normalised(self, loader: DataLoader) -> Any:
        """The device's work done in the main process, which competes with the workers here."""

        def call() -> None:
            for batch in loader:
                to_model_input(batch, self.preprocessing)

        return call


if __name__ == "__main__":
    sys.exit(main())
