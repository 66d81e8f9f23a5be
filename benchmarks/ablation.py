# SPDX-License-Identifier: Apache-2.0
"""What each part of the recipe buys: one small ViT from scratch, ten classes of Food-101.

    python benchmarks/ablation.py --dataset ../shared/food10-256          # trains what is missing
    python benchmarks/ablation.py --table                                 # prints what is recorded

(a) is the recipe of transformers' run_image_classification.py: random resized crop, flip, AdamW
without weight decay, linear decay. (b) is `training/recipes/from_scratch.yaml`. (c) is (b) with
one part left out. All see the same images, the same number of times, with the same network and the
learning rates that each recipe has; `--search` tries others for (a) and (b) in shorter runs, which
are scored on the selection slice. Runs are the product's own
(`python -m training.train`). A finished run is recorded at once, an interrupted one goes on from
its last checkpoint when the command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from machine import environment
from pages import Marks, UsageError
from training_runs import ROOT, environment_of, record, recorded, train

from training.common.files import read_json
from training.config.packaged import find_recipe
from training.evaluation.formats import read_evaluation

MARKS = Marks.of("ablation.py")
RESULTS = ROOT / "benchmarks" / "results" / "ablation.json"
# What the network is, how long it is trained, and how: the same for every variant.
SIZES = {
    "cpu": {
        "model_config": None,  # the recipe's own
        "num_train_epochs": 150,
        "train_short_side": 96,
        "dataloader_num_workers": 1,
    },
    "gpu": {  # ViT-S/16
        "model_config": {
            "image_size": 224,
            "patch_size": 16,
            "hidden_size": 384,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "intermediate_size": 1536,
        },
        "num_train_epochs": 300,
    },
    "toy": {
        "model_config": {
            "image_size": 16,
            "patch_size": 8,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
        "num_train_epochs": 2,
    },
}
SHARED = {
    "selection_fraction": 0.1,
    "total_train_batch_size": 64,
    "reduced_decoding": "strict",
    "logging_steps": 43,
    "save_total_limit": 1,
    "report_to": ["none"],
}
# Its defaults, https://github.com/huggingface/transformers, examples/pytorch/image-classification.
EXAMPLE = {
    "crop_scale": [0.08, 1.0],
    "horizontal_flip": 0.5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "learning_rate": 1e-3,  # its own 5e-5 is for fine-tuning
}
SEARCHED = (5e-4, 1e-3, 2e-3)
SEARCH_EPOCHS = 30
# (c): a part of the recipe, and the keys that take it out.
PARTS = {
    "mixup and cutmix": {"mixup": 0.0, "cutmix": 0.0},
    "RandAugment": {"auto_augment": "off"},
    "average of the weights": {"ema_decay": None},
    "stochastic depth": {"drop_path": 0.0},
    "label smoothing": {"label_smoothing_factor": 0.0},
    "milder crops": {"crop_scale": EXAMPLE["crop_scale"]},
    "warm-up and cosine": {"warmup_steps": 0, "lr_scheduler_type": "linear"},
    "weight decay": {"weight_decay": 0.0},
    "first weights": {"weight_init": None, "initializer_range": None},
}
FEW = ("mixup and cutmix", "first weights", "average of the weights")
# (a) with what acts on the optimiser and not against overfitting.
OUR_START = "example with our first weights and learning rate"
START = (*PARTS["first weights"], "learning_rate")
LABELS = {
    "example": "(a) the Trainer example's",
    OUR_START: "(a) with our first weights and learning rate",
    "ours": "(b) ours",
}


@dataclass(frozen=True)
class Job:
    """One training run: what is recorded of it is found again by name, size, seed and recipe."""

    variant: str
    size: str
    seed: int
    keys: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        """The whole recipe; the spread of the first weights is a key of the network's config."""
        values = {**SHARED, **SIZES[self.size], **self.keys}
        recipe = _read("from_scratch")
        network = values["model_config"] or _network(recipe)
        if "mix_off_epoch" in values:  # at the same share of another number of epochs
            epochs = values["num_train_epochs"]
            values["mix_off_epoch"] = values["mix_off_epoch"] * epochs // recipe["num_train_epochs"]
        spread = values.pop("initializer_range", None)
        first = {} if spread is None else {"initializer_range": spread}
        return {**values, "model_config": network | first}

    @property
    def name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.variant.replace(' ', '_')}-{self.size}-{self.seed}-{digest}"

    def matches(self, record: dict[str, Any]) -> bool:
        return all(
            record[key] == getattr(self, key) for key in ("variant", "size", "seed", "values")
        )


