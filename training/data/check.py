"""Say what would be trained on: what `food101 check` prints."""

from __future__ import annotations

import io
import os
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from inference.food_images import FORMATS, decode_image
from training.data.arguments import WHICH_IMAGES, DataArguments
from training.data.found import SHOWN, count_kinds, names, plain
from training.data.loading import load_splits
from training.data.splits import Inventory, Split, Splits, image_source

ROWS = 10  # labels of a table that are printed, from the smallest

# From so many training photographs a label on, and what to train then: docs/recipes.md says why.
RECIPES = (
    (500, "vit_base_food101"),
    (8, "small_data"),
    (0, "linear_probe"),
)

# Held-out images that `training.evaluation` needs: for a temperature, and for "not sure" at 95 %.
TO_CALIBRATE, TO_BE_SURE = 100, 59


@dataclass(frozen=True)
class Pictures:
    """What the headers of a split's images say."""

    formats: Counter[str]
    modes: Counter[str]
    sides: list[int] = field(repr=False)  # the shorter side of each, in pixels
    megabytes: float


@dataclass(frozen=True)
class Checked:
    """A data set as training would see it."""

    splits: Splits
    pictures: Pictures
    copies: dict[str, int]  # "within train": images that an earlier one has the bytes of
    command: str  # what to type to train


def check(args: DataArguments, where: str) -> Checked:
    """Load a data set as training does, leaving out what training would stop at.

    Args:
        args: keys about data; undecodable_images must be skip.
        where: the data set as the person wrote it, for the command.

    Raises:
        UserError: there is nothing that could be trained on.
    """
    splits = load_splits(args, quiet=True)
    parts = {"train": splits.originals, "selection": splits.selection, "test": splits.test}
    options = " --undecodable_images skip" if splits.inventory.unusable else ""
    for key in WHICH_IMAGES:
        if not args.is_default(key):
            value = getattr(args, key)
            words = value if isinstance(value, list) else [str(value)]
            options += f" --{key} {shlex.join(words)}"
    recipe = recipe_for(min(count_labels(splits.originals).values()))
    return Checked(
        splits,
        look_at_headers(parts.values()),
        count_copies(parts),
        f"food101 train {recipe} --dataset {where}{options}",
    )


def recipe_for(photographs: int) -> str:
    """Choose a recipe by the training photographs of the smallest label."""
    return next(name for least, name in RECIPES if photographs >= least)


def count_labels(split: Split) -> dict[str, int]:
    """Count the images of each label, the fewest first."""
    counts = Counter(split.dataset["label"][:])
    each = [(name, counts[i]) for i, name in enumerate(split.label_names)]
    return dict(sorted(each, key=lambda item: item[1]))


def count_copies(parts: dict[str, Split]) -> dict[str, int]:
    """Count images whose bytes an earlier one has: within each part, and in an earlier part."""
    copies, seen = {}, {}
    for name, part in parts.items():
        different = set(part.content)
        copies[f"within {name}"] = len(part) - len(different)
        for other, contents in seen.items():
            copies[f"{name} that are in {other} too"] = sum(sha in contents for sha in part.content)
        seen[name] = different
    return {key: count for key, count in copies.items() if count}


def look_at_headers(parts: Iterable[Split]) -> Pictures:
    """Read the header of every image: format, mode and size; nothing is decoded."""
    formats, modes, sides, size = Counter(), Counter(), [], 0
    for part in parts:
        for batch in part.dataset.select_columns("image").iter(batch_size=64):
            for source in map(image_source, batch["image"]):
                embedded = isinstance(source, bytes)
                size += len(source) if embedded else os.path.getsize(source)
                kind, mode, side = _header(source)
                formats[kind] += 1
                modes[mode] += 1
                sides.append(side)
    return Pictures(formats, modes, sides, size / 1e6)


