"""Read single facts out of JSON and check them.

A check takes a value as JSON gave it and returns it in the type that the card uses. It raises
ValueError with a noun phrase that says what the value should have been ("a whole number, 0 or
more"); `read_value` adds file, key and cure.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

CURES = {"run.json": "train again", "evaluation.json": "run `food101 evaluate`"}
NEEDED_VERSIONS = ("vit-food101", "python", "torch", "transformers")
SHA256 = re.compile(r"[0-9a-f]{64}")


class FactError(ValueError):
    """A fact is there but cannot be true: one line with file, key, value and cure."""


class MissingFactError(FactError):
    """A fact that the card needs is not there: one line with file, key and cure."""


def text(value: Any) -> str:
    """Accept a text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text with something in it")
    return value


def sha256(value: Any) -> str:
    """Accept a SHA-256 digest: 64 hexadecimal digits, lower case."""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError("a SHA-256 of 64 hexadecimal digits")
    return value


def one_of(*allowed: Any) -> Callable[[Any], Any]:
    """Make a check that accepts the given values only."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError("one of " + ", ".join(map(repr, allowed)))
        return value

    return check


def whole(value: Any) -> int:
    """Accept a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def positive(value: Any) -> int:
    """Accept a whole number, 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number, 1 or more")
    return value


def number(value: Any) -> float:
    """Return `value` as a float; ValueError unless it is a finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError("a finite number")
    return float(value)


def amount(value: Any) -> float:
    """Return `value` as a float; ValueError unless it is a finite number of at least 0."""
    if number(value) < 0:
        raise ValueError("a finite number, 0 or more")
    return float(value)


def share(value: Any) -> float:
    """Accept a number from 0 to 1, NaN excluded."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a check that also accepts null, for "there is none"; the key itself must exist."""

    def check_or_null(value: Any) -> Any:
        return None if value is None else check(value)

    check_or_null.accepts_null = True  # type: ignore[attr-defined]
    return check_or_null


def later(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a check that takes null or a missing key as None, for keys that older runs lack."""
    check_or_none = optional(check)
    check_or_none.accepts_absence = True  # type: ignore[attr-defined]
    return check_or_none


def interval(value: Any) -> tuple[float, float]:
    """Accept a pair [low, high] of finite numbers, low first."""
    if not isinstance(value, list) or len(value) != 2 or not number(value[0]) <= number(value[1]):
        raise ValueError("a pair [low, high]")
    return float(value[0]), float(value[1])


def channels(value: Any) -> tuple[float, ...]:
    """Accept one finite number per colour channel, (3,)."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("a list of three numbers")
    return tuple(number(item) for item in value)


def grids(value: Any) -> tuple[int, int]:
    """Accept a pair [old, new] of whole numbers from 1 up: patches a side."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("a pair [old, new]")
    return positive(value[0]), positive(value[1])


def names(value: Any) -> tuple[str, ...]:
    """Accept two or more different texts, in the model's order."""
    if not isinstance(value, list) or len(value) < 2 or len(set(map(str, value))) < len(value):
        raise ValueError("a list of two or more different names")
    return tuple(text(item) for item in value)


def texts(value: Any) -> tuple[str, ...]:
    """Accept one or more texts."""
    if not isinstance(value, list) or not value:
        raise ValueError("a list of one or more texts")
    return tuple(text(item) for item in value)


def any_texts(value: Any) -> tuple[str, ...]:
    """Accept any number of texts, none at all included."""
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return tuple(text(item) for item in value)


def pairs(value: Any) -> tuple[tuple[str, Any], ...]:
    """Turn an object into pairs (key, value) sorted by key, so that equal objects render equally."""
    if not isinstance(value, dict):
        raise ValueError("an object of names and values")
    return tuple(sorted(value.items()))


def versions(value: Any) -> tuple[tuple[str, str], ...]:
    """Turn package versions into pairs (name, version) sorted by name; four must be there."""
    if not isinstance(value, dict):
        raise ValueError("an object of package names and versions")
    for name in NEEDED_VERSIONS:
        if name not in value:
            raise MissingFactError(f".{name}")
    return tuple((name, text(version)) for name, version in sorted(value.items()))


def fields(**columns: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """Make a check for an object with at least these keys; other keys are dropped."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("an object of names and values")
        return _check_row("an object", "", value, columns)

    return check


def rows(**columns: Callable[[Any], Any]) -> Callable[[Any], tuple[dict[str, Any], ...]]:
    """Make a check for a list of objects with at least these keys; other keys are dropped."""

    def check(value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise ValueError("a list of objects")
        return tuple(
            _check_row("a list", f"[{index}]", row, columns) for index, row in enumerate(value)
        )

    return check


def objects(**columns: Callable[[Any], Any]) -> Callable[[Any], dict[str, dict[str, Any]]]:
    """Make a check for an object of objects, each with at least these keys; others are dropped."""

    def check(value: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(value, dict) or not all(isinstance(row, dict) for row in value.values()):
            raise ValueError("an object of objects")
        return {key: _check_row("an object", f".{key}", row, columns) for key, row in value.items()}

    return check


def _check_row(
    whole: str, place: str, row: dict[str, Any], columns: dict[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    """Check the columns of one row; `whole` and `place` say in the error where the row stands."""
    checked = {}
    for column, check_cell in columns.items():
        if column not in row:
            raise MissingFactError(f"{place}.{column}")
        try:
            checked[column] = check_cell(row[column])
        except MissingFactError as gap:
            raise MissingFactError(f"{place}.{column}{gap}") from None
        except ValueError as problem:
            raise ValueError(f"{whole} with {problem} in {place}.{column}") from None
    return checked


def read_json(path: Path) -> Any:
    """Parse run.json or evaluation.json.

    Raises:
        MissingFactError: there is no such file.
        FactError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFactError(f"{path} does not exist: {CURES[path.name]}") from None
    except ValueError as error:
        raise FactError(f"{path} is not JSON ({error}): {CURES[path.name]}") from None


def read_value(files: dict[str, Any], source: str, check: Callable[[Any], Any]) -> Any:
    """Look up one value, such as "run.data.num_test", and check it.

    Args:
        files: parsed JSON by file name, {"run.json": ..., "evaluation.json": ...}.
        source: stem of the file and dotted key.

    Returns:
        What the check returned. None: the check accepts null or absence, and there is no value.

    Raises:
        MissingFactError: there is no value; the line names file, key and cure.
        FactError: the check refuses the value; the line names it too.
    """
    stem, key = source.split(".", 1)
    name = f"{stem}.json"
    value = files[name]
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            if hasattr(check, "accepts_absence"):
                return None
            raise MissingFactError(f"{name} has no {key}: {CURES[name]}")
        value = value[part]
    if value is None and not hasattr(check, "accepts_null"):
        raise MissingFactError(f"{name} has no {key}: {CURES[name]}")
    try:
        return check(value)
    except MissingFactError as gap:
        raise MissingFactError(f"{name} has no {key}{gap}: {CURES[name]}") from None
    except ValueError as problem:
        shown = repr(value) if len(repr(value)) < 60 else "a longer value"
        raise FactError(f"{name}: {key} is {shown}, not {problem}: {CURES[name]}") from None
