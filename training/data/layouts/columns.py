"""Find the columns with images and labels in any table, and bring a table to `image` and `label`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from training.common.errors import UserError
from training.data.arguments import DataArguments

# Names that columns with a label have, the likeliest first; in any case.
LABEL_COLUMNS = (
    "label labels class class_name classname class_label category category_name target cls dish food "
    "food_name label_name species y txt"
).split()
PATH_COLUMNS = (
    "file_name filename file path filepath file_path image_path img_path image img image_file image_name "
    "image_id img_id photo picture id"
).split()
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "usage")
EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp", ".JPG")  # a competition's ids leave them out

# Columns that hold nothing but the names of files, found or not.
FILE_COLUMNS = set(PATH_COLUMNS) - set("file image img image_id img_id photo picture id".split())

# From what a cell holds, and the folder of its table, to a file's path; None: no such file.
Resolve = Callable[[str], str | None]


def as_piece(dataset: Dataset, args: DataArguments, where: str, resolve: Resolve) -> Dataset:
    """Bring a data set to the columns `image`, not decoded, and `label`, as it is.

    Args:
        where: names the table in an error.
        resolve: finds the file that a cell with a path names.

    Raises:
        UserError: no column with images, or with labels, or several that may be it.
    """
    image = image_column_of(dataset, args, where, resolve)
    label = label_column_of(dataset, args, where, image)
    kept = dataset.select_columns([image, label])
    renamed = {old: new for old, new in ((image, "image"), (label, "label")) if old != new}
    if renamed:
        kept = kept.rename_columns(renamed)
    if not holds_images(kept.features["image"]):
        return _of_files(kept["image"][:], kept["label"][:], kept.features["label"], resolve)
    return _with_files(kept.cast_column("image", Image(decode=False)), resolve)


def _of_files(cells: list, labels: list, feature: Any, resolve: Resolve) -> Dataset:
    """Make rows of files; one that is not found keeps its name, relative, which the check finds gone."""
    cells = ["" if cell is None else str(cell) for cell in cells]
    rows = [{"bytes": None, "path": resolve(cell) or cell.lstrip("/")} for cell in cells]
    features = Features({"image": Image(decode=False), "label": feature})
    return Dataset.from_dict({"image": rows, "label": labels}, features=features)


def _with_files(dataset: Dataset, resolve: Resolve) -> Dataset:
    """Find the files of rows that have a path and no bytes; no image is read."""
    without, row = [], 0
    for table in dataset.select_columns("image").with_format("arrow").iter(batch_size=1000):
        column = table["image"]
        missing = pc.and_(
            pc.is_null(pc.struct_field(column, "bytes")),
            pc.is_valid(pc.struct_field(column, "path")),
        )
        without += [row + i for i, each in enumerate(missing.to_pylist()) if each]
        row += len(table)
    if not without:
        return dataset
    named = dataset.select(without)
    cells = [image["path"] for image in named["image"]]
    found = _of_files(cells, named["label"][:], dataset.features["label"], resolve)
    if len(without) == len(dataset):
        return found
    rest = sorted(set(range(len(dataset))) - set(without))
    place = {row: i for i, row in enumerate([*rest, *without])}
    whole = concatenate_datasets([dataset.select(rest), found])
    return whole.select([place[row] for row in range(len(dataset))])


def image_column_of(dataset: Dataset, args: DataArguments, where: str, resolve: Resolve) -> str:
    """Choose the column with images: the key image_column, else the only one that can be it."""
    features, wanted = dataset.features, args.image_column
    able = image_columns_of(dataset, resolve)
    if wanted in features:
        if wanted in able or _is_text(features[wanted]) and wanted.lower() in PATH_COLUMNS:
            return wanted
        if args.is_default("image_column") and able:
            return only(able, where, "images", "image_column")
        raise UserError(
            f"column {wanted} of {where} holds no images: set image_column to one of "
            f"{', '.join(able or dataset.column_names)}"
        )
    if not args.is_default("image_column"):
        raise UserError(_no_column("image_column", wanted, where, dataset.column_names))
    if not able:
        raise UserError(
            f"no column of {where} holds images or paths of files that are there: it has "
            f"{', '.join(dataset.column_names)}; set image_column"
        )
    return only(able, where, "images", "image_column")


def image_columns_of(dataset: Dataset, resolve: Resolve) -> list[str]:
    """List the columns with encoded images, or with names of files that are there.

    An id may be a number: a competition's 17 is the file 17.jpg.
    """
    return [
        name
        for name, feature in dataset.features.items()
        if holds_images(feature)
        or (
            (_is_text(feature) or (_is_number(feature) and name.lower() in PATH_COLUMNS))
            and _names_files(dataset, name, resolve)
        )
    ]


def named_label_column(dataset: Dataset, args: DataArguments, image: str) -> str | None:
    """Choose the column whose name or type says that it holds labels; None where none does."""
    able = [name for name in dataset.column_names if name != image]
    if args.label_column in able:
        return args.label_column
    able = [name for name in able if _may_be_label(dataset.features[name])]
    classes = [name for name in able if isinstance(dataset.features[name], ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    lower = {name.lower(): name for name in able}
    return next((lower[name] for name in LABEL_COLUMNS if name in lower), None)


def label_column_of(dataset: Dataset, args: DataArguments, where: str, image: str) -> str:
    """Choose the column with labels: the key label_column, else the likeliest name, else the only one."""
    wanted, rest = args.label_column, [n for n in dataset.column_names if n != image]
    if wanted not in rest and not args.is_default("label_column"):
        raise UserError(_no_column("label_column", wanted, where, dataset.column_names))
    if named := named_label_column(dataset, args, image):
        return named
    able = [name for name in rest if _may_be_label(dataset.features[name])]
    able = [n for n in able if n and not n.lower().startswith(("unnamed", "__")) and not _split(n)]
    if not able:
        raise UserError(_no_column("label_column", wanted, where, dataset.column_names))
    texts = [name for name in able if _is_text(dataset.features[name])]
    able = texts if len(texts) == 1 else able  # beside widths and prices
    return only(able, where, "labels", "label_column")


def holds_images(feature: Any) -> bool:
    """Say whether a column of this type may hold encoded images: `Image`, bytes, or {"bytes", ...}."""
    if isinstance(feature, dict):
        return "bytes" in feature
    binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    return isinstance(feature, Image) or binary


def only(names: Iterable[str], where: str, what: str, key: str) -> str:
    """Return the one name.

    Raises:
        UserError: there are several; it names the key that chooses.
    """
    each = list(names)
    if len(each) > 1:
        raise UserError(
            f"{where} has several columns that may hold {what}: set {key} to one of {', '.join(each)}"
        )
    return each[0]


def resolver(
    folders: Iterable[Path], inside: Path | None = None, guesses: Iterable[Path] = ()
) -> Resolve:
    """Make a function that finds the file which a cell names, in the first of `folders` that has it.

    Args:
        inside: files elsewhere are not found; it is given for what came out of an archive.
        guesses: folders that are asked last; a name that is in two of them is a UserError.
    """
    places = [os.path.abspath(folder) for folder in folders]
    guessed = _Guesses([os.path.abspath(folder) for folder in guesses])

    def resolve(text: str) -> str | None:
        cell = os.path.expanduser(str(text).strip().replace("\\", "/"))
        for place in places:
            if found := _file(place, cell, inside):
                return found
        hits = {
            os.path.realpath(found): (place, found)
            for place in guessed.having(cell)
            if (found := _file(place, cell, inside))
        }
        if len(hits) > 1:
            both = " and ".join(f"{Path(place).name}/" for place, _ in list(hits.values())[:2])
            raise UserError(f"{cell} lies in {both}: write the folder into the table")
        return next((found for _, found in hits.values()), None)

    return resolve


class _Guesses:
    """Folders, and what lies in each: asked in one look, where there are a label's for each of thousands."""

    def __init__(self, places: list[str]) -> None:
        self.places = places
        self.names: dict[str, list[str]] | None = None

    def having(self, cell: str) -> list[str]:
        if not cell or cell.startswith(("/", "..")):
            return []
        if self.names is None:
            self.names = defaultdict(list)
            for place in self.places:
                for name in os.listdir(place):
                    self.names[name].append(place)
        first, *rest = os.path.normpath(cell).split("/")
        endings = ("",) if rest else EXTENSIONS
        found = [place for ending in endings for place in self.names.get(first + ending, ())]
        return list(dict.fromkeys(found))


