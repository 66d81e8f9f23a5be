"""Read tables with a path and a label in each row: CSV, TSV, JSON lines, and parquet with images in it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd
from datasets import Dataset

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found, LeftOut, names
from training.data.layouts.columns import (
    SPLIT_COLUMNS,
    Resolve,
    as_piece,
    image_column_of,
    label_column_of,
    resolver,
)
from training.data.layouts.parquet import open_parquet
from training.data.layouts.split_words import split_of, split_of_file
from training.data.layouts.walk import Tree, kind_of
from training.data.splits import image_paths

TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
TABLES = (*TEXT_TABLES, ".parquet")
DELIMITERS = ",;\t|"


def is_table(name: str) -> bool:
    """Say whether a file is a table by its name."""
    return PurePosixPath(name).suffix.lower() in TABLES


def read_tables(tree: Tree, base: str, args: DataArguments) -> Found | None:
    """Read the tables that say which image has which label; None where there is none that does.

    Args:
        base: folder in the tree, with "/" at its end, in which the tables are looked for.

    Raises:
        UserError: a table is damaged, several may be meant, or a column cannot be chosen.
    """
    here = [name for name in tree.others if name.startswith(base) and is_table(name)]
    metadata = [name for name in here if PurePosixPath(name).stem.lower() == "metadata"]
    top = [name for name in here if "/" not in name[len(base) :]]
    if metadata and (found := _read(tree, base, metadata, args, required=False)):
        return found
    parquet = [name for name in here if name.lower().endswith(".parquet")]
    if parquet and not tree.images:
        return _read(tree, base, parquet, args)
    return _read(tree, base, top, args, required=False)


def read_files(files: list[Path], args: DataArguments) -> Found:
    """Read tables that a person named, one or several (a glob).

    Raises:
        UserError: as `read_tables`.
    """
    folder = files[0].parent
    tree = Tree(folder.resolve(), others=[file.relative_to(folder).as_posix() for file in files])
    if any(not is_table(name) for name in tree.others):
        odd = next(name for name in tree.others if not is_table(name))
        raise UserError(
            f"dataset {folder / odd} is a {kind_of(odd)} file: give a folder, "
            f"a table ({', '.join(TABLES)}), a .zip or a .tar"
        )
    return _read(tree, "", tree.others, args)


def _read(
    tree: Tree, base: str, files: list[str], args: DataArguments, required: bool = True
) -> Found | None:
    by_split = _by_split(files, base)
    if not by_split:
        return None
    if not required and not _is_about_images(tree, by_split, args):
        return None
    splits, columns = _pieces(tree, by_split, args)
    used = {name for each in by_split.values() for name in each}
    loose = tree.images
    if tree.images:
        rows = {
            path for pieces in splits.values() for piece in pieces for path in image_paths(piece)
        }
        loose = [name for name in tree.images if tree.path(name) not in rows]
    table = names(sorted(used))
    return Found(
        layout=f"{table}: images from column {columns[0]}, labels from column {columns[1]}",
        splits=splits,
        left_out=(
            *(LeftOut(name, kind_of(name), "in no row of the table") for name in loose),
            *tree.not_used(used),
        ),
        faults=tuple(tree.faults),
        root=tree.root,
    )


def _is_about_images(tree: Tree, by_split: dict[str, list[str]], args: DataArguments) -> bool:
    """Say whether the first table names images; it may be one of prices beside folders that say it all."""
    split = "train" if "train" in by_split else next(iter(by_split))
    files, table = _open(tree, by_split[split])[0]
    folder = (tree.root / files[0]).parent
    resolve = resolver(_places(folder, tree.root, PurePosixPath(files[0]).stem, split))
    try:
        image_column_of(table, args, names(files), resolve)
    except UserError:
        return False
    return True


def _by_split(files: Iterable[str], base: str) -> dict[str, list[str]]:
    """Share tables out among splits, by their own name or by that of the folder they lie in."""
    by_split: dict[str, list[str]] = defaultdict(list)
    plain = []
    for name in files:
        path = PurePosixPath(name[len(base) :])
        folders = [split_of(part) for part in path.parts[:-1]]
        split = split_of_file(path.stem) or next((s for s in folders if s), None)
        by_split[split].append(name) if split else plain.append(name)
    if not by_split and plain:
        text = [name for name in plain if not name.lower().endswith(".parquet")]
        if len(text) > 1:
            raise UserError(
                f"several tables may hold the labels: give the path of one of {names(text, 5)}"
            )
        by_split["train"] = plain
    return dict(by_split)


def _pieces(
    tree: Tree, by_split: dict[str, list[str]], args: DataArguments
) -> tuple[dict[str, list[Dataset]], tuple[str, str]]:
    """Read the tables of each split; the columns of the first one, train where there is one, hold for all."""
    splits: dict[str, list[Dataset]] = defaultdict(list)
    columns = None
    for split in sorted(by_split, key=lambda each: each != "train"):
        for names_, table in _open(tree, by_split[split]):
            where, folder = names(names_), (tree.root / names_[0]).parent
            resolve = resolver(_places(folder, tree.root, PurePosixPath(names_[0]).stem, split))
            if columns is None:
                piece, columns = _first_piece(table, args, where, resolve)
            else:
                known = replace(args, image_column=columns[0], label_column=columns[1])
                if columns[1] not in table.column_names:
                    table = table.add_column(columns[1], [None] * len(table))
                piece = as_piece(table, known, where, resolve)
            for each, part in _by_split_column(table, piece, split).items():
                splits[each].append(part)
    return dict(splits), columns


def _first_piece(
    table: Dataset, args: DataArguments, where: str, resolve: Resolve
) -> tuple[Dataset, tuple[str, str]]:
    image = image_column_of(table, args, where, resolve)
    label = label_column_of(table, args, where, image)
    return as_piece(table, replace(args, image_column=image, label_column=label), where, resolve), (
        image,
        label,
    )


def _open(tree: Tree, files: list[str]) -> list[tuple[list[str], Dataset]]:
    """Open tables: parquet files of one schema together, each text on its own."""
    parquet = [name for name in files if name.lower().endswith(".parquet")]
    text = [([name], read_text_table(tree.root / name)) for name in files if name not in parquet]
    return [*open_parquet(tree.root, parquet), *text] if parquet else text


def _places(folder: Path, root: Path, stem: str, split: str) -> list[Path]:
    """List the folders that a table's paths may be relative to, the likeliest first."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    first = [path for path in below if path.name.lower() in (stem.lower(), "images", "photos")]
    first += [path for path in below if split_of(path.name) == split]
    return [folder, root, *first, *below]


