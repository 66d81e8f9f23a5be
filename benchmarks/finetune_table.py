# SPDX-License-Identifier: Apache-2.0
"""The tables of `finetune.py`: means, ranges, and paired differences to the probe of the same seed."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from pages import Marks, UsageError
from training_runs import ROOT  # puts the project on the path

from training.common.files import read_json
from training.evaluation.intervals import paired_interval

assert ROOT
MARKS = Marks.of("finetune.py")
LABELS = {
    "example": "(a) the Trainer example's",
    "probe": "(b) linear probe",
    "full": "(c) all weights, ours",
    "probe_then_full": "(d) probe, then all weights",
    "lora": "(e) probe, then LoRA",
}
PART = "without "  # begins the name of a run of (d) that lacks a part
HEAD = (
    "| photographs a class | what | rate | seeds | test top-1, mean | range | points more than (b), "
    "by seed (95 % interval) | images seen | minutes |"
)


def page_part(results: Path) -> str:
    """Markdown: the runs whose test images were scored, and how the learning rates were chosen."""
    if not results.is_file():
        return "Nothing is recorded yet."
    content = read_json(results)
    parts = [row for row in content["runs"] if row["method"].startswith(PART)]
    rows = [row for row in content["runs"] if row["test"] and row not in parts]
    tables = [table(rows), choices_table(content.get("choices", {}))]
    if parts:
        whole = next(row for row in content["runs"] if is_whole(row, parts[0]))
        tables.append(parts_table(whole, parts))
    return "\n\n".join(tables)


def is_whole(row: dict[str, Any], part: dict[str, Any]) -> bool:
    """Whether a run is the one that a part was taken from."""
    same = all(row[key] == part[key] for key in ("photographs", "seed", "learning_rate"))
    return same and row["method"] == "probe_then_full"


def parts_table(whole: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """One line for (d), and one for each part that was left out of it."""
    own, others = whole["selection"]["n"], whole["development_n"]
    lines = [
        f"| what, {whole['photographs']} a class, rate {whole['learning_rate']:g}, seed "
        f"{whole['seed']} | selection, n = {own} | development, n = {others} | test | points more "
        "than (d) (95 % interval) |",
        "|" + " --- |" * 5,
    ]
    for row in (whole, *parts):
        label = LABELS.get(row["method"], f"(d) {row['method']}")
        test = f"{row['test']['top1']:.1%}" if row["test"] else ""
        paired = difference(row, whole) if row["test"] and row is not whole else ""
        lines.append(
            f"| {label} | {row['selection']['top1']:.1%} | {row['development_top1']:.1%} | {test} "
            f"| {paired} |"
        )
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each number of photographs and method.

    Raises:
        UsageError: the rows were scored on different images.
    """
    if len({row["test"]["fingerprint"] for row in rows}) > 1:
        raise UsageError(
            "the recorded runs were scored on different images: give --json another file"
        )
    lines = [HEAD, "|" + " --- |" * 9]
    for photographs in sorted({row["photographs"] for row in rows}):
        own = [row for row in rows if row["photographs"] == photographs]
        probes = {row["seed"]: row for row in own if row["method"] == "probe"}
        for method in dict.fromkeys([*LABELS, *(row["method"] for row in own)]):
            its = sorted((r for r in own if r["method"] == method), key=lambda row: row["seed"])
            if its:
                lines.append(line(photographs, method, its, probes))
    return "\n".join(lines)


def line(
    photographs: int, method: str, rows: list[dict[str, Any]], probes: dict[int, dict[str, Any]]
) -> str:
    """One line of the table."""
    scores = [row["test"]["top1"] for row in rows]
    differences = "; ".join(
        difference(row, probes[row["seed"]])
        for row in rows
        if method != "probe" and row["seed"] in probes
    )
    rate, seen = rows[0]["learning_rate"], rows[0]["images_seen"]
    minutes = statistics.median(row["seconds"] for row in rows) / 60
    return (
        f"| {photographs} | {LABELS.get(method, method)} | {'' if rate is None else f'{rate:g}'} | "
        f"{len(rows)} | {statistics.mean(scores):.1%} | {min(scores):.1%} to {max(scores):.1%} | "
        f"{differences} | {f'{seen:,}' if seen else 'each once'} | {minutes:.1f} |"
    )


def difference(row: dict[str, Any], other: dict[str, Any]) -> str:
    """How many points more a run gets right than another of the same images: +1.2 (-0.3 to 2.7)."""
    pairs = list(zip(row["test"]["right"], other["test"]["right"], strict=True))
    counts = [pairs.count(pair) for pair in (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0"))]
    low, high = paired_interval(*counts)
    return (
        f"{100 * (counts[1] - counts[2]) / len(pairs):+.1f} ({100 * low:.1f} to {100 * high:.1f})"
    )


def choices_table(choices: dict[str, Any]) -> str:
    """Markdown: what the selection slice of seed 0 said of each learning rate."""
    lines = [
        "| what | selection top-1 by learning rate, 30 a class | chosen |",
        "| --- | --- | --- |",
    ]
    for method, choice in choices.items():
        tried = ", ".join(f"{rate}: {top1:.1%}" for rate, top1 in choice["selection_top1"].items())
        lines.append(f"| {LABELS.get(method, method)} | {tried} | {choice['learning_rate']:g} |")
    return "\n".join(lines)
