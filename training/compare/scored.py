"""Read finished runs with their answers, and see that they answer the same test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.files import read_json
from training.common.paths import existing_folder
from training.evaluation.formats import read_evaluation
from training.evaluation.predictions import read_predictions


@dataclass(frozen=True)
class ScoredRun:
    """A run or release folder, and its answer to every test image, in order."""

    name: str  # the folder as it was given
    folder: Path
    run: dict[str, Any]  # run.json
    evaluation: dict[str, Any]  # evaluation.json, in format 2 whatever version wrote it
    labels: list[str]  # name of each test image's label
    predicted: list[str]  # name of the label that the model gave it

    @property
    def right(self) -> list[bool]:
        """Tell for each test image whether the predicted label is the true one."""
        return [label == name for label, name in zip(self.labels, self.predicted, strict=True)]


# ---- reading --------------------------------------------------------------------------------------


def load_scored(name: str) -> ScoredRun:
    """Read run.json, evaluation.json and predictions.csv, and see that they belong together.

    Args:
        name: a run or release folder.

    Raises:
        UserError: a file is missing, of an unknown format, or contradicts the others.
    """
    folder = existing_folder(name, "a finished run or a release folder")
    run, evaluation = read_json(folder / "run.json"), read_evaluation(folder)
    if not isinstance(run, dict) or run.get("format") != 1:
        raise UserError(f"{folder / 'run.json'} is not of this format: release or train it again")
    if not run.get("finished"):
        raise UserError(
            f"{name} is an unfinished run: train it to its end first; its `food101 train` command says how"
        )
    rows = read_predictions(folder)
    scored = ScoredRun(
        name.rstrip("/") or name,
        folder,
        run,
        evaluation,
        [row["label"] for row in rows],
        [row["predicted"] for row in rows],
    )
    _check_predictions(scored)
    return scored


def _check_predictions(scored: ScoredRun) -> None:
    """Refuse predictions.csv of another model: its counts must be those of evaluation.json."""
    n, top1 = fact(scored, "evaluation.n"), fact(scored, "evaluation.metrics.top1.value")
    cure = "restore both files as the run wrote them, or make the release again"
    if len(scored.labels) != n:
        raise UserError(
            f"{scored.folder / 'predictions.csv'} has {len(scored.labels)} images and evaluation.json "
            f"{n}: {cure}"
        )
    right = sum(scored.right)
    if abs(right - top1 * n) > 0.5:
        raise UserError(
            f"{scored.folder / 'predictions.csv'} has {right} of {n} right and evaluation.json says "
            f"{top1:.4%}: {cure}"
        )


def fact(scored: ScoredRun, key: str) -> Any:
    """Look up one value by file and key: fact(scored, "run.model.id"), fact(scored, "evaluation.n").

    Raises:
        UserError: the file has no such key.
    """
    file, *path = key.split(".")
    value: Any = getattr(scored, file)
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise UserError(
                f"{scored.folder / file}.json has no {'.'.join(path)}: it was written by another version, "
                "or changed; train or release again"
            )
        value = value[part]
    return value


def check_same_images(first: ScoredRun, other: ScoredRun) -> None:
    """Refuse to compare two runs that were not scored on the same test images.

    Raises:
        UserError: content, split, number or labels of the test images differ.
    """
    for key in ("split", "n", "dataset_fingerprint"):
        before, after = (fact(each, f"evaluation.{key}") for each in (first, other))
        if before != after:
            raise UserError(
                f"{other.name} was scored on other test images than {first.name} ({key} "
                f"{str(after)[:16]}, not {str(before)[:16]}): train or score both on the same data"
            )
    if first.labels != other.labels:
        where = next(
            i
            for i, pair in enumerate(zip(first.labels, other.labels, strict=True))
            if len({*pair}) > 1
        )
        raise UserError(
            f"{other.name} and {first.name} do not have the same labels in predictions.csv (image "
            f"{where}: {other.labels[where]} and {first.labels[where]}): restore the files as they were"
        )