def _network(recipe: dict[str, Any]) -> dict[str, Any]:
    """Its sizes; the spread of the first weights is a part of the recipe."""
    return {k: v for k, v in recipe["model_config"].items() if k != "initializer_range"}


def _read(name: str) -> dict[str, Any]:
    """Read a recipe as plain YAML does, where 2e-3 is a text: the names of recorded runs contain it."""
    return yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))


def ours() -> dict[str, Any]:
    """The packaged recipe, without what SIZES and SHARED say."""
    taken = {"model_config", "num_train_epochs", "seed", "per_device_eval_batch_size", *SHARED}
    recipe = _read("from_scratch")
    spread = {"initializer_range": recipe["model_config"]["initializer_range"]}
    return {k: v for k, v in recipe.items() if k not in taken} | spread


def variants() -> dict[str, dict[str, Any]]:
    """Name -> the keys in which a variant differs from the others."""
    full = ours()
    start = {key: full[key] for key in START}
    found = {"example": EXAMPLE, OUR_START: EXAMPLE | start, "ours": full}
    for part, without in PARTS.items():
        if any(key in full and full[key] != value for key, value in without.items()):
            kept = {k: v for k, v in (full | without).items() if v is not None}
            found[f"ours without {part}"] = kept
    return found


def jobs_for(names: Iterable[str], size: str, seeds: Iterable[int]) -> list[Job]:
    """Seed by seed, so that an early stop leaves every variant with some."""
    known = variants()
    names = list(names)
    return [Job(name, size, seed, known[name]) for seed in seeds for name in names]


def search_jobs(size: str) -> list[Job]:
    """Short runs of (a) and (b) at several learning rates."""
    short = {"num_train_epochs": SEARCH_EPOCHS} if size != "toy" else {}
    return [
        Job(f"{name}, search", size, 0, variants()[name] | short | {"learning_rate": rate})
        for name in ("example", "ours")
        for rate in SEARCHED
    ]


# ---- running -----------------------------------------------------------------------------------


@dataclass
class Runner:
    """Runs jobs in processes of their own and records each when it is done."""

    dataset: str
    runs: Path
    results: Path
    threads: int

    def run(self, job: Job) -> None:
        folder = self.runs / job.name
        print(f"{job.variant}, seed {job.seed}: started, see {folder}.log", flush=True)
        train(job.values, self.dataset, folder, job.seed, self.threads)
        self.record(job, folder)

    def _score_training_images(self, folder: Path) -> dict[str, Any]:
        """How far the network has learned them by heart; as they are, the selection slice included."""
        output = folder / "train_evaluation.json"
        words = ["evaluate", str(folder), "--dataset", self.dataset, "--split", "train"]
        words = [sys.executable, "-m", "training.cli.main", *words, "--output", str(output)]
        subprocess.run(
            words, env=environment_of(self.threads), stdout=subprocess.DEVNULL, check=True
        )
        return read_json(output)

    def record(self, job: Job, folder: Path) -> None:
        run, report = read_json(folder / "run.json"), read_evaluation(folder)
        fitted = self._score_training_images(folder)
        row = {
            "variant": job.variant,
            "size": job.size,
            "seed": job.seed,
            "values": job.values,
            "top1": report["metrics"]["top1"]["value"],
            "interval": report["metrics"]["top1"]["interval"],
            "n": report["n"],
            "selection": run["selection"],
            "train_top1": fitted["metrics"]["top1"]["value"],
            "train_n": fitted["n"],
            "images_seen": run["training"]["steps"] * run["training"]["total_train_batch_size"],
            "num_parameters": run["model"]["num_parameters"],
            "num_train": run["data"]["num_train"],
            "test_fingerprint": report["dataset_fingerprint"],
            "seconds": run["seconds"]["total"],
            "code_sha256": run["code_sha256"],
            "environment": environment(),
        }
        record(row, self.results)
        print(
            f"{job.variant}, seed {job.seed}: top-1 {row['top1']:.1%}, n = {row['n']}", flush=True
        )


