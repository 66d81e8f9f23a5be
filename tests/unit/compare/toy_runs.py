# SPDX-License-Identifier: Apache-2.0
"""Run folders without weights, for comparisons that are counted by hand."""

import csv
import json
from pathlib import Path

from tests.unit.card_files import files
from training.evaluation.intervals import wilson_interval

NAMES = ["cheesecake", "cheese_plate", "mac, cheese"]
TRUTH = [NAMES[i % 3] for i in range(20)]

A = "11111111111111100000"  # 15 right
B = "11111111111100011110"  # 16 right: 3 only A, 4 only B, 12 both, 1 neither


def wrong(label: str) -> str:
    return NAMES[(NAMES.index(label) + 1) % 3]


def write_run(folder: Path, right: str, sha256: str = "", **changes: object) -> Path:
    """A run folder without weights; `right` is 1 or 0 for each of the 20 test images.

    `changes` are dotted keys with `__` for the dot, as `run__data__num_train=5`.
    """
    folder.mkdir(parents=True)
    both = files("local")
    n, top1 = len(right), right.count("1") / len(right)
    both["run"]["data"]["train_fingerprint"] = "cd" * 32
    both["evaluation"] |= {"n": n, "model_sha256": sha256 or f"{hash(folder) % 16**16:064x}"}
    interval = list(wilson_interval(right.count("1"), n))
    both["evaluation"]["metrics"]["top1"] |= {"value": top1, "interval": interval}
    for key, value in changes.items():
        *path, last = key.split("__")
        record = both
        for part in path:
            record = record[part]
        record[last] = value
    for name, record in both.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    rows = [
        [i, label, label if is_right == "1" else wrong(label), "0.5"]
        for i, (label, is_right) in enumerate(zip(TRUTH, right, strict=True))
    ]
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[list[object]]) -> None:
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["position", "label", "predicted", "score"], *rows])


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
