"""Read tables of text: CSV, TSV, JSON and JSON lines; a cell is never lost, and never guessed."""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath

import pandas as pd
from datasets import Dataset

from training.common.errors import UserError
from training.data.layouts.columns import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    Resolve,
    resolver,
)

TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
DELIMITERS = ",;\t|"
TITLES = {*PATH_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS}
ONE_HOT = "_classes"  # Roboflow's name


def is_text_table(name: str) -> bool:
    """Say whether a file is a table of text by its name."""
    return PurePosixPath(name).suffix.lower() in TEXT_TABLES


def read_text_table(path: Path, resolve: Resolve | None = None) -> Dataset:
    """Read a CSV, TSV, JSON or JSON-lines file; cells of the first two are text, numbers if all are.

    A first row that is no header (a cell is the name of a file that is there) counts as a row.

    Args:
        resolve: finds the file that a cell names; None looks beside the table.

    Raises:
        UserError: it is not UTF-8, or not what its name says, or empty.
    """
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            frame = _read_csv(path, resolve or resolver([path.parent]))
        else:
            frame = _read_json(path)
        if path.stem.lower() == ONE_HOT:
            frame = _one_label(frame, path)
        if not frame.empty:
            return Dataset.from_pandas(frame, preserve_index=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as a table: {reason}") from error
    raise UserError(f"{path} has no row")


def _read_csv(path: Path, resolve: Resolve) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=head.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, row) for row in reader if row]
    if not lines:
        return pd.DataFrame()
    first = lines[0][1]
    files = [i for i, cell in enumerate(first) if _names_a_file(cell, resolve)]
    titles = _titles(first, files[0] if files else None)
    rows = [_as_long(row, titles, number) for number, row in lines[0 if files else 1 :]]
    return pd.DataFrame(rows, columns=titles, dtype=object).apply(_numbers)


def _titles(first: list[str], file: int | None) -> list[str]:
    """Name the columns; `file` is the one with files where the first row is no header."""
    if file is not None:
        rest = [i for i in range(len(first)) if i != file]
        named = {file: "file_name", **{i: "label" for i in rest[:1]}}
        return [named.get(i, str(i)) for i in range(len(first))]
    titles = [title.strip() or f"Unnamed: {i}" for i, title in enumerate(first)]
    twice = next((title for title in titles if titles.count(title) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {twice}")
    return titles


def _as_long(row: list[str], titles: list[str], number: int) -> list[str | None]:
    """Make a row as long as the titles: cells that are missing are none, and nothing that is there is lost."""
    if any(row[len(titles) :]):
        raise ValueError(
            f"line {number} has {len(row)} cells and there are {len(titles)} columns: quote a cell with a comma"
        )
    return [*row[: len(titles)], *[None] * (len(titles) - len(row))]


def _names_a_file(cell: str, resolve: Resolve) -> bool:
    """Say whether a cell of the first row names a file, and is no title of a column."""
    return cell.strip().lower() not in TITLES and resolve(cell) is not None


def _one_label(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Turn a column of 0 and 1 for each label, as Roboflow writes _classes.csv, into one of labels.

    Raises:
        UserError: an image has several labels, or a cell is something else.
    """
    labels = frame.columns[1:]
    marks = frame[labels].apply(pd.to_numeric, errors="coerce")
    if not marks.isin([0, 1]).all(axis=None) or (marks.sum(axis=1) > 1).any():
        raise UserError(
            f"{path} gives an image several labels, or has a cell that is not 0 or 1: one label an image is needed"
        )
    named = [labels[row.argmax()] if row.any() else None for row in marks.to_numpy()]
    return pd.DataFrame({"file_name": frame[frame.columns[0]], "label": named})


def _numbers(column: pd.Series) -> pd.Series:
    """Turn a column of whole numbers into numbers; an empty cell, with them, into none."""
    is_empty = column.isna() | (column == "")
    filled = column[~is_empty].astype(str)
    # A label "007" is a name: as a number it would lose its zeros.
    if len(filled) and filled.str.fullmatch(r"-?(0|[1-9]\d{0,9})").all():
        return pd.to_numeric(column.where(~is_empty), errors="coerce").astype("Int64")
    return column


def _read_json(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        rows = json.loads(text)
        if isinstance(rows, dict) and all(isinstance(value, str) for value in rows.values()):
            rows = [{"file_name": name, "label": label} for name, label in rows.items()]
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of {column: value}")
    return pd.DataFrame(rows)
