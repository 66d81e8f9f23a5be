# SPDX-License-Identifier: Apache-2.0
"""Training runs in processes of their own, as a person starts them, each recorded when it is done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.common.files import read_json, write_json
from training.engine.checkpoints import complete_checkpoints


def train(
    values: dict[str, Any], dataset: str | Path, folder: Path, seed: int, threads: int = 0
) -> None:
    """Train a recipe in a process of its own; an interrupted run goes on from its last checkpoint.

    Args:
        values: the whole recipe; written beside the run's folder, with the log.
        threads: of the process; 0 is torch's choice.

    Raises:
        RuntimeError: the process ended with another code than 0.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = Path(f"{folder}.yaml")
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    words = [sys.executable, "-m", "training.train", str(recipe), "--dataset", str(dataset)]
    words += ["--output_dir", str(folder), "--seed", str(seed), "--data_seed", str(seed)]
    begun = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    if complete_checkpoints(folder) and not begun.get("finished"):
        words += ["--resume_from_checkpoint", "last"]
    with open(f"{folder}.log", "a", encoding="utf-8") as log:
        done = subprocess.run(
            words, env=environment_of(threads), stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{folder.name} ended with {done.returncode}: see {folder}.log")


def environment_of(threads: int = 0) -> dict[str, str]:
    """Return the environment variables of a run: this project's code, and so many threads."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **limit}


def recorded(results: Path) -> list[dict[str, Any]]:
    """Read the rows of a file of results; none where there is no such file yet."""
    return read_json(results)["runs"] if results.is_file() else []


def record(row: dict[str, Any], results: Path) -> None:
    """Add a row to a file of results; another command may write to it as well."""
    change(results, lambda content: {**content, "runs": [*content.get("runs", []), row]})


def change(results: Path, make: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write what `make` makes of a file's content ({} of no file), whole, one command at a time."""
    with FileLock(f"{results}.lock"):
        write_json(results, make(read_json(results) if results.is_file() else {}))
