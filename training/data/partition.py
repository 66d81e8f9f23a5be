"""Choose which split trains, selects and tests, and cut what is missing: by label, content and seed."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found, names
from training.data.labels import is_labelled
from training.data.layouts.split_words import find_split

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Plan:
    """Which of the splits that were found is used for what."""

    train: str
    selection: str | None  # None: a slice of train is cut
    test: str | None  # None: a part of train is cut
    unused: tuple[str, ...]  # names of the others
    notes: tuple[str, ...] = ()

    def used(self) -> list[str]:
        """List the splits that are read, the one that is trained on first."""
        return [split for split in (self.train, self.selection, self.test) if split is not None]


def choose_splits(found: Found, args: DataArguments) -> Plan:
    """Choose the splits by the keys, else by their names.

    The test split is `test` if it has labels, else `validation`, else a part of the training split;
    the selection split is `validation` where that is not the test, else a slice of the training
    split. On Food-101, which has train and validation, validation is the test.

    Raises:
        UserError: a split that a key names is not there or has no labels; one would be used twice; or a
            fraction is given for what need not be cut.
    """
    splits, notes = list(found.splits), []
    train = _named(found, args.train_split, "train_split", args, may_be_missing=len(splits) == 1)
    if train is None:  # one split only, whatever it is called
        train = splits[0]
        notes.append(f"the only split, {train}, is trained on")
    if args.test_split is not None:
        test = _named(found, args.test_split, "test_split", args)
    else:
        test = None
        for word in ("test", "validation"):
            split = find_split(splits, word)
            if split is None or split == train or test is not None:
                continue
            if is_labelled(found.splits[split]):
                test = split
            else:
                notes.append(f"no row of {split} has a label: it is not scored")
    if args.selection_split is not None:
        selection = _named(found, args.selection_split, "selection_split", args)
    else:
        selection = find_split([s for s in splits if s not in (train, test)], "validation")
        if selection is not None and not is_labelled(found.splits[selection]):
            selection = None
    _refuse_twice({"train_split": train, "selection_split": selection, "test_split": test})
    if selection is not None and args.selection_fraction is not None:
        raise UserError(
            f"selection_fraction is {args.selection_fraction:g} and the data set has a split to select on, "
            f"{selection}: leave one out (--selection_fraction null, or name another selection_split)"
        )
    if test is not None and args.test_fraction is not None:
        raise UserError(
            f"test_fraction is {args.test_fraction:g} and the data set has a test split, {test}: leave it out"
        )
    unused = tuple(split for split in splits if split not in (train, selection, test))
    return Plan(train, selection, test, unused, tuple(notes))


def split_to_score(found: Found, args: DataArguments) -> str:
    """Choose the split that a finished model is scored on: as in training, else the only one there is.

    Raises:
        UserError: it cannot be told; the message lists the splits.
    """
    if args.test_split is not None:
        return _named(found, args.test_split, "test_split", args)
    for word in ("test", "validation"):
        split = find_split(found.splits, word)
        if split is not None and is_labelled(found.splits[split]):
            return split
    if len(found.splits) == 1:
        return next(iter(found.splits))
    raise UserError(
        f"dataset {args.dataset} has no test split: give one of {', '.join(found.splits)} with --split"
    )


def _named(
    found: Found, wanted: str, key: str, args: DataArguments, may_be_missing: bool = False
) -> str | None:
    split = find_split(found.splits, wanted)
    if split is None:
        if may_be_missing and args.is_default(key):
            return None
        raise UserError(
            f"dataset {args.dataset} has no split {wanted}: it has {', '.join(found.splits)}; set {key}"
        )
    if found.num_rows(split) == 0:
        raise UserError(f"split {split} of {args.dataset} is empty")
    if not is_labelled(found.splits[split]):
        raise UserError(
            f"no row of split {split} of {args.dataset} has a label: set {key} to another split"
        )
    return split


def _refuse_twice(chosen: dict[str, str | None]) -> None:
    seen: dict[str, str] = {}
    for key, split in chosen.items():
        if split is not None and split in seen:
            what = (
                "the report would be on training data"
                if seen[split] == "train_split"
                else "the report would be on the images that chose the checkpoint"
            )
            raise UserError(f"{seen[split]} and {key} are both {split}: {what}")
        if split is not None:
            seen[split] = key


# ---- cutting ------------------------------------------------------------------------------------


def selection_fraction_of(num_images: int) -> float:
    """Choose the share of the training images that selects, where the recipe does not say.

    5 % of Food-101 are 3,787 images; of a few hundred they would be a handful, so it is more there.
    """
    return 0.05 if num_images >= 5_000 else 0.1 if num_images >= 500 else 0.2


def content_of(label_names: Sequence[str], labels: Sequence[int], content: Sequence[str]) -> str:
    """Compute the SHA-256 over every image's label name and content, in an order of their own."""
    lines = sorted(f"{label_names[i]} {sha}\n" for i, sha in zip(labels, content, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def cut(
    labels: Sequence[int],
    content: Sequence[str],
    label_names: Sequence[str],
    fraction: float,
    seed: int,
    what: str,
) -> tuple[list[int], list[int], bool]:
    """Divide rows in two, with the same share of every label in both, and equal bytes on one side.

    Each label has at least one image on both sides. Where no two images are the same, and the fraction
    is large enough for every label, the rows are those of datasets' own train_test_split.

    Args:
        labels: the id of each row's label.
        content: the SHA-256 of each row's encoded bytes.
        fraction: the share of the second part.
        what: names the fraction's key in an error.

    Returns:
        The rows of the two parts, and whether the second is larger than the fraction for want of images.

    Raises:
        UserError: a label has fewer than two different images.
    """
    first: dict[str, int] = {}
    for row, sha in enumerate(content):
        first.setdefault(sha, row)
    rows = list(first.values())  # one for each content
    counts = Counter(labels[row] for row in rows)
    few = [i for i in range(len(label_names)) if counts[i] < 2]
    if few:
        raise UserError(_too_few(label_names, counts, few, 2, what))
    each = [labels[row] for row in rows]
    parts = _train_test_split(each, label_names, fraction, seed) or _at_least_one(
        each, fraction, seed
    )
    kept, chosen = ([rows[i] for i in part] for part in parts)
    raised = len(chosen) > math.ceil(fraction * len(rows))
    if len(rows) < len(content):  # copies go where the first of them went
        second = {content[row] for row in chosen}
        chosen = [row for row, sha in enumerate(content) if sha in second]
        kept = [row for row, sha in enumerate(content) if sha not in second]
    return kept, chosen, raised


def refuse_few(
    labels: Sequence[int], content: Sequence[str], label_names: Sequence[str], needed: int, why: str
) -> None:
    """Refuse labels with fewer than `needed` different images.

    Raises:
        UserError: there is one; it names all with their counts.
    """
    different = {(label, sha) for label, sha in zip(labels, content, strict=True)}
    counts = Counter(label for label, _ in different)
    few = [i for i in range(len(label_names)) if counts[i] < needed]
    if few:
        raise UserError(_too_few(label_names, counts, few, needed, why))


def _too_few(
    label_names: Sequence[str], counts: Counter[int], few: list[int], needed: int, why: str
) -> str:
    told = names((f"{label_names[i]} ({counts[i]})" for i in few), 10)
    return (
        f"{len(few)} of {len(label_names)} labels have fewer than {needed} different images, which {why} "
        f"needs: {told}; add images, or remove these labels"
    )


def _train_test_split(
    labels: list[int], label_names: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]] | None:
    """Divide rows as datasets does; None where a label would be missing on a side."""
    features = Features({"label": ClassLabel(names=list(label_names)), "row": Value("int64")})
    rows = Dataset.from_dict({"label": labels, "row": range(len(labels))}, features)
    try:
        parts = rows.train_test_split(
            test_size=fraction, stratify_by_column="label", seed=seed, load_from_cache_file=False
        )
    except ValueError:
        return None
    divided = parts["train"]["row"][:], parts["test"]["row"][:]
    both = all({labels[i] for i in part} == set(labels) for part in divided)
    return divided if both else None


def _at_least_one(labels: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide each label's rows at about `fraction`: at least one goes, and at least one stays."""
    rng, chosen = np.random.default_rng(seed), []
    by_label: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    for _, rows in sorted(by_label.items()):
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        chosen += rng.permutation(rows)[:count].tolist()
    kept = sorted(set(range(len(labels))) - set(chosen))
    return kept, sorted(chosen)