# ---- the table ---------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]], size: str) -> str:
    """Markdown: top-1 on the test images, mean and range over seeds, error as a share of (a)'s."""
    known = variants()
    found = {
        name: [row for row in rows if Job(name, size, row["seed"], keys).matches(row)]
        for name, keys in known.items()
    }
    if len({row["test_fingerprint"] for its in found.values() for row in its}) > 1:
        raise UsageError(
            "the recorded runs were scored on different images: give --json another file"
        )
    lines = [
        "| recipe | seeds | test top-1, mean | range | error, of the example's | selection | training images |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    base = 1 - mean_of(found["example"], "top1") if found["example"] else None
    for name, its in found.items():
        if not its:
            continue
        scores = [r["top1"] for r in its]
        error = f"{(1 - statistics.mean(scores)) / base:.2f}" if base else ""
        chosen = statistics.mean(r["selection"]["top1"] for r in its)
        label = LABELS.get(name, f"(c) {name}")
        lines.append(
            f"| {label} | {len(its)} | {statistics.mean(scores):.1%} | {min(scores):.1%} to "
            f"{max(scores):.1%} | {error} | {chosen:.1%} | {mean_of(its, 'train_top1'):.1%} |"
        )
    return "\n".join(lines)


def page_part(rows: list[dict[str, Any]], size: str) -> str:
    """Both tables; the second only where rates were searched for."""
    searched = [r for r in rows if r["size"] == size and r["variant"].endswith(", search")]
    return "\n\n".join([table(rows, size), *([search_table(searched)] if searched else [])])


def search_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: top-1 on the selection slice of the short runs; the test images are not looked at."""
    lines = ["| recipe, short runs | learning rate | selection top-1 |", "| --- | --- | --- |"]
    for row in rows:
        name, rate = row["variant"].removesuffix(", search"), row["values"]["learning_rate"]
        lines.append(f"| {name} | {rate:g} | {row['selection']['top1']:.1%} |")
    return "\n".join(lines)


def mean_of(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


# ---- the command -------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--dataset", metavar="DIR", help="folder with train/ and validation/")
    p.add_argument("--size", choices=SIZES, default="cpu")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--variants", nargs="+", metavar="NAME", help="default: (a), (b), a few of (c)")
    p.add_argument("--search", action="store_true", help="the short runs that choose the rate")
    p.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    p.add_argument("--threads", type=int, default=0, help="of each run; default: torch's choice")
    p.add_argument("--runs", metavar="DIR", type=Path, default=ROOT / "runs" / "ablation")
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--table", action="store_true", help="print the tables and train nothing")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the tables into that page")
    args = p.parse_args(argv)
    known = variants()
    args.variants = args.variants or ["example", "ours", *(f"ours without {x}" for x in FEW)]
    for name in args.variants:
        if name not in known:
            p.error(f"unknown variant {name!r}: give some of {', '.join(map(repr, known))}")
    if not args.table and not args.dataset:
        p.error("--dataset is missing: give a folder with train/ and validation/, or --table")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return MARKS.publish(lambda: run(args), args.write)


def run(args: argparse.Namespace) -> str:
    if not args.table:
        wanted = search_jobs(args.size) if args.search else []
        wanted += [] if args.search else jobs_for(args.variants, args.size, args.seeds)
        done = recorded(args.json)
        missing = [job for job in wanted if not any(job.matches(row) for row in done)]
        print(
            f"{len(wanted) - len(missing)} of {len(wanted)} runs are recorded already", flush=True
        )
        runner = Runner(args.dataset, args.runs, args.json, args.threads)
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(runner.run, missing))
    return page_part(recorded(args.json), args.size)


if __name__ == "__main__":
    sys.exit(main())
