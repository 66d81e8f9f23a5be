# SPDX-License-Identifier: Apache-2.0
"""ViT-B/16 training on one GPU in bf16, from JPEG bytes to optimizer step.

    python benchmarks/gpu_train.py --photographs DIR --json benchmarks/results/gpu_train.json

First the step alone on a batch that stays on the device, for each batch size, eager and compiled,
against timm's model in an AMP loop. Then end to end at the fastest of these: FoodTrainer against
Trainer with the transforms of its image-classification example, with the same workers.

flop_utilisation: 3 x the forward's operations x images/s, over a bf16 matmul measured here.
waiting_for_input: 1 - (end to end) / (step alone), at the same batch size.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
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
from transformers import Trainer, TrainerCallback, TrainingArguments

from training.engine.loss import Criterion
from training.engine.method import WholeNetwork
from training.engine.trainer import FoodTrainer
from training.engine.training_arguments import FineTuningArguments
from training.input.arguments import Augmentation
from training.input.batch import EpochSampler, collate, to_model_input
from training.input.train_images import TrainImages

EXAMPLE, TIMM = "Trainer, example's way", "timm, AMP loop"


def main(argv: list[str] | None = None) -> int:
    args = gpu_parser(__doc__, batches=[64, 128, 256]).parse_args(argv)
    device = settle(args)
    if device.type == "cuda":  # what `accelerate launch --mixed_precision bf16` sets
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    paths = photograph_paths(args.photographs, 4 if args.toy else 1000)
    start, peak, rows = environment(), matmul_rate(device, args.toy), []
    images = [path.read_bytes() for path in paths]
    for size in args.sizes:
        alone = [row for batch in args.batches for row in step_alone(args, device, size, batch)]
        ours = [row for row in alone if row["name"].startswith("ours")]
        best = max(ours, key=lambda row: row["per_second"]["median"])
        found = alone + end_to_end(args, device, size, images, best)
        flops = 3 * vit_flops(model_config(args, size))
        for row in found:
            if "skipped" not in row:
                row["flop_utilisation"] = round(row["per_second"]["median"] * flops / peak, 5)
        rows += found
    more = {"photographs": describe_photographs(paths), "matmul_TFLOP_per_s": round(peak / 1e12, 4)}
    example = ExampleImages(encoded_rows(images), args.sizes[0], train=True).way.how
    more |= {"example": example, "workers": args.workers, "model": model_config(args, 224)}
    more["flops_an_image"] = {s: 3 * vit_flops(model_config(args, s)) for s in args.sizes}
    return report(args, start, rows, **more)


# ---- the step alone --------------------------------------------------------------------------------


def step_alone(
    args: argparse.Namespace, device: torch.device, size: int, batch: int
) -> list[dict[str, Any]]:
    network = build(model_config(args, size))
    other, reason = timm_model(args, size)
    steps = 1 if args.toy else 8
    group = Group(
        f"step alone, {size} px, batch {batch}", TIMM if other else "ours", "image", steps * batch
    )
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    labels, flip = torch.arange(batch, device=device) % 101, torch.arange(batch, device=device) > 1
    resident = {"pixel_values": pixels, "labels": labels, "flip": flip}

    def ours() -> dict[str, torch.Tensor]:  # what FoodTrainer does with a batch on the device
        return to_model_input(resident, network.preprocessing)

    ready = to_model_input(resident, network.preprocessing)
    model = network.model.to(device)
    group.variants = {"ours": Steps(model, ours, device, steps)}
    if (fast := compiled(args, model, batch)) is not None:
        group.variants["ours, compiled"] = Steps(fast, ours, device, steps)
    if other is not None:
        group.variants[TIMM] = Steps(other.to(device), lambda: ready, device, steps)
    memory = {}
    for name, call in group.variants.items():
        call()  # compiles, and allocates the optimizer's state
        with MemoryPeak(device) as used:
            call()
        memory[name] = used.gigabytes
    rows = group.measure(args.rounds, warm_up=False)
    rows = [row | {"batch_size": batch, "peak_memory_GB": memory[row["name"]]} for row in rows]
    return rows if other else [*rows, skipped(group, TIMM, reason)]


class Steps:
    """So many training steps on a batch that is on the device."""

    def __init__(
        self, model: Any, batch: Callable[[], dict], device: torch.device, steps: int
    ) -> None:
        self.model, self.batch, self.device, self.steps = model.train(), batch, device, steps
        fused = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

    def __call__(self) -> None:
        for _ in range(self.steps):
            batch = self.batch()
            with torch.autocast(
                self.device.type, precision(self.device), enabled=self.device.type == "cuda"
            ):
                logits = logits_of(self.model(batch["pixel_values"]))
            torch.nn.functional.cross_entropy(logits.float(), batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        synchronize(self.device)


# ---- end to end ------------------------------------------------------------------------------------


def end_to_end(
    args: argparse.Namespace, device: torch.device, size: int, images: list[bytes], best: dict
) -> list[dict[str, Any]]:
    batch, is_compiled = best["batch_size"], best["name"].endswith("compiled")
    runs = {
        EXAMPLE: lambda folder: example_trainer(args, size, images, batch, is_compiled, folder),
        "FoodTrainer": lambda folder: food_trainer(
            args, size, images, batch, is_compiled, folder, "off"
        ),
        "FoodTrainer, reduced decoding loose": lambda folder: food_trainer(
            args, size, images, batch, is_compiled, folder, "loose"
        ),
    }
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    memory: dict[str, float | None] = {}
    for number in range(args.rounds):
        order = list(runs)
        random.Random(number).shuffle(order)
        for name in order:
            with tempfile.TemporaryDirectory() as folder, MemoryPeak(device) as used:
                rate = images_per_second(runs[name](folder), args, device, batch)
            seconds[name].append({"wall": 1 / rate})
            memory[name] = used.gigabytes
    group = Group(f"end to end, {size} px, batch {batch}", EXAMPLE, "image", 1)
    rows = group.rows(seconds)
    for row in rows:
        waiting = 1 - row["per_second"]["median"] / best["per_second"]["median"]
        row |= {"batch_size": batch, "compiled": is_compiled, "peak_memory_GB": memory[row["name"]]}
        row["waiting_for_input"] = round(max(0.0, waiting), 4)
    return rows


class Clock(TrainerCallback):
    """Stop after a while; the rate of the second half, when the workers' queues are in balance."""

    def __init__(self, seconds: float, device: torch.device) -> None:
        self.seconds, self.device = seconds, device
        self.begun = self.middle = self.end = 0.0
        self.first = self.last = 0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        now = time.perf_counter()
        if not self.begun:  # after the first step: compilation and worker start are behind
            self.begun = now
        elif not self.first and now - self.begun > self.seconds / 2:
            synchronize(self.device)
            self.middle, self.first = time.perf_counter(), state.global_step
        elif self.first and now - self.begun > self.seconds and state.global_step > self.first:
            synchronize(self.device)
            self.end, self.last = time.perf_counter(), state.global_step
            control.should_training_stop = True


