"""Read predictions.csv: what a model answered for each test image."""

from __future__ import annotations

import csv
from pathlib import Path

from training.common.errors import UserError


def read_predictions(folder: Path) -> list[dict[str, str]]:
    """Read the rows of predictions.csv of a run or release folder, in the order of the test split.

    Each row is a dict with the keys position, label, predicted (names of labels) and score
    (probability of the predicted label), all texts.

    Raises:
        UserError: the file is missing, or it is not such a table.
    """
    path = folder / "predictions.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), set(reader.fieldnames or ())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: is {folder} a finished run?") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not CSV ({error}): restore it, or train again") from error
    whole = all(None not in row and None not in row.values() for row in rows)
    if not {"label", "predicted", "score"} <= columns or not whole:
        raise UserError(f"{path} is not a table of predictions: restore it, or train again")
    return rows
