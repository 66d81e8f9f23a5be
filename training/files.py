"""Files that a crash cannot leave half written."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from training.errors import UserError

RECIPES = Path(__file__).parent / "recipes"


def packaged_recipes() -> list[str]:
    """Names of the recipes that are installed with the code."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a packaged recipe or of a path.

    Raises:
        UserError: neither; the closest packaged name is suggested.
    """
    names = packaged_recipes()
    path = RECIPES / f"{name}.yaml" if name in names else Path(name)
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(names)}, or a path"
    raise UserError(f"unknown recipe {name}: {hint}")


def write_json(path: Path, value: Any) -> None:
    """Write to a temporary name beside `path`, then move. NaN is refused: it is not JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: is {path.parent} a finished run?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): restore it, or train again") from error


def read_predictions(folder: Path) -> list[dict[str, str]]:
    """The rows of predictions.csv: `position`, `label`, `predicted`, `score`.

    Raises:
        UserError: missing, or not such a table.
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


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