def _header(source: bytes | str) -> tuple[str, str, int]:
    """Read format, mode and the shorter side in pixels of an image that can be decoded."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as opened:
            return opened.format, opened.mode, min(opened.size)
    except UnidentifiedImageError:  # not Pillow's to read, and decoded all the same: by pi-heif
        return "HEIC", "RGB", min(decode_image(source).shape[:2])


def render(checked: Checked) -> str:
    """Write the report, for a terminal."""
    splits = checked.splits
    inventory = splits.inventory
    lines = [f"layout     {inventory.layout}", *_splits_lines(splits)]
    for split, rows in inventory.unused.items():
        lines.append(f"not used   split {split}, {rows:,} rows")
    lines += _label_lines(splits)
    lines += _picture_lines(checked.pictures)
    lines += [f"equal      {count:,} {what}" for what, count in checked.copies.items()]
    lines += _left_out_lines(inventory)
    lines += _advice(splits)
    return "\n".join([*lines, "", "to train:", f"  {checked.command}"])


def _splits_lines(splits: Splits) -> list[str]:
    selection = (
        f"split {splits.selection.name}"
        if splits.selection_fraction is None
        else f"{100 * splits.selection_fraction:g} % of {splits.train_split}"
    )
    made_by = splits.test.cut
    test = (
        f"split {splits.test.name}"
        if made_by is None
        else f"{100 * made_by.fraction:g} % of {made_by.of}, kept back: there is no test split"
    )
    return [
        f"train      {len(splits.train):7,} images  split {splits.train_split}",
        f"selection  {len(splits.selection):7,} images  {selection}",
        f"test       {len(splits.test):7,} images  {test}",
    ]


def _label_lines(splits: Splits) -> list[str]:
    counts = count_labels(splits.originals)
    tests, chosen = count_labels(splits.test), count_labels(splits.selection)
    width = max(len(name) for name in list(counts)[:ROWS])
    lines = [f"labels     {len(counts):,}, the smallest first (train, selection, test)"]
    lines += [
        f"  {name:{width}} {count:6,} {chosen[name]:6,} {tests[name]:6,}"
        for name, count in list(counts.items())[:ROWS]
    ]
    if len(counts) > ROWS:
        lines.append(
            f"  and {len(counts) - ROWS:,} more, up to {max(counts.values()):,} to train on"
        )
    return lines


def _picture_lines(pictures: Pictures) -> list[str]:
    sides = sorted(pictures.sides)
    return [
        f"images     {', '.join(f'{n:,} {name}' for name, n in pictures.formats.most_common())}; "
        f"{', '.join(f'{n:,} {name}' for name, n in pictures.modes.most_common())}; "
        f"{pictures.megabytes:,.1f} MB",
        f"           shorter side {sides[0]:,} to {sides[-1]:,} pixels, {statistics.median(sides):,.0f} in the middle",
    ]


def _left_out_lines(inventory: Inventory) -> list[str]:
    left_out, found, fatal = inventory.left_out, inventory.num_found, inventory.unusable
    if not left_out:
        return [f"left out   nothing of {found:,} found"]
    lines = [f"left out   {len(left_out):,} of {found:,} found"]
    by_kind: dict[str, list[str]] = defaultdict(list)
    for each in left_out:
        by_kind[next(iter(count_kinds([each])))].append(each.path)
    for kind in count_kinds(left_out):
        lines.append(f"  {len(by_kind[kind]):6,} {kind}: {names(by_kind[kind])}")
    if fatal:
        lines.append(
            f"training stops at {len(fatal):,} of them unless --undecodable_images is skip:"
        )
        lines += [f"  {plain(f'{each.path}: {each.reason}')}" for each in fatal[:SHOWN]]
        lines += [f"  and {len(fatal) - SHOWN:,} more"] if len(fatal) > SHOWN else []
    return lines


def _advice(splits: Splits) -> list[str]:
    """Say what the numbers of images allow: how exactly the test tells, and how well selection chooses."""
    n, chosen = len(splits.test), len(splits.selection)
    half = 1.96 * (0.8 * 0.2 / n) ** 0.5
    lines = [
        f"exactness  {n:,} test images tell an accuracy of 80 % to within {100 * half:.1f} points (95 %)"
    ]
    if chosen < 100:
        lines.append(
            f"           {chosen:,} images choose the checkpoint: below 100 one image more or less decides"
        )
    lacking = [
        f"{what} (from {needed})"
        for what, needed in (("calibrated scores", TO_CALIBRATE), ('"not sure"', TO_BE_SURE))
        if chosen < needed
    ]
    if lacking:
        but = ""
        if chosen + len(splits.originals) >= TO_CALIBRATE:
            # What it learned from is scored out of fold.
            but = ", but for a linear probe, which counts the training images too"
        lines.append(f"           too few for {' and '.join(lacking)}{but}")
    return lines


def as_json(checked: Checked) -> dict[str, Any]:
    """Return the report as values for JSON; left_out lists every path."""
    splits = checked.splits
    parts = {"train": splits.originals, "selection": splits.selection, "test": splits.test}
    return {
        "layout": splits.inventory.layout,
        "num_found": splits.inventory.num_found,
        "splits": {
            name: {"split": part.name, "labels": count_labels(part)} for name, part in parts.items()
        },
        "unused_splits": splits.inventory.unused,
        "left_out": [vars(each) for each in splits.inventory.left_out],
        "num_unusable": len(splits.inventory.unusable),
        "copies": checked.copies,
        "formats": dict(checked.pictures.formats),
        "modes": dict(checked.pictures.modes),
        "command": checked.command,
    }
