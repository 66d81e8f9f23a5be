# SPDX-License-Identifier: Apache-2.0
"""What to do with 10, 30 and 100 photographs a class and a pretrained ViT.

    python benchmarks/finetune.py --model ../shared/vit-small --dataset ../shared/food10-256
    python benchmarks/finetune.py --table --write docs/recipes.md     # prints what is recorded

Of each class a seeded order is drawn: its first 10, 30 or 100 photographs are what someone has, and
every fifth of them selects. The 20 last ones are never in such a subset: they say how a run does while
recipes are chosen. The data set's own test images are scored once, after the learning rate of a method
is chosen by the selection slice of seed 0 and written down. A method walks along one list of rates:
from its first one upwards while that selects better, then downwards; so the best one has a worse
neighbour on both sides, unless the list ends there, and no rate far beyond is trained for nothing.

(a) is the recipe of transformers' run_image_classification.py, (b) the linear probe, (c) all weights
by `training/recipes/small_data.yaml` without the probe that it begins with, (d) the same with it, (e) the
same with it and LoRA instead of all weights, at 30 photographs a class only; there too, for seed 0, (d)
without one of its PARTS at a time, at the rate that (d) chose. Their test images are opened when all of
them have run. All that train the backbone see the same number of images. Runs are the product's own; a
finished one is recorded at once, an interrupted one goes on from its last checkpoint when the command is
given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ablation import EXAMPLE
from filelock import FileLock
from finetune_photographs import make_subset
from finetune_table import MARKS, page_part
from machine import environment
from pages import UsageError
from training_runs import ROOT, change, record, recorded, train
from witness import labelled, witness_of

from training.common.files import read_json
from training.config.packaged import find_recipe
from training.data.arguments import DataArguments
from training.data.loading import load_split
from training.engine.checkpoints import complete_checkpoints
from training.evaluation.report import evaluate_model
from training.model.network import label_names_from

RESULTS = ROOT / "benchmarks" / "results" / "finetune.json"
BATCH, STEPS, SCORINGS = 16, 470, 10
RATES = (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FEW, SOME, MANY = 10, 30, 100

# The keys that take a part out of (d).
PARTS = {
    "without TrivialAugment": {"auto_augment": "off"},
    "without stochastic depth": {"drop_path": 0.0},
    "without layer-wise rates": {"layer_decay": 1.0},
    "without label smoothing": {"label_smoothing_factor": 0.0},
    "without milder crops": {"crop_scale": EXAMPLE["crop_scale"]},
}

SHARED = {
    "image_size": 112,
    "total_train_batch_size": BATCH,
    "max_steps": STEPS,
    "eval_strategy": "steps",
    "eval_steps": STEPS // SCORINGS,
    "save_strategy": "steps",
    "save_steps": STEPS // SCORINGS,
    "save_total_limit": 1,
    "logging_steps": STEPS // SCORINGS,
    "dataloader_num_workers": 0,
    "report_to": ["none"],
}
# What small_data says of these is for its own size of image and of run.
NOT_TAKEN = {"model", "num_train_epochs", "min_steps", "per_device_train_batch_size"}


def ours() -> dict[str, Any]:
    """Read the keys of the packaged recipe, without what SHARED and the methods say."""
    recipe = yaml.safe_load(find_recipe("small_data").read_text(encoding="utf-8"))
    left_out = {*NOT_TAKEN, *SHARED, "seed", "tune", "learning_rate", "logging_steps"}
    return {key: value for key, value in recipe.items() if key not in left_out}


def methods() -> dict[str, tuple[dict[str, Any], float | None]]:
    """Name -> its keys, and the learning rate that it tries first (None: it has none to try)."""
    example = {key: value for key, value in EXAMPLE.items() if key != "learning_rate"}
    # Without a probed head: a head of zeros, as ViT's own fine-tuning begins (arXiv:2010.11929).
    full = {**ours(), "head_init_scale": 0.0}
    return {
        "example": (example, 2e-5),
        "probe": ({"tune": "linear_probe"}, None),
        "full": (full, 1e-4),
        "probe_then_full": ({**ours(), "tune": "probe_then_full"}, 2e-5),
        "lora": ({**ours(), "tune": "probe_then_lora"}, 3e-4),
    }


def keys_of(method: str) -> dict[str, Any]:
    """Look up the keys of a method, or of (d) without one of its PARTS."""
    if method in PARTS:
        return {**methods()["probe_then_full"][0], **PARTS[method]}
    return methods()[method][0]


@dataclass(frozen=True)
class Job:
    """One training run: what is recorded of it is found again by these."""

    method: str
    photographs: int  # of each class, to train and to select
    seed: int  # of the choice of photographs, and of the run
    rate: float | None  # None of a probe, which tries its own

    @cached_property
    def values(self) -> dict[str, Any]:
        """The whole recipe, but for the model's folder."""
        shared = (
            SHARED if self.rate else {"image_size": SHARED["image_size"], "report_to": ["none"]}
        )
        rate = {"learning_rate": self.rate} if self.rate else {}
        return {**shared, **keys_of(self.method), **rate}

    @property
    def name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.method.replace(' ', '_')}-{self.photographs}-{self.seed}-{digest}"

    def matches(self, row: dict[str, Any]) -> bool:
        return all(
            row[key] == getattr(self, key) for key in ("method", "photographs", "seed", "values")
        )

    def find(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        return next((row for row in rows if self.matches(row)), None)


# ---- running -------------------------------------------------------------------------------------


@dataclass
class Runner:
    """Runs jobs in processes of their own and records each when it is done."""

    model: Path
    dataset: Path
    runs: Path
    results: Path
    threads: int

    def run_all(self, jobs: Iterable[Job], at_once: int) -> None:
        """Run what is not recorded yet."""
        missing = [job for job in jobs if not job.find(recorded(self.results))]
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.run, missing))

    def train(self, job: Job) -> None:
        """Train a job, or go on with it."""
        photographs, folder = self.runs / "photographs", self.runs / job.name
        photographs.mkdir(parents=True, exist_ok=True)
        with FileLock(photographs / ".lock"):  # of a run that is started at the same time
            images = make_subset(self.dataset, job.photographs, job.seed, photographs)
        print(f"{job.name}, rate {job.rate}: started, see {folder}.log", flush=True)
        values = {"model": str(self.model), **job.values}
        train(values, images, folder, job.seed, self.threads)

    def run(self, job: Job) -> None:
        folder = self.runs / job.name
        began = time.time()
        self.train(job)
        row = self.describe(job, folder, environment())
        record(row, self.results)
        print(
            f"{job.name}, rate {job.rate}: selection {row['selection']['top1']:.1%}, development "
            f"{row['development_top1']:.1%}, {(time.time() - began) / 60:.0f} minutes",
            flush=True,
        )

    def run_and_score(self, job: Job) -> None:
        """Run a job if it is not recorded, then score its test images if they are not."""
        self.run_all([job], 1)
        self.score_test(job)

    def describe(self, job: Job, folder: Path, machine: dict[str, Any]) -> dict[str, Any]:
        """What is recorded of a run before its test images are scored."""
        run, report = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
        training = run["training"]
        return {
            "method": job.method,
            "photographs": job.photographs,
            "seed": job.seed,
            "learning_rate": job.rate,
            "values": job.values,
            "selection": run["selection"],
            "scorings": scorings(folder),
            "development_top1": report["metrics"]["top1"]["value"],
            "development_n": report["n"],
            "num_train": run["data"]["num_train"],
            # A logistic regression has no batches: it sees each image once, for its feature.
            "images_seen": training["steps"] * (training["total_train_batch_size"] or 0),
            "seconds": run["seconds"]["total"],
            "threads": self.threads,
            "model_sha256": run["model"]["sha256"],
            "code_sha256": run["code_sha256"],
            "environment": machine,
            "test": None,
        }

    # ---- the test images -------------------------------------------------------------------------

    def search(self, method: str) -> None:
        """Walk along RATES by the selection slice of seed 0: up while it gets better, then down."""
        first = RATES.index(methods()[method][1])
        best = first
        for way in (1, -1):
            while 0 <= best + way < len(RATES) and self.better(method, best + way, best):
                best += way
            if best > first:  # what lies below was worse
                break

    def better(self, method: str, one: int, other: int) -> bool:
        """Whether a rate selects better than another; runs that are missing are trained."""
        jobs = [Job(method, SOME, 0, RATES[index]) for index in (one, other)]
        self.run_all(jobs, 1)
        rows = [job.find(recorded(self.results)) for job in jobs]
        return standing(rows[0]) > standing(rows[1])

    def choose_rate(self, method: str) -> float:
        """Choose a method's rate by the selection slices of seed 0, and write it down."""
        jobs = [Job(method, SOME, 0, rate) for rate in RATES]
        rows = [row for job in jobs if (row := job.find(recorded(self.results)))]
        best = max(rows, key=standing)
        choice = {
            "learning_rate": best["learning_rate"],
            "selection_top1": {f"{r['learning_rate']:g}": r["selection"]["top1"] for r in rows},
            "values": {k: v for k, v in best["values"].items() if k != "learning_rate"},
        }
        change(
            self.results,
            lambda content: {**content, "choices": {**content.get("choices", {}), method: choice}},
        )
        return best["learning_rate"]

    def part_jobs(self, parts: list[str]) -> list[Job]:
        """List the runs of (d) without each of some parts.

        Raises:
            UsageError: (d) has not chosen its rate.
        """
        choices = read_json(self.results).get("choices", {}) if self.results.is_file() else {}
        if "probe_then_full" not in choices:
            raise UsageError(f"{parts[0]!r} takes the rate of probe_then_full: run that one first")
        rate = choices["probe_then_full"]["learning_rate"]
        return [Job(part, SOME, 0, rate) for part in parts]

    def score_test(self, job: Job) -> None:
        """Score the data set's test images, once; nothing where that was done."""
        row = job.find(recorded(self.results))
        if row is None or row["test"]:
            return
        if not (self.runs / job.name / "model").is_dir():  # recorded elsewhere: trained again
            self.train(job)
        source, images = self.test_images(self.runs / job.name)
        report, logits = evaluate_model(self.runs / job.name / "model", source, images)
        right = logits.argmax(1) == np.asarray(images.dataset["label"][:])
        top1 = report["metrics"]["top1"]
        test = {
            "top1": top1["value"],
            "interval": top1["interval"],
            "n": report["n"],
            "fingerprint": report["dataset_fingerprint"],
            "right": "".join(map(str, right.astype(int))),
        }
        if job.method == "probe":
            test["witness"] = self.witness(job)
        change(
            self.results,
            lambda content: {
                **content,
                "runs": [r | {"test": test} if job.matches(r) else r for r in content["runs"]],
            },
        )
        print(f"{job.name}: test {test['top1']:.1%}, n = {test['n']}", flush=True)

    def witness(self, job: Job) -> dict[str, Any]:
        """What scikit-learn alone makes of the photographs of a probe, selection slice included."""
        images = make_subset(self.dataset, job.photographs, job.seed, self.runs / "photographs")
        own = labelled(images / "train") + labelled(images / "val")
        others = labelled(self.dataset / "validation")
        return witness_of(self.runs / job.name / "model", own, others, job.seed)

    def test_images(self, folder: Path) -> Any:
        names = label_names_from(folder / "model", None)
        return load_split(DataArguments(dataset=str(self.dataset)), "validation", names)