def _file(place: str, cell: str, inside: Path | None) -> str | None:
    """Find a file by its name, or by its name without the extension."""
    for extension in EXTENSIONS if cell else ():
        path = os.path.normpath(os.path.join(place, cell + extension))
        if os.path.isfile(path) and (inside is None or inside in Path(path).resolve().parents):
            return path
    return None


def _names_files(dataset: Dataset, column: str, resolve: Resolve) -> bool:
    """Say whether most of the first cells name files."""
    cells = [cell for cell in dataset.select_columns(column)[:20][column] if cell is not None]
    return bool(cells) and 2 * sum(_is_found(cell, resolve) for cell in cells) > len(cells)


def _is_found(cell: Any, resolve: Resolve) -> bool:
    try:
        return resolve(cell) is not None
    except UserError:  # found twice: it names files, and whoever wants them hears of it
        return True


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _is_number(feature: Any) -> bool:
    return isinstance(feature, Value) and "int" in feature.dtype


def _may_be_label(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and "binary" not in feature.dtype


def _split(name: str) -> bool:
    return name.lower() in SPLIT_COLUMNS


def _no_column(key: str, wanted: str, where: str, columns: list[str]) -> str:
    return f"no column {wanted} in {where}: it has {', '.join(columns)}; set {key}"
