# SPDX-License-Identifier: Apache-2.0
"""Whether scores mean what they say and promises are kept, of finished runs.

    python benchmarks/trust.py --dataset ../shared/food10 runs/from_scratch
    python benchmarks/trust.py --table --write docs/trust.md     # prints what is recorded

Calibration is the run's own evaluation, as its card shows it: a temperature from held-out images, scored
on the test images. Thresholds and sets are tried on 40 random halves of the test images: chosen on one
half, checked on the other, beside a threshold by the plain rate of right answers, without a bound.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import environment
from pages import Marks, UsageError
from training_runs import ROOT, change

from training.common.files import read_json
from training.data.arguments import DataArguments
from training.data.loading import load_split
from training.evaluation.classification import log_softmax
from training.evaluation.formats import read_evaluation
from training.evaluation.report import evaluate_model
from training.evaluation.trust.abstention import choose_threshold, measure_sets, set_quantiles
from training.model.network import label_names_from

MARKS = Marks.of("trust.py")
RESULTS = ROOT / "benchmarks" / "results" / "trust.json"
HALVES = 40
TARGETS = (0.9, 0.95)
COVERAGE = 0.9


def score(run: Path, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Chances (num_images, num_classes) and labels of the test images that the run was reported on."""
    report, record = read_evaluation(run), read_json(run / "run.json")
    args = DataArguments(dataset=dataset, test_split=record["recipe"].get("test_split"))
    source, split = load_split(args, report["split"], label_names_from(run / "model", None))
    again, logits = evaluate_model(run / "model", source, split)
    if again["dataset_fingerprint"] != report["dataset_fingerprint"]:
        raise UsageError(f"{dataset} has other test images than {run.name} was reported on")
    return np.exp(log_softmax(logits.astype(np.float64))), np.asarray(split.dataset["label"][:])


def try_halves(chances: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What thresholds and sets that were chosen on one half give on the other, over `HALVES` halves."""
    sure, right = chances.max(1), chances.argmax(1) == labels
    found: dict[str, Any] = {
        "halves": HALVES,
        "n": len(labels),
        "targets": [],
        "coverage": COVERAGE,
    }
    orders = [np.random.default_rng(seed).permutation(len(labels)) for seed in range(HALVES)]
    parts = [(order[: len(order) // 2], order[len(order) // 2 :]) for order in orders]
    for target in TARGETS:
        for name, choose in (("bound", choose_threshold), ("rate", by_the_rate)):
            outcomes = [
                outcome(sure[b], right[b], choose(sure[a], right[a], target)) for a, b in parts
            ]
            answered = [each for each in outcomes if each is not None]
            found["targets"].append(
                {
                    "target": target,
                    "chosen_by": name,
                    "found": len(answered),
                    "answered": mean([share for share, _ in answered]),
                    "accuracy": mean([accuracy for _, accuracy in answered]),
                    "below_target": sum(accuracy < target for _, accuracy in answered),
                }
            )
    measured = []
    for a, b in parts:
        lowest = set_quantiles(chances[a], labels[a], (COVERAGE,)).get(f"{COVERAGE:g}")
        if lowest is not None:
            measured.append(measure_sets(chances[b], labels[b], lowest))
    found["sets"] = {key: mean([each[key] for each in measured]) for key in measured[0]}
    return found


def by_the_rate(sure: np.ndarray, right: np.ndarray, target: float) -> tuple[float, int] | None:
    """The lowest threshold above which the share of right answers is the target: without a bound."""
    order = np.argsort(-sure, kind="stable")
    rate = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(rate >= target)
    return (float(sure[order][good[-1]]), int(good[-1]) + 1) if len(good) else None


def outcome(
    sure: np.ndarray, right: np.ndarray, chosen: tuple[float, int] | None
) -> tuple[float, float] | None:
    """Share answered and accuracy of it; None where no threshold was found or nothing lies above."""
    answered = sure >= chosen[0] if chosen else np.zeros(len(sure), bool)
    return (float(answered.mean()), float(right[answered].mean())) if answered.any() else None


def mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


# ---- the tables ----------------------------------------------------------------------------------


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: calibration, then thresholds, then sets."""
    return "\n\n".join([calibration_table(rows), target_table(rows), set_table(rows)])


def calibration_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | top-1, n | temperature, from | NLL | Brier | ECE | ECE if perfect |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found = row["calibration"]
        if found is None:
            lines.append(f"| {row['name']} | {row['top1']:.1%}, {row['n']} | none | | | | |")
            continue
        cells = [
            f"{found['before'][key]['value']:.3f} -> {found['after'][key]['value']:.3f}"
            for key in ("nll", "brier", "ece")
        ]
        used = found["held_out"]
        lines.append(
            f"| {row['name']} | {row['top1']:.1%}, {row['n']} | {found['temperature']:.2f}, {used['n']} "
            f"{used['source']} | {' | '.join(cells)} | {found['ece_if_perfect']:.3f} |"
        )
    return "\n".join(lines)


def target_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | promised | threshold by | found in | answered | right of them | below the promise |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for each in row["halves"]["targets"]:
            by = "Clopper-Pearson" if each["chosen_by"] == "bound" else "the rate"
            some = each["found"] > 0
            lines.append(
                f"| {row['name']} | {each['target']:.0%} | {by} | {each['found']} of {HALVES} | "
                f"{format(each['answered'], '.1%') if some else ''} | "
                f"{format(each['accuracy'], '.1%') if some else ''} | {each['below_target']} |"
            )
    return "\n".join(lines)


def set_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | promised | held the right dish | dishes in a set | empty | weakest dish |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found = row["halves"]["sets"]
        lines.append(
            f"| {row['name']} | {COVERAGE:.0%} | {found['coverage']:.1%} | {found['mean_size']:.2f} | "
            f"{found['empty']:.1%} | {found['worst_label_coverage']:.1%} |"
        )
    return "\n".join(lines)


def recorded(results: Path) -> list[dict[str, Any]]:
    return list(read_json(results)["networks"].values()) if results.is_file() else []


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="finished runs of one data set"
    )
    p.add_argument("--dataset", help="the images that they were reported on")
    p.add_argument("--name", help="of the network in the table; default: the run's folder")
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--table", action="store_true", help="print the tables and score nothing")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the tables into that page")
    args = p.parse_args(argv)
    return MARKS.publish(lambda: run(args), args.write)


def run(args: argparse.Namespace) -> str:
    """Score what was given, record it, and return the tables."""
    for folder in () if args.table else args.runs:
        row = describe(folder, args.dataset, args.name or folder.name)
        change(
            args.json,
            lambda content, row=row: {
                "networks": {**content.get("networks", {}), row["name"]: row}
            },
        )
    return tables(recorded(args.json))


def describe(run: Path, dataset: str, name: str) -> dict[str, Any]:
    """What is recorded of one run."""
    report, record = read_evaluation(run), read_json(run / "run.json")
    return {
        "name": name,
        "top1": report["metrics"]["top1"]["value"],
        "n": report["n"],
        "calibration": report["calibration"],
        "abstention": report["abstention"],
        "halves": try_halves(*score(run, dataset)),
        "fingerprint": report["dataset_fingerprint"],
        "command": record["command"],
        "code_sha256": record["code_sha256"],
        "environment": environment(),
    }


if __name__ == "__main__":
    sys.exit(main())
