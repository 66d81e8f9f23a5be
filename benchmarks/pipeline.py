# SPDX-License-Identifier: Apache-2.0
"""The food pipeline against transformers' stock pipeline and against the model alone.

    python benchmarks/pipeline.py --json benchmarks/results/pipeline.json
    python benchmarks/pipeline.py --only options --json benchmarks/results/options.json

ViT-Ti with random weights, batch 8, photographs given as paths. What `abstain`, `coverage`, `not_food` and
`explain` add, in a group of their own against the same pipeline without them. Then preprocessing alone on
one core: what becomes of one file, or of one decoded image, until the model's float32 input is there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import TOY, VIT_TI, Group, build, describe_photographs, parser, photograph_paths, report
from machine import environment, one_core
from PIL import Image
from transformers import ImageClassificationPipeline

from inference.food_classification import FoodClassificationPipeline
from inference.food_images import decode_image
from training.evaluation.trust.not_food import settle
from training.model.config_block import merge_block

PARTS = ("pipeline", "options", "preprocessing")
STOCK, FOOD = "stock pipeline", "food pipeline"


def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__, rounds=9)
    arguments.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="not all of it")
    args = arguments.parse_args(argv)
    batch, config = (2, TOY) if args.toy else (8, VIT_TI)
    paths = photograph_paths(args.photographs, 4 if args.toy else 64)
    start = environment()
    network = build(config)
    processor = pillow_processor(network.processor)
    parts = {"model": network.model.eval(), "image_processor": processor, "device": "cpu"}
    food, stock = FoodClassificationPipeline(**parts), ImageClassificationPipeline(**parts)
    rows = []
    if "pipeline" in args.only:
        rows += whole(food, stock, paths, batch).measure(args.rounds)
    if "options" in args.only:
        with tempfile.TemporaryDirectory() as folder:
            rows += options(food, paths, batch, Path(folder)).measure(args.rounds)
    if "preprocessing" in args.only:
        with one_core():
            for group in preprocessing(food, stock, paths, batch):
                rows += group.measure(args.rounds)
    return report(
        args,
        start,
        rows,
        photographs=describe_photographs(paths),
        model=config,
        batch_size=batch,
        image_processor=type(processor).__name__,
        attention=network.model.config._attn_implementation,
    )


def pillow_processor(processor: Any) -> Any:
    """The Pillow back end; without torchvision it is the only one, and what users get."""
    try:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    except ImportError:
        return processor
    return ViTImageProcessorPil(**processor.to_dict())


def whole(food: Any, stock: Any, paths: list[Path], batch: int) -> Group:
    files = [str(path) for path in paths]
    ready = [
        torch.randn(batch, 3, food.preprocessing.height, food.preprocessing.width)
        for _ in range(len(files) // batch)
    ]

    @torch.inference_mode()
    def model_alone() -> None:
        for pixels in ready:
            food.model(pixel_values=pixels)

    group = Group("pipeline", STOCK, "image", len(ready) * batch, clocks=("wall", "cpu"))
    files = files[: group.units]
    group.variants = {
        STOCK: lambda: stock(files, batch_size=batch),
        FOOD: lambda: food(files, batch_size=batch),
        "limit: model alone": model_alone,
    }
    return group


def options(food: Any, paths: list[Path], batch: int, folder: Path) -> Group:
    """Label the same files with each option; how long one takes does not depend on the numbers."""
    config = food.model.config
    merge_block(config, thresholds={"0.95": 0.5}, sets={"0.9": 0.001})
    features = np.random.default_rng(0).normal(size=(20 * config.num_labels, config.hidden_size))
    labels = np.arange(len(features)) % config.num_labels
    found = settle(features.astype(np.float32), labels, features[:500], "classifier", len(features))
    found.write(folder)
    merge_block(config, not_food=found.facts)
    config._name_or_path = str(folder)  # where the file lies beside the weights
    files = [str(path) for path in paths]
    group = Group("options", FOOD, "image", len(files), clocks=("wall", "cpu"))

    def asked(**options: Any) -> Any:
        return lambda: food(files, batch_size=batch, **options)

    group.variants = {
        FOOD: asked(),
        "abstain": asked(abstain=True),
        "coverage": asked(coverage=0.9),
        "abstain and coverage": asked(abstain=True, coverage=0.9),
        "not_food": asked(not_food=True),
        "explain": asked(explain=True),
    }
    return group


def preprocessing(food: Any, stock: Any, paths: list[Path], batch: int) -> list[Group]:
    """Batch by batch, as both pipelines do it; nothing but the last batch is kept."""
    files = [str(path) for path in paths]
    pillow = [Image.open(file).convert("RGB") for file in files]
    arrays = [decode_image(file) for file in files]
    steps = food.preprocessing

    def batched(items: list[Any], one: Any, finish: Any = lambda pixels: pixels) -> Any:
        def call() -> None:
            for first in range(0, len(items), batch):
                finish(torch.cat([one(item) for item in items[first : first + batch]]))

        return call

    def stock_image(image: Any) -> torch.Tensor:
        return stock.image_processor(image, return_tensors="pt")["pixel_values"]

    from_file = Group("preprocessing from a file", STOCK, "image", len(files), clocks=("cpu",))
    from_file.variants = {
        STOCK: batched(files, lambda file: stock.preprocess(file)["pixel_values"]),
        FOOD: batched(files, lambda file: food.preprocess(file)["pixel_values"], steps.normalize),
    }
    decoded = Group("preprocessing, decoded before", STOCK, "image", len(files), clocks=("cpu",))
    decoded.variants = {
        STOCK: batched(pillow, stock_image),
        FOOD: batched(arrays, lambda array: steps.crop(array)[None], steps.normalize),
    }
    return [from_file, decoded]


if __name__ == "__main__":
    sys.exit(main())
