"""What was found under a data set's name, before labels are numbered and splits are chosen.

Nothing vanishes: every file is a row of a split, or is named in `left_out` or `faults`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

SHOWN = 20  # names of files that a message shows at most


@dataclass(frozen=True)
class LeftOut:
    """A file or row that is not used, and why."""

    path: str  # relative to the data set, with "/"; of a row: "train.csv, row 17"
    kind: str  # what it is, to count by: ".heic", "hidden", "no extension", "row"
    reason: str  # "no image", "cannot be decoded: ...", "has no label", ...


@dataclass(frozen=True)
class Found:
    """Everything under a data set's name: rows by split, and what is not a row.

    A split is one or more pieces, each with the columns `image` ({"bytes", "path"}, not decoded) and
    `label`, as it was found: names, numbers or a ClassLabel of its own.
    """

    layout: str  # in words, for the console: "splits train/ and test/ with a folder for each label"
    splits: dict[str, list[Dataset]]
    left_out: tuple[LeftOut, ...] = ()  # files that are no images of this data set
    faults: tuple[LeftOut, ...] = ()  # images or rows that cannot be used: stop, or skip and count
    label_order: tuple[str, ...] | None = None  # names in the order of their ids; None: sorted
    empty_labels: tuple[tuple[str, str], ...] = ()  # (split, label folder without an image)
    notes: tuple[str, ...] = ()  # what a person should know, a line each
    root: Path | None = None  # folder that paths are told relative to; None: not in files

    def num_rows(self, split: str) -> int:
        """Count the rows of a split, usable or not."""
        return sum(len(piece) for piece in self.splits[split])

    def num_found(self) -> int:
        """Count everything: rows of all splits, files left out, and faults."""
        rows = sum(map(self.num_rows, self.splits))
        return rows + len(self.left_out) + len(self.faults)


def relative(path: str, root: Path | None) -> str:
    """Name a file relative to the data set, with "/"; a file elsewhere keeps its name only."""
    if root is None or not os.path.isabs(path):
        return path
    above = os.path.join(root, "")
    return path[len(above) :] if path.startswith(above) else os.path.basename(path)


def count_kinds(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Count what was left out by kind and reason: {".heic, cannot be decoded": 12}, most first.

    Of a reason only what stands before a colon or bracket counts, so that alike things are counted
    together.
    """
    reasons = ((each.kind, re.split(r":| \(|;", each.reason)[0]) for each in left_out)
    counts = Counter(kind if kind == why else f"{kind}, {why}" for kind, why in reasons)
    return dict(counts.most_common())


def say_left_out(left_out: Iterable[LeftOut], found: int) -> str:
    """Say in one line how many of `found` things were left out, of which kinds, and the first names.

    >>> say_left_out([LeftOut("a/x.txt", ".txt", "no image")], found=118)
    "1 of 118 left out: 1 .txt, no image; first: a/x.txt"
    """
    each = list(left_out)
    kinds = "; ".join(f"{count:,} {kind}" for kind, count in count_kinds(each).items())
    return f"{len(each):,} of {found:,} left out: {kinds}; first: {names(e.path for e in each)}"


def plain(text: str) -> str:
    r"""Write a name so that it stays on its line: control characters as \n, \x1b and the like."""
    return "".join(
        c if c >= " " and c not in "\x7f\x85\u2028\u2029" else repr(c)[1:-1] for c in text
    )


def names(paths: Iterable[str], shown: int = 3) -> str:
    """List the first `shown` names, and say how many more there are: "a, b, c and 4 more"."""
    each = list(map(plain, paths))
    more = f" and {len(each) - shown:,} more" if len(each) > shown else ""
    return ", ".join(each[:shown]) + more
