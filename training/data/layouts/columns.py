"""Find the columns with images and labels in any table, and bring a table to `image` and `label`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Image, Value

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
    if _is_text(kept.features["image"]):
        paths = [resolve(text) if text else None for text in kept["image"][:]]
        rows = [
            {"bytes": None, "path": path if path else str(text)}
            for path, text in zip(paths, kept["image"][:], strict=True)
        ]
        labels = {"label": kept["label"][:]}
        features = {"image": Image(decode=False), "label": kept.features["label"]}
        return Dataset.from_dict({"image": rows, **labels}, features=type(kept.features)(features))
    return kept.cast_column("image", Image(decode=False))


def image_column_of(dataset: Dataset, args: DataArguments, where: str, resolve: Resolve) -> str:
    """Choose the column with images: the key image_column, else the only one that can be it."""
    features, wanted = dataset.features, args.image_column
    able = [
        name
        for name, feature in features.items()
        if holds_images(feature) or (_is_text(feature) and _names_files(dataset, name, resolve))
    ]
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


def label_column_of(dataset: Dataset, args: DataArguments, where: str, image: str) -> str:
    """Choose the column with labels: the key label_column, else the likeliest name, else the only one."""
    wanted, rest = args.label_column, [n for n in dataset.column_names if n != image]
    if wanted in rest:
        return wanted
    if not args.is_default("label_column"):
        raise UserError(_no_column("label_column", wanted, where, dataset.column_names))
    able = [name for name in rest if _may_be_label(dataset.features[name])]
    classes = [name for name in able if isinstance(dataset.features[name], ClassLabel)]
    if len(classes) == 1:
        return classes[0]
    lower = {name.lower(): name for name in able}
    for name in LABEL_COLUMNS:
        if name in lower:
            return lower[name]
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


def resolver(folders: Iterable[Path], inside: Path | None = None) -> Resolve:
    """Make a function that finds the file which a cell names, in the first of `folders` that has it.

    Args:
        inside: files elsewhere are not found; it is given for what came out of an archive.
    """
    places = [folder.resolve() for folder in folders]

    def resolve(text: str) -> str | None:
        cell = Path(str(text).replace("\\", "/")).expanduser()
        for place in places:
            for extension in EXTENSIONS:
                path = place / f"{cell}{extension}"
                try:
                    if path.is_file() and (inside is None or inside in path.resolve().parents):
                        return str(path)
                except (OSError, ValueError):  # no name that a file can have
                    return None
        return None

    return resolve


def _names_files(dataset: Dataset, column: str, resolve: Resolve) -> bool:
    """Say whether most of the first cells name files."""
    cells = [cell for cell in dataset[:20][column] if cell]
    return bool(cells) and 2 * sum(resolve(cell) is not None for cell in cells) > len(cells)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _may_be_label(feature: Any) -> bool:
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and "binary" not in feature.dtype


def _split(name: str) -> bool:
    return name.lower() in SPLIT_COLUMNS


def _no_column(key: str, wanted: str, where: str, columns: list[str]) -> str:
    return f"no column {wanted} in {where}: it has {', '.join(columns)}; set {key}"
