# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: photographs, interleaved timing, ratios against a peer, JSON.

A speed here is never a number alone. Every variant runs in every round, in shuffled order, and is
compared with its peer round by round, so that a slow phase of the machine touches both.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import load_average

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `python benchmarks/NAME.py` also from a clone that is not installed
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Idle OpenMP threads would spin on the core that the next variant wants.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PHOTOGRAPHS = ROOT.parent / "shared" / "food10"
# What a row of the GPU scripts has besides: shares of the measured matmul rate and of the time.
EXTRAS = ("flop_utilisation", "waiting_for_input", "peak_memory_GB")
VIT_TI = {
    "image_size": 224,
    "patch_size": 16,
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
    "intermediate_size": 768,
}
VIT_B = VIT_TI | {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
TOY = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


# ---- the command line --------------------------------------------------------------------------


def parser(text: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every script has."""
    p = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    p.add_argument("--photographs", metavar="DIR", type=Path, default=PHOTOGRAPHS)
    p.add_argument("--rounds", metavar="N", type=int, default=rounds)
    p.add_argument("--json", metavar="FILE", type=Path, help="write the whole result there")
    p.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs")
    return p


def photograph_paths(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs below `folder`, the same ones every time; exit code 2 where there is none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        print(f"no JPEGs in {folder}: give a folder of photographs with --photographs DIR")
        raise SystemExit(2)
    return random.Random(0).sample(found, min(count, len(found)))


def describe_photographs(paths: list[Path]) -> dict[str, Any]:
    """Which images were used, without where they are."""
    contents = [path.read_bytes() for path in paths]
    digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in contents))
    kilobytes = sum(map(len, contents)) / len(contents) / 1000
    return {
        "count": len(contents),
        "mean_kB": round(kilobytes, 1),
        "sha256": digest.hexdigest(),
    }


def command() -> str:
    """How to repeat the run; the photographs' folder and the output file are the reader's own."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    for option in ("--json", "--photographs", "--model"):
        while option in words:
            del words[words.index(option) : words.index(option) + 2]
    return " ".join(["python", f"benchmarks/{words[0]}", *words[1:]])


# ---- timing ------------------------------------------------------------------------------------


@dataclass
class Group:
    """Variants of one piece of work, compared with one of them.

    Each variant is a function without arguments that does the work for `units` images (or calls).
    """

    name: str
    peer: str
    unit: str
    units: int
    variants: dict[str, Callable[[], Any]] = field(default_factory=dict)
    # "cpu" is process time, summed over threads: what a busy machine steals is left out, and so is
    # waiting. Only for work inside this process.
    clocks: tuple[str, ...] = ("wall",)

    def measure(self, rounds: int, warm_up: bool = True) -> list[dict[str, Any]]:
        """Rows of the table, `rounds` times each variant, the order shuffled in every round."""
        seconds: dict[str, list[dict[str, float]]] = {name: [] for name in self.variants}
        if warm_up:
            for call in self.variants.values():
                call()
        gc.freeze()  # else every collection below would walk through all imported libraries
        for number in range(rounds):
            order = list(self.variants)
            random.Random(number).shuffle(order)
            for name in order:
                gc.collect()  # the garbage of one variant is not the next one's time
                started = clocks()
                self.variants[name]()
                seconds[name].append(since(started))
        gc.unfreeze()
        return self.rows(seconds)

    def rows(self, seconds: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
        """One row a clock and variant, from readings that were taken in the same rounds."""
        found = []
        for clock in self.clocks:
            own = {name: [each[clock] for each in seconds[name]] for name in seconds}
            found += [summary(self, clock, name, own[name], own[self.peer]) for name in seconds]
        return found


def clocks() -> dict[str, float]:
    return {"wall": time.perf_counter(), "cpu": time.process_time()}


def since(started: dict[str, float]) -> dict[str, float]:
    return {name: now - started[name] for name, now in clocks().items()}


def summary(
    group: Group, clock: str, name: str, own: list[float], peer: list[float]
) -> dict[str, Any]:
    """One row: milliseconds a unit, units a second, and how many times as fast as the peer."""
    milliseconds = [1000 * s / group.units for s in own]
    ratios = [p / s for p, s in zip(peer, own, strict=True)]
    return {
        "group": group.name,
        "name": name,
        "peer": group.peer,
        "clock": clock,
        "unit": group.unit,
        "units_a_round": group.units,
        "rounds": len(own),
        "ms": spread(milliseconds),
        "per_second": spread([1000 / ms for ms in milliseconds]),
        "ratio": spread(ratios),
    }


def skipped(group: Group, name: str, reason: str) -> dict[str, Any]:
    """A row that could not be measured here, and why."""
    row = {"group": group.name, "name": name, "peer": group.peer, "clock": "wall"}
    return row | {"rounds": 0, "skipped": reason}


def spread(values: Iterable[float]) -> dict[str, float]:
    values = list(values)
    return {
        "median": round(statistics.median(values), 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
    }


# ---- results -----------------------------------------------------------------------------------


def report(args: argparse.Namespace, start: dict[str, Any], rows: list[dict], **more: Any) -> int:
    """Print the table, write the JSON where it was asked for; the exit code."""
    start["load_average_at_end"] = load_average()
    result = {"format": 1, "command": command(), "toy": args.toy, "environment": start}
    result |= {"rows": rows, **more}
    print(table(rows))
    print(f"load average {start['load_average_at_start']} -> {start['load_average_at_end']}")
    if args.json:
        write_json(args.json, result)
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Text columns; the ratio says how many times as fast as the group's peer."""
    lines, group = [], None
    for row in rows:
        if (row["group"], row["clock"]) != group:
            group = row["group"], row["clock"]
            head = f"{row['group']} ({row['clock']} time, {row['rounds']} rounds, ratio to {row['peer']})"
            lines += ["", head]
        if "skipped" in row:
            lines.append(f"  {row['name']:34} skipped: {row['skipped']}")
            continue
        ms, rate, ratio = (row[key] for key in ("ms", "per_second", "ratio"))
        lines.append(
            f"  {row['name']:34}{ms['median']:10.3f} ms/{row['unit']:6}{rate['median']:10.1f} /s  "
            f"{ratio['median']:6.2f} x  [{ratio['min']:.2f} to {ratio['max']:.2f}]"
            + "".join(f"  {key} {row[key]}" for key in EXTRAS if row.get(key) is not None)
        )
    return "\n".join(lines)


def write_json(path: Path, value: Any) -> None:
    """Under a temporary name, then moved; NaN is refused."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


# ---- pieces of the product, and the peer written out ---------------------------------------------


def encoded_rows(images: list[bytes], repeat: int = 1) -> Any:
    """Encoded images in memory, as a data set with an undecoded image column gives them."""
    from datasets import Dataset, Features, Image, Value

    features = Features({"image": Image(decode=False), "label": Value("int64")})
    columns = {
        "image": [{"bytes": data, "path": None} for data in images],
        "label": [i % 10 for i in range(len(images))],
    }
    dataset = Dataset.from_dict(columns, features=features)
    return dataset.select([i % len(images) for i in range(len(images) * repeat)])


def build(model_config: dict[str, Any], num_labels: int = 101) -> Any:
    """The product's network from random weights: model, processor, preprocessing."""
    from training.model.arguments import ModelArguments
    from training.model.create import build_network

    labels = [f"dish_{i}" for i in range(num_labels)]
    return build_network(ModelArguments(model_config=model_config), labels, seed=0)


def torchvision_or_none() -> Any:
    """torchvision.transforms where it can be imported (it cannot beside a torch of another build)."""
    try:
        from torchvision import transforms
    except Exception:  # a RuntimeError about a missing operator as well as an ImportError
        return None
    return transforms


class ExampleWay:
    """The transforms of the Trainer image-classification example, float32 in the worker.

    Written from their published description: `convert("RGB")`, RandomResizedCrop or Resize and
    CenterCrop (bilinear), flip, ToTensor, Normalize, image by image; the image itself comes
    decoded from datasets. With torchvision its own functions are called; without it the same
    operations, as torchvision documents them for PIL images, in Pillow and torch.
    """

    def __init__(self, size: int) -> None:
        import torch

        self.size = size
        self.mean, self.std = (torch.full((3, 1, 1), 0.5) for _ in range(2))
        self.torchvision = torchvision_or_none()
        self.how = "torchvision" if self.torchvision else "the same operations in Pillow and torch"
        if self.torchvision:
            self._tail = self.torchvision.Compose(
                [self.torchvision.ToTensor(), self.torchvision.Normalize([0.5] * 3, [0.5] * 3)]
            )

    def train(self, image: Any, box: tuple[int, int, int, int], flip: bool) -> Any:
        """PIL image -> float32 tensor. The box (top, left, height, width) was drawn before: the
        example is not charged for drawing it."""
        from PIL import Image

        image, (top, left, height, width) = image.convert("RGB"), box
        if self.torchvision:
            from torchvision.transforms import functional as F

            image = F.resized_crop(image, top, left, height, width, [self.size, self.size])
            return self._tail(F.hflip(image) if flip else image)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return self._to_float(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)

    def evaluate(self, image: Any) -> Any:
        from PIL import Image

        image = image.convert("RGB")
        if self.torchvision:
            from torchvision.transforms import functional as F

            image = F.center_crop(F.resize(image, [self.size, self.size]), [self.size, self.size])
            return self._tail(image)
        size = (self.size, self.size)
        return self._to_float(image.resize(size, Image.Resampling.BILINEAR).crop((0, 0, *size)))

    def _to_float(self, image: Any) -> Any:
        """ToTensor: copy, permute, divide by 255. Normalize: clone, then in place."""
        import numpy as np
        import torch

        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        pixels = pixels.to(torch.float32).div(255)
        return pixels.clone().sub_(self.mean).div_(self.std)


def decode_example(data: bytes) -> Any:
    """What `dataset[i]["image"]` does with a decoded image column: open, load, EXIF."""
    from datasets import Image

    return Image().decode_example({"bytes": data, "path": None})


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width), from the header."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.size[1], image.size[0]


# ---- operations ----------------------------------------------------------------------------------


def vit_flops(config: dict[str, Any]) -> float:
    """Floating-point operations of one image's forward pass, 2 for a multiply-add.

    L blocks of 24 d^2 N + 4 N^2 d (projections and a 4 d wide MLP; scores and their sum), and the
    patch embedding. Norms, activations and the head are left out.
    """
    patches = (config["image_size"] // config["patch_size"]) ** 2
    d, n = config["hidden_size"], patches + 1
    blocks = config["num_hidden_layers"] * (24 * d**2 * n + 4 * n**2 * d)
    return blocks + 2 * patches * d * 3 * config["patch_size"] ** 2
