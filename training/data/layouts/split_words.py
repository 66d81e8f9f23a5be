"""Know a split by the whole name of its folder or file, never by a part of a name.

A class may be called `bullet_train` or `test kitchen`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from training.common.errors import UserError

WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CANONICAL = {word: split for split, words in WORDS.items() for word in words}
# The Hub's file names: train-00000-of-00008; also train_0 and train.000001.
_SHARD = re.compile(r"^([A-Za-z]+)(?:[-_.]?\d+(?:-of-\d+)?)?(?:-[0-9a-f]{16})?$")


def split_of(name: str) -> str | None:
    """Return the split that a folder's or a column's word names, in any case: "Val" -> "validation"."""
    return _CANONICAL.get(name.strip().casefold())


def split_of_file(stem: str) -> str | None:
    """Return the split that a file's name without its extension names: "train-00000-of-00008" -> "train"."""
    match = _SHARD.match(stem)
    return split_of(match[1]) if match else None


def refuse_like_splits(names: Iterable[str]) -> None:
    """Refuse folders or files that seem to be splits and are not called so: training_set, test_set.

    Raises:
        UserError: two of them hold the words of two splits.
    """
    like: dict[str, str] = {}
    for name in names:
        words = {_CANONICAL.get(word) for word in re.split(r"[^a-z]+", name.casefold())} - {None}
        if len(words) == 1 and split_of(name) is None:
            like.setdefault(words.pop(), name)
    if len(like) > 1:
        each = sorted(like.items(), key=lambda item: item[0] != "train")
        called = " and ".join(name for _, name in each)
        raise UserError(
            f"{called} may be splits or labels: if they are splits, call them {' and '.join(s for s, _ in each)}; "
            "if not, rename one"
        )


def find_split(splits: Iterable[str], wanted: str) -> str | None:
    """Find `wanted` among the names of splits: itself, else one that means the same.

    >>> find_split(["train", "Val"], "validation")
    "Val"

    Raises:
        UserError: two splits mean it.
    """
    names = list(splits)
    if wanted in names:
        return wanted
    same = [name for name in names if split_of(name) == split_of(wanted) is not None]
    if len(same) > 1:
        raise UserError(
            f"splits {' and '.join(same)} both mean {wanted}: rename one, or name one by train_split, "
            "selection_split or test_split"
        )
    return same[0] if same else None
