"""What dishes are called in several languages, by label: from the project's table, or a file of the user's.

Both are CSV with a header `label,<language>,...`; a column `note` is for translators. One more language
of the table is one more column, and nothing else. The standard library is all that is imported.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from training.common.errors import UserError
from training.common.paths import did_you_mean, local_path

# Language -> label -> name.
Names = dict[str, dict[str, str]]

# Every label of Food-101. The Korean names have not been read by a native speaker yet.
TABLE = Path(__file__).with_name("dish_names.csv")

# Where the names of a language come from, as `names_from` of the config's block says it.
OF_TABLE, OF_USER = "vit-food101", "display_names"

WANTED = "a CSV file in UTF-8 whose first line is label and languages, as label,en,ko"


def names_of(label_names: Sequence[str], display_names: str | None = None) -> dict[str, Any]:
    """Find the names of labels, for the config's block: `names` and `names_from`.

    A file's languages are taken from the file, the others from the table, where a label is found
    whatever its capitals, and with spaces or hyphens for its underscores. A label that the table does
    not have has no name there; a language in which none has one is left out.

    Args:
        label_names: of the network.
        display_names: path of the user's file; None: the table alone.

    Returns:
        {"names": language -> label -> name, "names_from": language -> source}; both None without any.

    Raises:
        UserError: the file cannot be used, or its labels are not `label_names`.
    """
    given = {} if display_names is None else _fitting(display_names, label_names)
    found: Names = {}
    for language, names in read_names(TABLE).items():
        known = {_plain(label): name for label, name in names.items()}
        there = {label: known[_plain(label)] for label in label_names if _plain(label) in known}
        if there:
            found[language] = there
    found |= given
    source = {language: OF_USER if language in given else OF_TABLE for language in found}
    return {"names": found or None, "names_from": source or None}


def fallback_line(names: Names, num_labels: int) -> str | None:
    """Say how many of all labels have no name, language by language; None where each has one."""
    cure = "they are shown as they read; give names of your own with display_names"
    if not names:
        return f"names: none of {num_labels} labels is in the table of dishes: {cure}"
    lacking = {language: num_labels - len(each) for language, each in names.items()}
    said = [
        f"{count} of {num_labels} in {language}" for language, count in lacking.items() if count
    ]
    return f"names: labels without one: {', '.join(said)}: {cure}" if said else None


def _plain(label: str) -> str:
    """Make one of what is the same label: "Apple Pie", "apple-pie" and "apple_pie"."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", label)).strip().casefold()


def _fitting(path: str, label_names: Sequence[str]) -> Names:
    """Read a user's file, and refuse it where it does not have each of the labels, and only these."""
    names = read_names(path)
    there, labels = next(iter(names.values())), set(label_names)  # each language has every row
    unknown = [label for label in there if label not in labels]
    if unknown:
        close = difflib.get_close_matches(unknown[0], label_names, n=1)
        hint = f"did you mean {close[0]}?" if close else "take the row out"
        raise UserError(
            f"display_names {path} names {_some(unknown)}, and no label is called so: {hint}"
        )
    missing = [label for label in label_names if label not in there]
    if missing:
        raise UserError(
            f"display_names {path} has no row for {len(missing)} of {len(label_names)} labels "
            f"({_some(missing)}): add one for each"
        )
    return names


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return ", ".join(labels[:3]) + more


# ---- the file -----------------------------------------------------------------------------------


def read_names(path: str | os.PathLike) -> Names:
    """Read a table of names: CSV, with commas or Excel's semicolons, with or without a BOM.

    Returns:
        Language -> label -> name, in the order of the file, in NFC.

    Raises:
        UserError: it cannot be read; a column is no language; a row lacks a name or has too many cells; a
            label or a name of one language is there twice. The line says where, and the cure.
    """
    what = f"display_names {path}"
    try:
        text = local_path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{what} cannot be read ({error.strerror}): give {WANTED}{did_you_mean(path)}"
        ) from error
    except ValueError as error:  # also of a path with a zero byte
        raise UserError(f"{what} is not UTF-8: save it as CSV UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, [_clean(cell) for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{what}, line {reader.line_num}: {error}: mend its quotes") from error
    header, *rest = [(line, row) for line, row in rows if any(row)] or [(1, [])]
    languages = _languages(header[1], what)
    if not rest:
        raise UserError(f"{what} has no row below its header: add one for each label")
    names: Names = {language: {} for language in languages.values()}
    owners: dict[tuple[str, str], str] = {}  # (language, name) -> label
    for line, row in rest:
        _check_row(row, header[1], names, f"{what}, line {line}")
        for i, language in languages.items():
            name = row[i] if i < len(row) else ""
            _check_name(name, row[0], language, owners, f"{what}, line {line}")
            names[language][row[0]] = name
            owners[language, name] = row[0]
    return names


def _clean(cell: str) -> str:
    return unicodedata.normalize("NFC", cell.strip())


def _languages(header: list[str], what: str) -> dict[int, str]:
    """Map columns to their language.

    Raises:
        UserError: the header is not label and languages, and perhaps a note.
    """
    if not header or header[0].lower() != "label":
        shown = ",".join(header)[:60]
        raise UserError(f"{what} begins with {shown!r}: give {WANTED}")
    # A column without a header must be empty: a spreadsheet may leave some at the right.
    found = {i: name for i, name in enumerate(header) if i and name and name.lower() != "note"}
    for name in found.values():
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", name):
            raise UserError(
                f"{what} has the column {name!r}: give a language by its code, as en, ko or pt-BR"
            )
    if twice := _twice(found.values()):
        raise UserError(f"{what} has the column {twice} twice: take one out")
    if not found:
        raise UserError(f"{what} has no column with names: give {WANTED}")
    return found


def _check_row(row: list[str], header: list[str], names: Names, where: str) -> None:
    """Refuse a row without a label of its own, or with a cell that is below no header."""
    if any(cell for i, cell in enumerate(row) if i >= len(header) or not header[i]):
        raise UserError(
            f"{where} has more cells than the header: quote a name that holds its separator"
        )
    if not row[0]:
        raise UserError(f"{where} has no label: give one, or take the row out")
    if any(row[0] in each for each in names.values()):
        raise UserError(f"{where} has the label {row[0]} again: take one of the two rows out")


def _check_name(
    name: str, label: str, language: str, owners: dict[tuple[str, str], str], where: str
) -> None:
    """Refuse a name that is empty, holds what no name has, or is another label's."""
    if not name:
        raise UserError(f"{where} ({label}) has no name in {language}: give one")
    if any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in name):
        raise UserError(f"{where}: {name!r} holds a line break or control character: mend it")
    if other := owners.get((language, name)):
        raise UserError(
            f"{where}: {other} and {label} are both {name} in {language}: give each its own name"
        )


def _twice(values: Iterable[str]) -> str | None:
    values = list(values)
    return next((each for each in values if values.count(each) > 1), None)
