# SPDX-License-Identifier: Apache-2.0
"""ViT-B/16 inference on one GPU in bf16, from JPEG files to labels.

    python benchmarks/gpu_infer.py --photographs DIR --json benchmarks/results/gpu_infer.json

First the model alone on a batch that stays on the device, for each batch size, eager and compiled,
against timm's. Then the food pipeline against the stock pipeline, and the product's evaluation
input against the Trainer example's, each with the same workers, at the fastest eager batch size.

flop_utilisation: the forward's operations x images/s, over a bf16 matmul measured here.
waiting_for_input: 1 - (end to end) / (model alone), at the same batch size.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import (
    Group,
    build,
    describe_photographs,
    encoded_rows,
    photograph_paths,
    report,
    skipped,
    vit_flops,
)
from gpu import (
    ExampleImages,
    MemoryPeak,
    compiled,
    gpu_parser,
    logits_of,
    matmul_rate,
    model_config,
    precision,
    settle,
    synchronize,
    timm_model,
)
from machine import environment
from torch.utils.data import DataLoader
from transformers import ImageClassificationPipeline

from inference.food_classification import FoodClassificationPipeline
from training.input.batch import collate
from training.input.eval_images import EvalImages

STOCK, EXAMPLE, TIMM = "stock pipeline", "example's way", "timm"


def main(argv: list[str] | None = None) -> int:
    args = gpu_parser(__doc__, batches=[32, 128, 512]).parse_args(argv)
    device = settle(args)
    paths = photograph_paths(args.photographs, 4 if args.toy else 1000)
    start, peak, rows = environment(), matmul_rate(device, args.toy), []
    for size in args.sizes:
        found = one_size(args, device, size, paths)
        flops = vit_flops(model_config(args, size))
        for row in found:
            if "skipped" not in row:
                row["flop_utilisation"] = round(row["per_second"]["median"] * flops / peak, 5)
        rows += found
    more = {"photographs": describe_photographs(paths), "matmul_TFLOP_per_s": round(peak / 1e12, 4)}
    more |= {"workers": args.workers, "model": model_config(args, 224)}
    more["example"] = ExampleImages(encoded_rows([b""]), args.sizes[0], train=False).way.how
    more["flops_an_image"] = {s: vit_flops(model_config(args, s)) for s in args.sizes}
    more["image_processor"] = type(build(model_config(args, args.sizes[0])).processor).__name__
    return report(args, start, rows, **more)


def one_size(
    args: argparse.Namespace, device: torch.device, size: int, paths: list[Path]
) -> list[dict[str, Any]]:
    network = build(model_config(args, size))
    network.model.to(device, precision(device)).eval()
    alone = []
    for batch in args.batches:
        alone += model_alone(args, device, size, network, batch)
    eager = [row for row in alone if row["name"] == "ours"]
    best = max(eager, key=lambda row: row["per_second"]["median"])
    files = list(itertools.islice(itertools.cycle(paths), 8 if args.toy else 8192))
    rows = pipelines(args, device, network, files, best["batch_size"])
    rows += evaluation(args, device, network, files, best["batch_size"])
    for row in rows:
        waiting = 1 - row["per_second"]["median"] / best["per_second"]["median"]
        row["waiting_for_input"] = round(max(0.0, waiting), 4)
    return alone + rows


# ---- the model alone -------------------------------------------------------------------------------


def model_alone(
    args: argparse.Namespace, device: torch.device, size: int, network: Any, batch: int
) -> list[dict[str, Any]]:
    other, reason = timm_model(args, size)
    passes = 1 if args.toy else 8
    pixels = torch.randn(batch, 3, size, size, device=device, dtype=precision(device))
    group = Group(
        f"model alone, {size} px, batch {batch}", TIMM if other else "ours", "image", passes * batch
    )

    def forward(model: Any) -> Callable[[], None]:
        @torch.inference_mode()
        def call() -> None:
            for _ in range(passes):
                model(pixels)
            synchronize(device)

        return call

    group.variants = {"ours": forward(network.model)}
    if (fast := compiled(args, network.model, batch)) is not None:
        group.variants["ours, compiled"] = forward(fast)
    if other is not None:
        group.variants[TIMM] = forward(other.to(device, precision(device)).eval())
    rows = with_memory(group, args, device)
    rows = [row | {"batch_size": batch} for row in rows]
    return rows if other else [*rows, skipped(group, TIMM, reason)]


def with_memory(
    group: Group, args: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """The group's rows, with the peak memory of each variant (its warm-up run)."""
    memory = {}
    for name, call in group.variants.items():
        with MemoryPeak(device) as used:
            call()
        memory[name] = used.gigabytes
    rows = group.measure(args.rounds, warm_up=False)
    return [row | {"peak_memory_GB": memory[row["name"]]} for row in rows]


# ---- end to end ------------------------------------------------------------------------------------


def pipelines(
    args: argparse.Namespace, device: torch.device, network: Any, files: list[Path], batch: int
) -> list[dict[str, Any]]:
    parts = {"model": network.model, "image_processor": network.processor, "device": device}
    food, stock = FoodClassificationPipeline(**parts), ImageClassificationPipeline(**parts)
    names = [str(file) for file in files]
    options = {"batch_size": batch, "num_workers": args.workers}
    size = network.preprocessing.height
    group = Group(f"pipeline, {size} px, batch {batch}", STOCK, "image", len(names))
    group.variants = {
        STOCK: lambda: stock(names, **options),
        "food pipeline": lambda: food(names, **options),
    }
    return with_memory(group, args, device)


def evaluation(
    args: argparse.Namespace, device: torch.device, network: Any, files: list[Path], batch: int
) -> list[dict[str, Any]]:
    images = encoded_rows([file.read_bytes() for file in files])
    size = network.preprocessing.height
    group = Group(f"evaluation, {size} px, batch {batch}", EXAMPLE, "image", len(images))
    ours = EvalImages(images, network.preprocessing)
    group.variants = {
        EXAMPLE: scorer(args, device, network, ExampleImages(images, size, train=False), batch),
        "ours": scorer(args, device, network, ours, batch),
    }
    return with_memory(group, args, device)


def scorer(
    args: argparse.Namespace, device: torch.device, network: Any, dataset: Any, batch: int
) -> Callable[[], None]:
    """Score the whole data set; uint8 batches are normalised on the device."""
    loader = DataLoader(
        dataset,
        batch_size=batch,
        num_workers=args.workers,
        collate_fn=collate,
        persistent_workers=True,
        prefetch_factor=2,
        pin_memory=device.type == "cuda",
    )
    dtype = precision(device)

    @torch.inference_mode()
    def call() -> None:
        logits = []
        for rows in loader:
            pixels = rows["pixel_values"].to(device, non_blocking=True)
            is_raw = pixels.dtype == torch.uint8
            ready = network.preprocessing.normalize(pixels, dtype) if is_raw else pixels.to(dtype)
            logits.append(logits_of(network.model(ready)))
        torch.cat(logits).float().cpu()

    return call


if __name__ == "__main__":
    sys.exit(main())
