# SPDX-License-Identifier: Apache-2.0
"""What gpu_train.py and gpu_infer.py share. With `--toy` everything here runs on a CPU."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import torch
from common import TOY, VIT_B, ExampleWay, decode_example, jpeg_size, parser

from training.input.train_images import random_resized_crop


def gpu_parser(text: str | None, batches: list[int]) -> argparse.ArgumentParser:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    p = parser(text, rounds=3)
    p.add_argument("--sizes", type=int, nargs="+", default=[224, 384], help="pixels a side")
    p.add_argument("--batches", type=int, nargs="+", default=batches)
    p.add_argument("--compile", choices=("off", "on"), default="on", help="also torch.compile")
    p.add_argument("--workers", type=int, default=max(1, min(16, cores - 1)))
    p.add_argument("--seconds", type=float, default=10, help="length of one end-to-end run")
    return p


def settle(args: argparse.Namespace) -> torch.device:
    """The device; without a GPU only the toy runs, at its own sizes."""
    if args.toy:
        args.sizes, args.batches, args.workers, args.seconds = [32], [2, 4], 1, 0.3
        args.compile = "off"
        torch.set_num_threads(1)  # two threads would wait for each other most of the time
        return torch.device("cpu")
    if not torch.cuda.is_available():
        print("no GPU here: give --toy to see that the script runs")
        raise SystemExit(2)
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def model_config(args: argparse.Namespace, size: int) -> dict[str, Any]:
    return (TOY if args.toy else VIT_B) | {"image_size": size}


def precision(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def compiled(args: argparse.Namespace, model: Any, batch: int) -> Any:
    """The model compiled for this batch size alone, or None: only the largest is worth minutes."""
    torch.compiler.reset()  # or the second shape would be compiled as a dynamic one
    return torch.compile(model) if args.compile == "on" and batch == args.batches[-1] else None


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(device: torch.device, toy: bool) -> float:
    """FLOP/s of a large square matmul on random data: the ceiling of what follows."""
    n = 256 if toy else 8192
    a, b = (torch.randn(n, n, device=device, dtype=precision(device)) for _ in range(2))
    best = 0.0
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        synchronize(device)
        best = max(best, 10 * 2 * n**3 / (time.perf_counter() - started))
    return best


def timm_model(args: argparse.Namespace, size: int) -> tuple[Any, str]:
    """timm's ViT of the same shape, or None and the reason."""
    try:
        import timm
    except Exception as error:  # without torchvision it fails in several ways
        return None, f"timm cannot be imported ({type(error).__name__})"
    name = "vit_tiny_patch16_224" if args.toy else "vit_base_patch16_224"
    return timm.create_model(name, pretrained=False, img_size=size, num_classes=101), ""


def logits_of(output: Any) -> torch.Tensor:
    """transformers wraps them, timm does not."""
    return getattr(output, "logits", output)


class MemoryPeak:
    """GB of the device allocated at most within the block, over what was there before."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gigabytes = device, None

    def __enter__(self) -> MemoryPeak:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.device.type == "cuda":
            self.gigabytes = round((torch.cuda.max_memory_allocated() - self.before) / 1e9, 2)


class ExampleImages(torch.utils.data.Dataset):
    """The example's way as a data set: decoded by datasets' code, float32 from the worker."""

    def __init__(self, rows: Any, size: int, train: bool) -> None:
        self.rows, self.way, self.train = rows, ExampleWay(size), train

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = self.rows.__getitems__([position])[0]
        data = row["image"]["bytes"]
        if not self.train:
            return {
                "pixel_values": self.way.evaluate(decode_example(data)),
                "labels": row["label"],
            }
        import numpy as np

        rng = np.random.default_rng()
        box = random_resized_crop(*jpeg_size(data), (0.08, 1.0), rng)
        pixels = self.way.train(decode_example(data), box, bool(rng.random() < 0.5))
        return {"pixel_values": pixels, "labels": row["label"]}