def _by_split_column(table: Dataset, piece: Dataset, split: str) -> dict[str, Dataset]:
    """Divide a piece by the table's column `split`, if it has one that names splits and nothing else."""
    lower = {name.lower(): name for name in table.column_names}
    for name in SPLIT_COLUMNS:
        if name not in lower or split != "train":
            continue
        words = table[lower[name]][:]
        if all(isinstance(word, str) and split_of(word) for word in words):
            rows = defaultdict(list)
            for row, word in enumerate(words):
                rows[split_of(word)].append(row)
            return {each: piece.select(positions) for each, positions in rows.items()}
    return {split: piece}


# ---- text ---------------------------------------------------------------------------------------


def read_text_table(path: Path) -> Dataset:
    """Read a CSV, TSV, JSON or JSON-lines file; cells of the first two are text, numbers if all are.

    A first row that is no header (its first cell is a file that is there) counts as a row.

    Raises:
        UserError: it is not UTF-8, or not what its name says, or empty.
    """
    try:
        frame = _read_csv(path) if path.suffix.lower() in (".csv", ".tsv") else _read_json(path)
        if not frame.empty:
            return Dataset.from_pandas(frame, preserve_index=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (ValueError, TypeError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as a table: {reason}") from error
    raise UserError(f"{path} has no row")


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
    delimiter = max(DELIMITERS, key=head.count)
    if path.suffix.lower() == ".tsv":
        delimiter = "\t"
    first = head.strip().split(delimiter)[0].strip('"')
    headless = resolver([path.parent])(first) is not None if first else False
    frame = pd.read_csv(
        path,
        sep=delimiter,
        dtype=str,
        keep_default_na=False,  # a dish may be called "nan" or "None"
        encoding="utf-8-sig",
        header=None if headless else 0,
        skipinitialspace=True,
    )
    if headless:
        frame.columns = ["file_name", "label", *map(str, range(2, frame.shape[1]))][
            : frame.shape[1]
        ]
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame.apply(_numbers)


def _numbers(column: pd.Series) -> pd.Series:
    """Turn a column of whole numbers into numbers; an empty cell, with them, into none."""
    filled = column[column != ""]
    # A label "007" is a name: as a number it would lose its zeros.
    if len(filled) and filled.str.fullmatch(r"-?(0|[1-9]\d{0,9})").all():
        return pd.to_numeric(column.where(column != ""), errors="coerce").astype("Int64")
    return column


def _read_json(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        rows = json.loads(text)
        if isinstance(rows, dict) and all(isinstance(value, str) for value in rows.values()):
            rows = [{"file_name": name, "label": label} for name, label in rows.items()]
    else:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of {column: value}")
    return pd.DataFrame(rows)