def scorings(folder: Path) -> list[dict[str, float]]:
    """Step, top-1 and loss of every scoring of the selection slice; none of a fit without steps."""
    checkpoints = complete_checkpoints(folder)
    if not checkpoints:
        return []
    state = read_json(checkpoints[-1] / "trainer_state.json")
    return [
        {"step": row["step"], "top1": row["eval_top1"], "loss": row["eval_loss"]}
        for row in state["log_history"]
        if "eval_top1" in row
    ]


def standing(row: dict[str, Any]) -> tuple[float, float]:
    """Selection top-1 of the weights that were kept; of equal ones the lower loss is better."""
    step = row["selection"]["best_step"]
    loss = next(each["loss"] for each in row["scorings"] if each["step"] == step)
    return row["selection"]["top1"], -loss


# ---- the order -----------------------------------------------------------------------------------


def probe_jobs() -> list[Job]:
    return [Job("probe", n, seed, None) for n in (SOME, FEW, MANY) for seed in range(3)]


def further_jobs(method: str, rate: float) -> list[Job]:
    """30 a class with three seeds, 10 and 100 with one; LoRA at 30 alone."""
    first, *seeds = [Job(method, SOME, seed, rate) for seed in (0, 1, 2)]
    if method == "lora":
        return [first, *seeds]
    return [first, Job(method, MANY, 0, rate), *seeds, Job(method, FEW, 0, rate)]


