# SPDX-License-Identifier: Apache-2.0
"""Evaluation input after the first pass: decoded once, then read; on one core.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

What the second and every later evaluation of the same images pays until a batch is ready to be
sent to the device. The Trainer example decodes again and collates float32; the product copies
uint8 from its cache into the same staging buffer each time, as pinned memory is used. The limit is
that copy from ordinary memory. The first pass, which fills the cache, has a table of its own; its
time is wall time, because a worker process decodes and the disk is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import datasets
import torch
from common import (
    ExampleWay,
    Group,
    build,
    decode_example,
    describe_photographs,
    parser,
    photograph_paths,
    report,
)
from datasets import Dataset, Features, Image, Value
from machine import environment, one_core

from training.data.array_store import cache_folder
from training.data.splits import Split
from training.input.batch import collate, to_model_input
from training.input.eval_images import CachedImages, EvalImages, evaluation_images

BATCH, LIMIT_GB = 64, 16
PEER = "example's way"


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, rounds=9).parse_args(argv)
    paths = photograph_paths(args.photographs, 6 if args.toy else 480)
    start = environment()
    with own_cache(), one_core():
        work = Work([path.read_bytes() for path in paths], 32 if args.toy else 224)
        count = len(paths)
        groups = [
            Group("later evaluation input", PEER, "image", count, work.later(), ("cpu", "wall")),
            Group("first evaluation input", PEER, "image", count, work.first(), ("wall",)),
        ]
        rows = [row for group in groups for row in group.measure(args.rounds)]
        same = work.same_pixels()
    print(f"  pixels of the cache and of decoding are the same: {same}")
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        example=work.example.how,
        batch_size=BATCH,
        same_pixels=same,
    )


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """A folder for the time of the benchmark: nobody's cache is read or filled."""
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(datasets.config, "HF_DATASETS_CACHE", folder):
            yield


class Work:
    """The variants over one list of encoded images."""

    def __init__(self, images: list[bytes], size: int) -> None:
        self.images = images
        self.example = ExampleWay(size)
        config = {"image_size": size, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 1, "intermediate_size": 32}
        self.preprocessing = build(config).preprocessing
        self.split = split_of(images)
        self.decoded = EvalImages(self.split.dataset, self.preprocessing)
        self.cached = self.open()
        self.staging = torch.zeros((BATCH, 3, size, size), dtype=torch.uint8)
        self.ordinary = self.cached.pixels.clone()

    def open(self) -> CachedImages:
        images = evaluation_images(self.split, self.preprocessing, LIMIT_GB)
        if not isinstance(images, CachedImages):
            raise SystemExit("there is no room for the cache in the folder of temporary files")
        return images

    def later(self) -> dict[str, Callable[[], Any]]:
        return {
            PEER: self.example_batches,
            "ours, decoded again": lambda: self.send(self.decoded),
            "ours, from the cache": lambda: self.send(self.cached),
            "ours, in another process": lambda: self.send(self.open()),  # key, file, page faults
            "cache and normalised here": self.normalised,
            "limit: copy in memory": self.copy,
        }

    def first(self) -> dict[str, Callable[[], Any]]:
        return {
            PEER: self.example_batches,
            "ours, without a cache": lambda: self.send(self.decoded),
            "ours, filling the cache": self.fill,
        }

    def example_batches(self) -> None:
        for first in range(0, len(self.images), BATCH):
            batch = self.images[first : first + BATCH]
            torch.stack([self.example.evaluate(decode_example(data)) for data in batch])

    def send(self, images: EvalImages | CachedImages) -> None:
        for batch in batches(images):
            pixels = batch["pixel_values"]
            self.staging[: len(pixels)].copy_(pixels)

    def normalised(self) -> None:
        for batch in batches(self.cached):
            to_model_input(batch, self.preprocessing)

    def copy(self) -> None:
        for pixels in self.ordinary.split(BATCH):
            self.staging[: len(pixels)].copy_(pixels)

    def fill(self) -> None:
        for file in cache_folder().glob("eval-*.npy"):
            file.unlink()
        self.send(self.open())

    def same_pixels(self) -> bool:
        pairs = zip(batches(self.open()), batches(self.decoded), strict=True)
        return all(torch.equal(a[key], b[key]) for a, b in pairs for key in b)


def batches(images: EvalImages | CachedImages) -> Iterator[dict[str, torch.Tensor]]:
    for first in range(0, len(images), BATCH):
        positions = list(range(first, min(first + BATCH, len(images))))
        yield collate(images.__getitems__(positions))


def split_of(images: list[bytes]) -> Split:
    rows = {"image": [{"bytes": data, "path": None} for data in images], "label": [0] * len(images)}
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    content = tuple(hashlib.sha256(data).hexdigest() for data in images)
    return Split("test", Dataset.from_dict(rows, features), ["dish"], "", content)


if __name__ == "__main__":
    sys.exit(main())
