# SPDX-License-Identifier: Apache-2.0
"""JPEG bytes in memory -> training or evaluation tensor, on one core.

    python benchmarks/input.py --json benchmarks/results/input.json

Every variant gets the same photographs and the same seeded crop boxes and flips. The product hands
uint8 to the device and normalises there; the rows `... and normalised here` add that work on the
same core, so that both ends can be compared.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from common import (
    ExampleWay,
    Group,
    build,
    decode_example,
    describe_photographs,
    encoded_rows,
    jpeg_size,
    parser,
    photograph_paths,
    report,
)
from machine import environment, one_core
from PIL import Image

from inference import food_images
from training.data.shards import reduce_short_side
from training.input.arguments import Augmentation
from training.input.batch import collate, to_model_input
from training.input.eval_images import EvalImages
from training.input.train_images import TrainImages, random_resized_crop

SEED, BATCH, SCALE = 0, 32, (0.08, 1.0)
PEER = "example's way"


def main(argv: list[str] | None = None) -> int:
    args = parser(__doc__, rounds=9).parse_args(argv)
    paths = photograph_paths(args.photographs, 6 if args.toy else 120)
    images = [path.read_bytes() for path in paths]
    size = 32 if args.toy else 224
    start = environment()
    work = Input(images, size)
    with one_core():
        groups = [
            Group("train input", PEER, "image", len(images), work.train_variants(), ("cpu",)),
            Group("evaluation input", PEER, "image", len(images), work.eval_variants(), ("cpu",)),
        ]
        rows = [row for group in groups for row in group.measure(args.rounds)]
        differences = work.differences()
    for name, difference in differences.items():
        print(f"  {name:34} mean |d| {difference['mean']:.4f}, max {difference['max']:.0f} of 255")
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        example=work.example.how,
        pixel_difference_to_pillow=differences,
    )


class Input:
    """The variants over one list of encoded images."""

    def __init__(self, images: list[bytes], size: int) -> None:
        self.images, self.size = images, size
        self.example = ExampleWay(size)
        config = {"image_size": size, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 1, "intermediate_size": 32}
        self.preprocessing = build(config).preprocessing
        self.draws = [self._draw(i) for i in range(len(images))]
        self.cache = [reduce_short_side(data, 256) for data in images]

    def _draw(self, position: int) -> tuple[tuple[int, int, int, int], bool]:
        """The box and the flip that TrainImages draws for this position in epoch 0."""
        rng = np.random.default_rng((SEED, 0, position))
        box = random_resized_crop(*jpeg_size(self.images[position]), SCALE, rng)
        return box, bool(rng.random() < 0.5)

    def train_variants(self) -> dict[str, Callable[[], Any]]:
        exact, cached = self.ours(), self.ours(images=self.cache)
        strict, loose = self.ours("strict"), self.ours("loose")
        return {
            PEER: self.example_train,
            "ours": lambda: batches(exact),
            "ours and normalised here": lambda: self.normalised(exact),
            "ours, Pillow only": lambda: self.with_pillow(exact),
            "ours, reduced decoding strict": lambda: batches(strict),
            "ours, reduced decoding loose": lambda: batches(loose),
            "ours, short-side-256 cache": lambda: batches(cached),
            "cache and normalised here": lambda: self.normalised(cached),
            **self.limit(),
        }

    def eval_variants(self) -> dict[str, Callable[[], Any]]:
        ours = EvalImages(encoded_rows(self.images), self.preprocessing)
        return {
            PEER: self.example_evaluate,
            "ours": lambda: batches(ours),
            "ours and normalised here": lambda: self.normalised(ours),
            "ours, Pillow only": lambda: self.with_pillow(ours),
            **self.limit(),
        }

    def ours(self, reduced: str = "off", images: list[bytes] | None = None) -> TrainImages:
        augmentation = Augmentation(SCALE, 0.5, reduced)
        return TrainImages(
            encoded_rows(images or self.images), self.preprocessing, augmentation, SEED
        )

    def example_train(self) -> None:
        pairs = list(zip(self.images, self.draws, strict=True))
        for first in range(0, len(pairs), BATCH):  # a batch is alive at a time, as with ours
            batch = pairs[first : first + BATCH]
            [self.example.train(decode_example(data), *draw) for data, draw in batch]

    def example_evaluate(self) -> None:
        for first in range(0, len(self.images), BATCH):
            batch = self.images[first : first + BATCH]
            [self.example.evaluate(decode_example(data)) for data in batch]

    def normalised(self, dataset: Any) -> None:
        for examples in iterate(dataset):
            to_model_input(collate(examples), self.preprocessing)

    def with_pillow(self, dataset: Any) -> None:
        with pillow_only():
            batches(dataset)

    def limit(self) -> dict[str, Callable[[], Any]]:
        if (simplejpeg := food_images.simplejpeg) is None:
            return {}

        def decode() -> None:
            for data in self.images:
                simplejpeg.decode_jpeg(data, "RGB")

        return {"limit: simplejpeg decode alone": decode}

    # ---- pixels --------------------------------------------------------------------------------

    def differences(self) -> dict[str, dict[str, float]]:
        """Against Pillow: full decode, crop, resize; before flip and normalisation."""
        found = {PEER: self._difference([self._example_pixels(i) for i in range(len(self.images))])}
        variants = {
            "ours": self.ours(),
            "ours, reduced decoding strict": self.ours("strict"),
            "ours, reduced decoding loose": self.ours("loose"),
            "ours, short-side-256 cache": self.ours(images=self.cache),
        }
        for name, dataset in variants.items():
            found[name] = self._difference(pixels_of(dataset))
        with pillow_only():
            found["ours, Pillow only"] = self._difference(pixels_of(variants["ours"]))
        return found

    def _example_pixels(self, position: int) -> np.ndarray:
        tensor = self.example.train(
            decode_example(self.images[position]), self.draws[position][0], False
        )
        return ((tensor * 0.5 + 0.5) * 255).round().numpy().transpose(1, 2, 0)

    def _reference(self, position: int) -> np.ndarray:
        top, left, height, width = self.draws[position][0]
        image = Image.open(io.BytesIO(self.images[position])).convert("RGB")
        image = image.crop((left, top, left + width, top + height))
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR), int)

    def _difference(self, pixels: list[np.ndarray]) -> dict[str, float]:
        each = [np.abs(p - self._reference(i)) for i, p in enumerate(pixels)]
        return {
            "mean": round(float(np.mean([d.mean() for d in each])), 4),
            "max_image_mean": round(float(max(d.mean() for d in each)), 4),
            "max": float(max(d.max() for d in each)),
        }


def pixels_of(dataset: TrainImages) -> list[np.ndarray]:
    examples = [example for batch in iterate(dataset) for example in batch]
    return [e["pixel_values"].permute(1, 2, 0).numpy().astype(int) for e in examples]


def iterate(dataset: Any) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(dataset), BATCH):
        yield dataset.__getitems__(list(range(first, min(first + BATCH, len(dataset)))))


def batches(dataset: Any) -> None:
    for _ in iterate(dataset):
        pass


@contextlib.contextmanager
def pillow_only() -> Iterator[None]:
    """As on a machine without the optional simplejpeg."""
    with mock.patch.object(food_images, "simplejpeg", None):
        yield


if __name__ == "__main__":
    sys.exit(main())