def run(args: argparse.Namespace) -> str:
    """Train what is missing, in the order in which it is worth most; return the tables."""
    if not args.table:
        runner = Runner(args.model, args.dataset, args.runs, args.json, args.threads)
        if "probe" in args.methods:
            runner.run_all(probe_jobs(), 1)
            for job in probe_jobs():
                runner.score_test(job)
        trained = [method for method in args.methods if method != "probe" and method not in PARTS]
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(runner.search, trained))
            for method in trained if not args.search_only else ():
                jobs = further_jobs(method, runner.choose_rate(method))
                list(pool.map(runner.run_and_score, jobs))
        if parts := [method for method in args.methods if method in PARTS]:
            jobs = runner.part_jobs(parts)
            runner.run_all(jobs, args.jobs)
            for job in jobs if not args.search_only else ():
                runner.score_test(job)
    return page_part(args.json)


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", metavar="DIR", type=Path, help="a pretrained ViT")
    p.add_argument("--dataset", metavar="DIR", type=Path, help="folder with train/, validation/")
    names = [*methods(), *PARTS]
    p.add_argument("--methods", nargs="+", choices=names, default=names)
    p.add_argument("--search_only", action="store_true", help="no test image is opened")
    p.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    p.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each run")
    p.add_argument("--runs", metavar="DIR", type=Path, default=ROOT / "runs" / "finetune")
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--table", action="store_true", help="print the table and train nothing")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the table into that page")
    args = p.parse_args(argv)
    if not args.table and not (args.dataset and args.model):
        p.error("--model and --dataset are missing: give two folders, or --table")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    return MARKS.publish(lambda: run(args), args.write)


if __name__ == "__main__":
    sys.exit(main())
