"""Reading single facts out of JSON, and checking them.

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
    """A text with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text with something in it")
    return value


def sha256(value: Any) -> str:
    """A SHA-256 digest: 64 hexadecimal digits, lower case."""
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError("a SHA-256 of 64 hexadecimal digits")
    return value


def one_of(*allowed: Any) -> Callable[[Any], Any]:
    """A check that accepts the given values only."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError("one of " + ", ".join(map(repr, allowed)))
        return value

    return check


def whole(value: Any) -> int:
    """A whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def positive(value: Any) -> int:
    """A whole number, 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a whole number, 1 or more")
    return value


def number(value: Any) -> float:
    """A finite number."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError("a finite number")
    return float(value)


def amount(value: Any) -> float:
    """A finite number, 0 or more."""
    if number(value) < 0:
        raise ValueError("a finite number, 0 or more")
    return float(value)


def share(value: Any) -> float:
    """A number from 0 to 1, NaN excluded."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same check, where an explicit null means "there is none"; the key itself must exist."""

    def check_or_null(value: Any) -> Any:
        return None if value is None else check(value)

    check_or_null.accepts_null = True  # type: ignore[attr-defined]
    return check_or_null


def later(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same check for a key that older runs do not have: absent means "there is none"."""
    check_or_none = optional(check)
    check_or_none.accepts_absence = True  # type: ignore[attr-defined]
    return check_or_none


def interval(value: Any) -> tuple[float, float]:
    """A pair (low, high), both from 0 to 1, low first."""
    if not isinstance(value, list) or len(value) != 2 or not share(value[0]) <= share(value[1]):
        raise ValueError("a pair [low, high] from 0 to 1")
    return float(value[0]), float(value[1])


def channels(value: Any) -> tuple[float, ...]:
    """One finite number per colour channel, (3,)."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("a list of three numbers")
    return tuple(number(item) for item in value)


def names(value: Any) -> tuple[str, ...]:
    """Two or more different texts, in the model's order."""
    if not isinstance(value, list) or len(value) < 2 or len(set(map(str, value))) < len(value):
        raise ValueError("a list of two or more different names")
    return tuple(text(item) for item in value)


def texts(value: Any) -> tuple[str, ...]:
    """One or more texts."""
    if not isinstance(value, list) or not value:
        raise ValueError("a list of one or more texts")
    return tuple(text(item) for item in value)


def pairs(value: Any) -> tuple[tuple[str, Any], ...]:
    """A JSON object as pairs (key, value), sorted by key, so that equal objects render equally."""
    if not isinstance(value, dict):
        raise ValueError("an object of names and values")
    return tuple(sorted(value.items()))


def versions(value: Any) -> tuple[tuple[str, str], ...]:
    """Package versions as pairs (name, version), sorted by name; four must be there."""
    if not isinstance(value, dict):
        raise ValueError("an object of package names and versions")
    for name in NEEDED_VERSIONS:
        if name not in value:
            raise MissingFactError(f".{name}")
    return tuple((name, text(version)) for name, version in sorted(value.items()))


def fields(**columns: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """A check for an object with at least these keys; other keys are dropped."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("an object of names and values")
        for name in columns:
            if name not in value:
                raise MissingFactError(f".{name}")
        return {name: check_value(value[name]) for name, check_value in columns.items()}

    return check


def rows(**columns: Callable[[Any], Any]) -> Callable[[Any], tuple[dict[str, Any], ...]]:
    """A check for a list of objects with at least these keys; other keys are dropped."""

    def check(value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise ValueError("a list of objects")
        return tuple(check_row(index, row) for index, row in enumerate(value))

    def check_row(index: int, row: dict[str, Any]) -> dict[str, Any]:
        for column, check_cell in columns.items():
            if column not in row:
                raise MissingFactError(f"[{index}].{column}")
            try:
                check_cell(row[column])
            except ValueError as problem:
                raise ValueError(f"a list with {problem} in [{index}].{column}") from None
        return {column: columns[column](row[column]) for column in columns}

    return check


def read_json(path: Path) -> Any:
    """The parsed JSON of run.json or evaluation.json; FactError where it is absent or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFactError(f"{path} does not exist: {CURES[path.name]}") from None
    except ValueError as error:
        raise FactError(f"{path} is not JSON ({error}): {CURES[path.name]}") from None


def read_value(files: dict[str, Any], source: str, check: Callable[[Any], Any]) -> Any:
    """The value of one key, such as "run.data.num_test", checked; FactError names file and key.

    `files` maps the two file names to their parsed JSON.
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
