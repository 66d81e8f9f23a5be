"""Read the folder that the authors of Food-101 distribute: images/, and lists of them in meta/."""

from __future__ import annotations

import json
from pathlib import Path

from training.common.errors import UserError
from training.data.found import Found, LeftOut
from training.data.layouts.folders import as_dataset
from training.data.layouts.walk import Tree, kind_of, label_of


def is_food101_folder(folder: Path) -> bool:
    """Say whether `folder` has images/ and meta/ with the list of a split."""
    lists = [folder / "meta" / f"train.{kind}" for kind in ("txt", "json")]
    return (folder / "images").is_dir() and any(path.is_file() for path in lists)


def read_food101_folder(tree: Tree, base: str) -> Found:
    """Read images/LABEL/ID.jpg by meta/train.txt and meta/test.txt, or the same as .json.

    Labels keep the order of meta/classes.txt, which is the Hub's, where it lists them all.

    Raises:
        UserError: a list is damaged.
    """
    files = {name[: -len(Path(name).suffix)]: name for name in tree.images}
    splits, faults, listed, used = {}, list(tree.faults), set(), set()
    for split in ("train", "test"):
        path = _list_of(tree.root / base, split)
        if path is None:
            continue
        used.add(path.relative_to(tree.root).as_posix())
        rows = []
        for entry in _read_list(path):
            name = files.get(f"{base}images/{entry}")
            if name is None:
                faults.append(
                    LeftOut(f"{base}images/{entry}", "list", f"in meta/{path.name} and not there")
                )
            else:
                rows.append((name, label_of(entry.split("/")[0])))
                listed.add(name)
        splits[split] = [as_dataset(tree, rows)]
    loose = [name for name in tree.images if name not in listed]
    return Found(
        layout="the Food-101 folder of its authors: images/ with the lists in meta/",
        splits=splits,
        left_out=(
            *(LeftOut(name, kind_of(name), "in no list of meta/") for name in loose),
            *tree.not_used(set()),
        ),
        faults=tuple(faults),
        label_order=_order(tree.root / base),
        root=tree.root,
    )


def _list_of(folder: Path, split: str) -> Path | None:
    for kind in ("txt", "json"):
        if (path := folder / "meta" / f"{split}.{kind}").is_file():
            return path
    return None


def _read_list(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return [entry for entries in json.loads(text).values() for entry in entries]
        return [line.strip() for line in text.split("\n") if line.strip()]
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no list of Food-101: {' '.join(str(error).split())}") from error


def _order(folder: Path) -> tuple[str, ...] | None:
    path = folder / "meta" / "classes.txt"
    if not path.is_file():
        return None
    return tuple(dict.fromkeys(label_of(line) for line in _read_list(path)))