def images_per_second(
    trainer: Trainer, args: argparse.Namespace, device: torch.device, batch: int
) -> float:
    clock = Clock(args.seconds, device)
    trainer.add_callback(clock)
    trainer.train()
    return (clock.last - clock.first) * batch / (clock.end - clock.middle)


def options(args: argparse.Namespace, batch: int, is_compiled: bool, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": 1_000_000,
        "dataloader_num_workers": args.workers,
        "dataloader_persistent_workers": True,
        "dataloader_prefetch_factor": 2,  # a long queue would hide a slow input from a short run
        "torch_compile": is_compiled,
        "use_cpu": args.toy,
        "logging_steps": 50,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": ["none"],
        "disable_tqdm": True,
    }


def food_trainer(
    args: argparse.Namespace,
    size: int,
    images: list[bytes],
    batch: int,
    is_compiled: bool,
    folder: str,
    reduced: str,
) -> FoodTrainer:
    network, rows = build(model_config(args, size)), repeated(images, args)
    arguments = FineTuningArguments(
        total_train_batch_size=batch,
        load_best_model_at_end=False,
        **options(args, batch, is_compiled, folder),
    )
    augmentation = Augmentation([0.08, 1.0], 0.5, reduced)
    return FoodTrainer(
        network=network,
        method=WholeNetwork(network),
        criterion=Criterion(),
        args=arguments,
        sampler=EpochSampler(len(rows), batch, seed=0),
        train_dataset=TrainImages(rows, network.preprocessing, augmentation, seed=0),
    )


def example_trainer(
    args: argparse.Namespace,
    size: int,
    images: list[bytes],
    batch: int,
    is_compiled: bool,
    folder: str,
) -> Trainer:
    arguments = TrainingArguments(
        remove_unused_columns=False,
        dataloader_drop_last=True,
        bf16=not args.toy,
        **options(args, batch, is_compiled, folder),
    )
    rows = repeated(images, args)
    return Trainer(
        model=build(model_config(args, size)).model,
        args=arguments,
        train_dataset=ExampleImages(rows, size, train=True),
        data_collator=collate,
    )


def repeated(images: list[bytes], args: argparse.Namespace) -> Any:
    """One epoch as long as Food-101's, so that no run meets an epoch's end."""
    return encoded_rows(images, repeat=max(1, (64 if args.toy else 75_750) // len(images)))


if __name__ == "__main__":
    sys.exit(main())
