"""Read folders with a folder for each label, with or without folders for splits above (or below) them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from datasets import Dataset, Features, Image, Value

from training.common.errors import UserError
from training.data.found import Found, LeftOut, names
from training.data.layouts.split_words import refuse_like_splits, split_of
from training.data.layouts.walk import Tree, kind_of, label_of

FEATURES = Features({"image": Image(decode=False), "label": Value("string")})

# (relative path of an image, its label; None: it has none)
Rows = list[tuple[str, str | None]]


def read_label_folders(tree: Tree, base: str) -> Found:
    """Read LABEL/..., SPLIT/LABEL/... or LABEL/SPLIT/...; what lies deeper has the same label.

    Args:
        base: folder inside the tree that all of it lies in, with "/" at its end; "" is the tree's own.

    Raises:
        UserError: there is no folder for a label, or one may be a split as well as a label.
    """
    images = {name: _parts(name, base) for name in tree.images if name.startswith(base)}
    tops = sorted({parts[0] for parts in images.values() if len(parts) > 1})
    if not tops:
        raise UserError(_no_label_folders(tree, images))
    splits = [top for top in tops if split_of(top)]
    labelled = [top for top in splits if _deepest(images, top) > 2]
    others = [top for top in tops if top not in splits]
    if labelled and others and len(labelled) < 2:
        raise UserError(
            f"{labelled[0]}/ has folders of its own and lies beside {names(f'{o}/' for o in others)}: is it a "
            f"split or a label? Put the other folders into {labelled[0]}/, or rename it"
        )
    flat = [split for split in splits if split_of(split) != "train" and split not in labelled]
    if flat and others and not labelled:
        raise UserError(
            f"{flat[0]}/ lies beside {names(f'{o}/' for o in others)} and may be a split or a label: put its images "
            f"in {flat[0]}/LABEL/ and the others in train/LABEL/, or rename it"
        )
    if splits and not labelled and not others:
        raise UserError(
            f"{splits[0]}/ has no folder for each label: put its images in {splits[0]}/LABEL/, or give a "
            "table with a path and a label in each row"
        )
    if labelled:
        rows, left_out = _splits_above(images, splits)
        layout = f"{_slashes(splits)} with a folder for each label"
        level = 2
    elif below := {p[0]: p[1] for p in images.values() if len(p) > 2 and split_of(p[1])}:
        without = [top for top in tops if top not in below]
        if without:
            top = min(below)
            raise UserError(
                f"{top}/{below[top]}/ is named like a split, and {names(f'{w}/' for w in without)} has none: give "
                f"each label folders for splits, or none; or give the path of {top}/ if it holds the data"
            )
        rows, left_out = _splits_below(images)
        layout, level = "a folder for each label, with one for each split in it", 1
    else:
        _refuse_like_splits(images)
        rows, left_out = _no_splits(images)
        layout, level = "a folder for each label", 1
    wrapped = f", in {base}" if base else ""
    outside = [
        LeftOut(n, kind_of(n), "not beside the others") for n in tree.images if n not in images
    ]
    return Found(
        layout=layout + wrapped,
        splits={split: [as_dataset(tree, each)] for split, each in rows.items()},
        left_out=(*left_out, *outside, *tree.not_used(set())),
        faults=tuple(tree.faults),
        empty_labels=tuple(_empty(tree, base, level, rows, splits if labelled else None)),
        root=tree.root,
    )


def as_dataset(tree: Tree, rows: Iterable[tuple[str, str | None]]) -> Dataset:
    """Make rows of (relative path, label) a data set of files that are not read yet."""
    each = list(rows)
    columns = {
        "image": [{"bytes": None, "path": tree.path(name)} for name, _ in each],
        "label": [label for _, label in each],
    }
    return Dataset.from_dict(columns, features=FEATURES)


def _splits_above(
    images: dict[str, tuple[str, ...]], splits: list[str]
) -> tuple[dict[str, Rows], list[LeftOut]]:
    by_name = {top: split_of(top) for top in splits}
    for split in set(by_name.values()):
        same = [top for top, each in by_name.items() if each == split]
        if len(same) > 1:
            raise UserError(f"{_slashes(same)} both mean the split {split}: rename one of them")
    with_labels = {
        by_name[parts[0]] for parts in images.values() if len(parts) > 2 and parts[0] in by_name
    }
    rows: dict[str, Rows] = defaultdict(list)
    left_out = []
    for name, parts in images.items():
        split = by_name.get(parts[0])
        if split is None:
            left_out.append(LeftOut(name, kind_of(name), "in no folder of a split"))
        elif split not in with_labels:  # as in competitions: test images whose labels are secret
            rows[split].append((name, None))
        elif len(parts) == 2:
            left_out.append(LeftOut(name, kind_of(name), "in no folder of a label"))
        else:
            rows[split].append((name, label_of(parts[1])))
    return dict(rows), left_out


def _splits_below(images: dict[str, tuple[str, ...]]) -> tuple[dict[str, Rows], list[LeftOut]]:
    rows: dict[str, Rows] = defaultdict(list)
    left_out = []
    for name, parts in images.items():
        split = split_of(parts[1]) if len(parts) > 2 else None
        if split is None:
            left_out.append(LeftOut(name, kind_of(name), "in no folder of a split"))
        else:
            rows[split].append((name, label_of(parts[0])))
    return dict(rows), left_out


def _refuse_like_splits(images: dict[str, tuple[str, ...]]) -> None:
    """Refuse training_set/cats/ and test_set/cats/: two labels with the same folders in them."""
    inside: dict[str, set[str]] = defaultdict(set)
    for parts in images.values():
        if len(parts) > 2:
            inside[parts[0]].add(parts[1])
    counts = Counter(folder for each in inside.values() for folder in each)
    refuse_like_splits(top for top, each in inside.items() if any(counts[f] > 1 for f in each))


def _no_splits(images: dict[str, tuple[str, ...]]) -> tuple[dict[str, Rows], list[LeftOut]]:
    rows = [(name, label_of(parts[0])) for name, parts in images.items() if len(parts) > 1]
    flat = [name for name, parts in images.items() if len(parts) == 1]
    return {"train": rows}, [LeftOut(n, kind_of(n), "in no folder of a label") for n in flat]


def _empty(
    tree: Tree, base: str, level: int, rows: dict[str, Rows], splits: list[str] | None
) -> list[tuple[str, str]]:
    """List the label folders without an image, at `level` folders below `base`."""
    having = {"/".join(_parts(n, base)[:level]) for each in rows.values() for n, _ in each}
    empty = []
    for folder in tree.folders:
        parts = _parts(folder, base) if folder.startswith(base) else ()
        if len(parts) != level or (splits is not None and parts[0] not in splits):
            continue
        if "/".join(parts) not in having:
            empty.append((split_of(parts[0]) if splits is not None else "train", folder))
    return empty


def _parts(name: str, base: str) -> tuple[str, ...]:
    return tuple(name[len(base) :].split("/"))


def _deepest(images: dict[str, tuple[str, ...]], top: str) -> int:
    return max(len(parts) for parts in images.values() if parts[0] == top)


def _slashes(folders: Iterable[str]) -> str:
    return " and ".join(f"{folder}/" for folder in folders)


def _no_label_folders(tree: Tree, images: dict[str, tuple[str, ...]]) -> str:
    if images:
        return (
            f"{len(images):,} images lie in {tree.root.name}/ itself, without a folder for each label: put them "
            "in LABEL/, or add a table (metadata.csv) with a path and a label in each row"
        )
    seen = names(tree.others) or "no file at all"
    return (
        f"{tree.root.name}/ has no image ({seen}): put photographs in a folder for each label, "
        f"{tree.root.name}/LABEL/photo.jpg"
    )
