"""Read tables with a path and a label in each row: CSV, TSV, JSON lines, and parquet with images in it."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from datasets import Dataset

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found, LeftOut, names, relative
from training.data.layouts.archives import unpacked_around
from training.data.layouts.columns import (
    FILE_COLUMNS,
    SPLIT_COLUMNS,
    Resolve,
    as_piece,
    holds_images,
    image_column_of,
    image_columns_of,
    label_column_of,
    named_label_column,
    resolver,
)
from training.data.layouts.parquet import open_parquet
from training.data.layouts.split_words import refuse_like_splits, split_of, split_of_file
from training.data.layouts.text_tables import TEXT_TABLES, is_text_table, read_text_table
from training.data.layouts.walk import Tree, kind_of
from training.data.splits import image_paths

TABLES = (*TEXT_TABLES, ".parquet")
_SHARD = re.compile(r"^(.+)-\d{5}-of-\d{5}$")  # the Hub's name of a file of a split

# Files that make one table, their rows, and what finds the files that their cells name.
Table = tuple[list[str], Dataset, Resolve]


def is_table(name: str) -> bool:
    """Say whether a file is a table by its name."""
    return PurePosixPath(name).suffix.lower() in TABLES


def read_metadata(
    tree: Tree, base: str, args: DataArguments, beside_labels: bool = False
) -> Found | None:
    """Read metadata.csv and the like; None where there is none, or it is not about images.

    Args:
        beside_labels: images lie in folders of labels; then a column has to say that it holds labels.

    Raises:
        UserError: as `read_tables`.
    """
    inside = [name for name in tree.others if name.startswith(base) and is_table(name)]
    files = [name for name in inside if PurePosixPath(name).stem.lower() == "metadata"]
    files = [name for name in files if not _is_album(tree.root / name)]
    if not files:
        return None
    by_split = _by_split(files, base)
    table = _first(tree, by_split)
    if not _is_about_images(table, args):
        return None
    if beside_labels and args.is_default("label_column"):
        image = image_column_of(table[1], args, names(table[0]), table[2])
        if named_label_column(table[1], args, image) is None:
            return None
    return read_shared_out(tree, by_split, args)


def read_tables(tree: Tree, base: str, args: DataArguments) -> Found | None:
    """Read the tables that say which image has which label; None where there is none that does.

    Args:
        base: folder in the tree, with "/" at its end, in which the tables are looked for, and in its
            folders of splits.

    Raises:
        UserError: a table is damaged, several may be meant, or a column cannot be chosen.
    """
    here = [name for name in tree.others if name.startswith(base) and is_table(name)]
    parquet = [name for name in here if name.lower().endswith(".parquet")]
    if parquet and not tree.images:
        return read_shared_out(tree, _by_split(parquet, base), args)
    near = [
        name for name in here if all(map(split_of, PurePosixPath(name[len(base) :]).parts[:-1]))
    ]
    by_split = _by_split(near, base)
    if not by_split or not _is_about_images(_first(tree, by_split), args):
        return None
    return read_shared_out(tree, by_split, args)


def read_files(files: list[Path], args: DataArguments) -> Found:
    """Read tables that a person named, one or several (a glob).

    Raises:
        UserError: as `read_tables`.
    """
    folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
    tree = Tree(
        folder.resolve(), others=[f.absolute().relative_to(folder).as_posix() for f in files]
    )
    odd = next((name for name in tree.others if not is_table(name)), None)
    if odd is not None:
        kind = f"a {kind_of(odd)} file" if PurePosixPath(odd).suffix else "a file without extension"
        raise UserError(
            f"dataset {folder / odd} is {kind}: give a folder, a table ({', '.join(TABLES)}), a .zip or a .tar"
        )
    return read_shared_out(tree, _by_split(tree.others, ""), args)


def read_shared_out(tree: Tree, by_split: dict[str, list[str]], args: DataArguments) -> Found:
    """Read tables of which it is known what split each is of.

    Raises:
        UserError: as `read_tables`.
    """
    splits, columns = _pieces(tree, by_split, args)
    used = {name for each in by_split.values() for name in each}
    loose = tree.images
    if tree.images:
        rows = {
            path for pieces in splits.values() for piece in pieces for path in image_paths(piece)
        }
        loose = [name for name in tree.images if tree.path(name) not in rows]
    return Found(
        layout=f"{names(sorted(used))}: images from column {columns[0]}, labels from column {columns[1]}",
        splits=splits,
        left_out=(
            *(LeftOut(name, kind_of(name), "in no row of the table") for name in loose),
            *tree.not_used(used),
        ),
        faults=tuple(tree.faults),
        root=tree.root,
    )


def refuse_other_labels(tree: Tree, base: str, found: Found, args: DataArguments) -> list[str]:
    """Refuse folders of labels beside a table that has other labels for the same images.

    A table with a column that says the same, in other words or numbers, is fine; so is one of prices.

    Returns:
        Notes about tables that cannot be read, a line each.

    Raises:
        UserError: it cannot be told which labels are meant.
    """
    folders = {
        relative(path, tree.root): label
        for pieces in found.splits.values()
        for piece in pieces
        for path, label in zip(image_paths(piece), piece["label"][:], strict=True)
    }
    notes = []
    for name in [n for n in tree.others if is_text_table(n) and "/" not in n[len(base) :]]:
        if not name.startswith(base):
            continue
        try:
            tables = list(_open(tree, [name], None))
        except UserError as error:
            notes.append(
                f"the folders say the labels, and a table beside them is not read: {error}"
            )
            continue
        for _, table, resolve in tables:
            able = image_columns_of(table, resolve)
            if able and named_label_column(table, args, able[0]) is not None:
                _refuse_contradiction(name, table, able[0], folders, tree, resolve)
    return notes


def _refuse_contradiction(
    name: str, table: Dataset, image: str, folders: dict[str, str], tree: Tree, resolve: Resolve
) -> None:
    if holds_images(table.features[image]):
        return
    paths = [_relative_or_none(cell, tree, resolve) for cell in table[image][:]]
    rows = [row for row, path in enumerate(paths) if path in folders]
    for column in table.column_names if rows else ():
        cells = table[column][:] if column != image else []
        pairs = {(folders[paths[row]], str(cells[row])) for row in rows if cells}
        if len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 0:
            return
    if rows:
        raise UserError(
            f"{name} has other labels than the folders that the images lie in: give the path of {name} to take "
            "its labels, or move it away to take those of the folders"
        )


def _relative_or_none(cell: object, tree: Tree, resolve: Resolve) -> str | None:
    try:
        found = resolve(cell) if cell is not None else None
    except UserError:  # of that name there are two: nothing is said about either
        return None
    return relative(found, tree.root) if found else None


def _is_album(path: Path) -> bool:
    """Say whether a metadata.json is about something else: Google Photos puts one into each album."""
    if path.suffix.lower() != ".json":
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return False  # whoever reads it says what is wrong with it
    return isinstance(content, dict)


def _is_about_images(table: Table, args: DataArguments) -> bool:
    """Say whether a table names images; it may be one of prices beside folders that say it all."""
    _, rows, resolve = table
    # A column of file names is meant, found or not: then it is said that none is found.
    named = any(name.lower() in FILE_COLUMNS for name in rows.column_names)
    return named or not args.is_default("image_column") or bool(image_columns_of(rows, resolve))


def _first(tree: Tree, by_split: dict[str, list[str]]) -> Table:
    split = "train" if "train" in by_split else next(iter(by_split))
    return next(_open(tree, by_split[split], split))


def _by_split(files: Iterable[str], base: str) -> dict[str, list[str]]:
    """Share tables out among splits, by their own name or by that of the folder they lie in."""
    by_split: dict[str, list[str]] = defaultdict(list)
    plain = []
    for name in files:
        split = _split_of_table(name[len(base) :])
        by_split[split].append(name) if split else plain.append(name)
    shards = {name: _SHARD.match(PurePosixPath(name).stem) for name in plain}
    titles = {match[1] for match in shards.values() if match}
    if by_split or len(titles) > 1:  # splits of other names: train_split chooses one
        for name in [name for name in plain if shards[name]]:
            by_split[shards[name][1]].append(name)
            plain.remove(name)
    text = [name for name in plain if is_text_table(name)]
    if by_split and plain and not titles and "train" not in by_split:
        others = names(sorted(name for each in by_split.values() for name in each))
        raise UserError(
            f"{names(plain)} may be what is trained on, beside {others}: rename it to train"
            f"{PurePosixPath(plain[0]).suffix}, or give its path"
        )
    if not by_split and plain:
        refuse_like_splits(PurePosixPath(name).stem for name in plain)
        if len(text) > 1 and any(PurePosixPath(name).stem.lower() != "metadata" for name in text):
            raise UserError(
                f"several tables may hold the labels: give the path of one of {names(text, 5)}"
            )
        by_split["train"] = plain
    return dict(by_split)


def refuse_split_column(table: Dataset, where: str) -> None:
    """Refuse rows of several splits in what is one split.

    Raises:
        UserError: a column names several.
    """
    names_ = [name for name in table.column_names if name.lower() in SPLIT_COLUMNS]
    for name in names_:
        words = set(table[name][:])
        found = {split_of(word) for word in words if isinstance(word, str)} - {None}
        if len(found) > 1:
            raise UserError(
                f"column {name} of {where} names the splits {', '.join(sorted(found))}: write a split for each "
                "(DatasetDict, or a file a split)"
            )


def _split_of_table(name: str) -> str | None:
    path = PurePosixPath(name)
    folders = (split_of(part) for part in path.parts[:-1])
    return split_of_file(path.stem) or next((split for split in folders if split), None)


def _pieces(
    tree: Tree, by_split: dict[str, list[str]], args: DataArguments
) -> tuple[dict[str, list[Dataset]], tuple[str, str]]:
    """Read the tables of each split; the columns of the first one, train where there is one, hold for all."""
    splits: dict[str, list[Dataset]] = defaultdict(list)
    columns = None
    for split in sorted(by_split, key=lambda each: each != "train"):
        for names_, table, resolve in _open(tree, by_split[split], split):
            where = names(names_)
            if columns is None:
                image = image_column_of(table, args, where, resolve)
                columns = image, label_column_of(table, args, where, image)
            known = replace(args, image_column=columns[0], label_column=columns[1])
            if columns[1] not in table.column_names:
                table = table.add_column(columns[1], [None] * len(table))
            piece = as_piece(table, known, where, resolve)
            for each, part in _by_split_column(table, piece, split, where).items():
                splits[each].append(part)
    return dict(splits), columns


def _open(tree: Tree, files: list[str], split: str | None) -> Iterator[Table]:
    """Open tables: parquet files of one schema together, each text on its own."""
    parquet = [name for name in files if not is_text_table(name)]
    for each, table in open_parquet(tree.root, parquet) if parquet else ():
        yield each, table, _resolver(tree, each[0], split)
    for name in files:
        if is_text_table(name):
            resolve = _resolver(tree, name, split)
            yield [name], read_text_table(tree.root / name, resolve), resolve


def _resolver(tree: Tree, name: str, split: str | None) -> Resolve:
    """Make what finds the files of a table: relative to it, to the data set, or in a folder beside it."""
    folder, stem = (tree.root / name).parent, PurePosixPath(name).stem.lower()
    below = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())
    first = [path for path in below if path.name.lower() in (stem, "images", "photos")]
    if _split_of_table(name):  # else the rows may be of several
        first += [path for path in below if split_of(path.name) == split]
    rest = [path for path in below if path not in first]
    return resolver([folder, tree.root, *first], unpacked_around(tree.root), rest)


def _by_split_column(table: Dataset, piece: Dataset, split: str, where: str) -> dict[str, Dataset]:
    """Divide a piece by the table's column `split`, if it has one that names splits.

    Raises:
        UserError: some of its cells name a split and some do not.
    """
    lower = {name.lower(): name for name in table.column_names}
    for name in SPLIT_COLUMNS:
        if name not in lower or split != "train":
            continue
        words = table[lower[name]][:]
        known = {word: split_of(word) if isinstance(word, str) else None for word in set(words)}
        if not any(known.values()):
            continue
        odd = sorted(repr(word) for word, each in known.items() if each is None)
        if odd:
            raise UserError(
                f"column {lower[name]} of {where} holds {names(odd)} beside the names of splits: write train, "
                "validation or test into each row"
            )
        rows = defaultdict(list)
        for row, word in enumerate(words):
            rows[known[word]].append(row)
        return {each: piece.select(positions) for each, positions in rows.items()}
    return {split: piece}
