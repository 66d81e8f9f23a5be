"""Images and labels, wherever they are from -> `Splits`, with a word about everything that is not used.

Three splits, each with one use: `train` updates weights, `selection` chooses the checkpoint, `test` is
scored once, after training. What is missing is cut from train (`partition`). The Hub's food101 calls
its official, reviewed 25,250-image test set `validation`.
Images stay encoded: every split has the columns `image` ({"bytes", "path"}) and `label`.
With `train_short_side` the images of `train` come from a cache; those of the others never do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from accelerate import PartialState
from datasets import Dataset

from training.common.errors import UserError
from training.common.machine import local_main_first
from training.data.arguments import DataArguments
from training.data.found import Found, names, say_left_out
from training.data.labels import name_labels
from training.data.layouts.split_words import find_split
from training.data.partition import (
    TEST_FRACTION,
    Plan,
    choose_splits,
    content_of,
    cut,
    refuse_few,
    selection_fraction_of,
    split_to_score,
)
from training.data.reduced import Cache, find_or_build
from training.data.sources import load_source
from training.data.splits import Cut, Inventory, Source, Split, Splits
from training.data.usable import usable_splits

logger = logging.getLogger(__name__)


class OtherImagesError(UserError):
    """A split cannot be cut as before: the images are not the ones that it was cut from."""


@dataclass(frozen=True)
class Prepared:
    """The splits of a data set that a recipe uses, checked, before anything is cut from them."""

    source: Source
    plan: Plan
    splits: dict[str, Split]  # by name; those of `plan.used()`
    inventory: Inventory
    notes: tuple[str, ...]  # what a person should know, a line each

    @property
    def train(self) -> Split:
        """The split that is trained on."""
        return self.splits[self.plan.train]


def load_splits(args: DataArguments, quiet: bool = False) -> Splits:
    """Load and check what the recipe uses, and cut what the data set has no split for.

    All processes call this together, and get the same.

    Args:
        quiet: log nothing; whoever calls tells what was found.

    Raises:
        UserError: data missing, unreachable or unusable; the message says what to change.
    """
    found = prepare(args)
    train, plan, notes = found.train, found.plan, list(found.notes)
    _refuse_one_label(train.label_names, args)
    rows = list(range(len(train)))
    if plan.test is None:
        rows, test = _cut_test(train, args, notes)
    else:
        test = found.splits[plan.test]
    if plan.selection is None:
        rows, selection, share = _cut_selection(train, rows, args, notes)
    else:
        selection, share = found.splits[plan.selection], None
    originals = train.take(rows, "training")
    identical = _count_identical(test, train if plan.test else originals)
    if not quiet:
        used = _used_note(train, selection, test, plan)
        _say([*notes, *_identical_note(identical, len(test)), used])
    cache, images = None, originals.dataset
    if args.train_short_side is not None:
        cache, reduced = open_cache(train, args.train_short_side)
        images = reduced.select(rows)
    return Splits(
        source=found.source,
        train=images,
        selection=selection,
        test=test,
        label_names=train.label_names,
        train_fingerprint=train.fingerprint,
        train_split=plan.train,
        selection_fraction=share,
        left_out=train.left_out,
        identical_train_test=identical,
        train_cache=cache.summary() if cache else None,
        originals=originals,
        inventory=found.inventory,
    )


def prepare(args: DataArguments) -> Prepared:
    """Find the splits that a recipe uses, number their labels by name and check every image.

    Raises:
        UserError: as `load_splits`.
    """
    with local_main_first():
        source, found = load_source(args)
    plan = choose_splits(found, args)
    _refuse_empty_labels(found, plan)
    labelled = name_labels(found, plan.used(), args)
    splits, left_out = usable_splits(found, labelled, args)
    inventory = Inventory(
        layout=found.layout,
        num_found=found.num_found(),
        left_out=(*found.left_out, *left_out),
        unusable=tuple(left_out),
        unused={split: found.num_rows(split) for split in plan.unused},
    )
    notes = (*_inventory_notes(inventory), *plan.notes, *found.notes, *labelled.notes)
    return Prepared(source, plan, splits, inventory, notes)


def load_split(
    args: DataArguments,
    split: str | None = None,
    label_names: list[str] | None = None,
    made_by: Cut | None = None,
) -> tuple[Source, Split]:
    """Load and check one split of the data set.

    Args:
        split: its name; None is the one that would be scored: `test_split`, else `test`, else
            `validation`, else the only one.
        label_names: the labels of a model in the order of its ids, by which the split's labels are
            numbered; None keeps the data set's own numbers.
        made_by: how the split was cut out of another one: it is cut again. None: it is as it is found.

    Raises:
        OtherImagesError: it cannot be cut as before, since the images are others.
        UserError: as `load_splits`, and where the split has labels that are not in `label_names`.
    """
    if made_by is not None:
        found = prepare(args)
        source, chosen = found.source, _cut_again(found, args, made_by)
    else:
        with local_main_first():
            source, found = load_source(args)
        name = split_to_score(found, args) if split is None else find_split(found.splits, split)
        if name is None:
            raise UserError(
                f"dataset {args.dataset} has no split {split}: it has {', '.join(found.splits)}"
            )
        chosen = _one_split(found, name, args)
    return source, chosen if label_names is None else _aligned(chosen, label_names)


def open_cache(train: Split, short_side: int) -> tuple[Cache, Dataset]:
    """Find or make the cache of a training split; return it with its images in the split's order.

    All processes call this together; the first of each machine makes the cache.

    Args:
        short_side: in pixels, of the reduced images.
    """
    with local_main_first():
        cache = find_or_build(train, short_side)
        return cache, cache.open()


# ---- one split ----------------------------------------------------------------------------------


def _one_split(found: Found, name: str, args: DataArguments) -> Split:
    """Check one split alone, or all that a run uses where they decide what is left out of it."""
    used = [name]
    if args.undecodable_images == "skip":  # the same bytes under two labels, also in two splits
        try:
            plan = choose_splits(found, args)
        except UserError:  # no data set to train on
            plan = None
        if plan is not None and name in plan.used():
            used = plan.used()
    labelled = name_labels(found, used, args)
    splits, left_out = usable_splits(found, labelled, args)
    if left_out:
        _say([say_left_out(left_out, sum(found.num_rows(each) for each in used))])
    return splits[name]


def align_labels(dataset: Dataset, label_names: list[str]) -> Dataset:
    """Renumber the labels of `dataset` in the order of `label_names`.

    It is needed even for one data set: food101's own order is not the sorted one that a folder of
    the same images has (ids 16 and 17).

    Raises:
        UserError: an image has a label that is not in `label_names`.
    """
    own = dataset.features["label"].names
    if own == label_names:
        return dataset
    unknown = [name for name in own if name not in label_names]
    if unknown:
        raise UserError(
            f"the data set's labels are not the model's: {len(own)} against {len(label_names)}; the model "
            f"does not know {names(unknown, 5)}"
        )
    return dataset.align_labels_with_mapping(
        {name: i for i, name in enumerate(label_names)}, "label"
    )


def _aligned(split: Split, label_names: list[str]) -> Split:
    missing = [name for name in label_names if name not in split.label_names]
    dataset = align_labels(split.dataset, label_names)
    if missing:
        _say(
            [
                f"{split.name} has no image of {len(missing)} of the model's {len(label_names)} labels: "
                f"{names(missing, 5)}"
            ]
        )
    return replace(split, dataset=dataset, label_names=label_names)


# ---- cutting ------------------------------------------------------------------------------------


def _cut_test(train: Split, args: DataArguments, notes: list[str]) -> tuple[list[int], Split]:
    """Cut a test split; return the rows that stay in train, and the split."""
    labels = train.dataset["label"][:]
    needed = 3 if args.selection_split is None else 2
    refuse_few(labels, train.content, train.label_names, needed, "a cut of test and selection")
    fraction = TEST_FRACTION if args.test_fraction is None else args.test_fraction
    # In the order of the contents, so that files may be renamed.
    order = sorted(range(len(train)), key=lambda row: train.content[row])
    kept, chosen, raised = cut(
        [labels[row] for row in order],
        [train.content[row] for row in order],
        train.label_names,
        fraction,
        args.split_seed,
        "test_fraction",
    )
    kept, chosen = (sorted(order[i] for i in part) for part in (kept, chosen))
    content = content_of(train.label_names, labels, train.content)
    made = Cut(train.name, fraction, args.split_seed, content)
    notes.append(
        f"no test split: {len(chosen):,} of the {len(train):,} images of {train.name} are kept back as test "
        f"(test_fraction {fraction:g}, stratified by label, equal files on one side, seed {args.split_seed})"
    )
    notes += _raised_note("test_fraction", fraction, raised, len(chosen), train)
    return kept, replace(train.take(chosen, "test"), cut=made)


def _cut_again(found: Prepared, args: DataArguments, made_by: Cut) -> Split:
    whole = found.splits.get(find_split(found.splits, made_by.of) or "")
    labels = whole.dataset["label"][:] if whole else []
    if whole is None or content_of(whole.label_names, labels, whole.content) != made_by.content:
        raise OtherImagesError(
            f"{args.dataset} is not what the test images were cut from: images were added, removed, replaced or "
            "relabelled, so training images could be among the test images; give the data as they were, or "
            "other images with --split"
        )
    args = replace(args, test_fraction=made_by.fraction, split_seed=made_by.seed)
    return _cut_test(whole, args, [])[1]


def _cut_selection(
    train: Split, rows: list[int], args: DataArguments, notes: list[str]
) -> tuple[list[int], Split, float]:
    """Cut the selection slice from `rows` of train; return the rows that stay, it, and its share."""
    fraction = args.selection_fraction
    if fraction is None:
        fraction = selection_fraction_of(len(rows))
    labels = train.dataset["label"][:]
    kept, chosen, raised = cut(
        [labels[row] for row in rows],
        [train.content[row] for row in rows],
        train.label_names,
        fraction,
        args.split_seed,
        "selection_fraction",
    )
    notes += _raised_note("selection_fraction", fraction, raised, len(chosen), train)
    kept, chosen = ([rows[i] for i in part] for part in (kept, chosen))
    return kept, train.take(chosen, "selection"), fraction


def _raised_note(key: str, fraction: float, raised: bool, count: int, train: Split) -> list[str]:
    if not raised:
        return []
    return [
        f"{key} {fraction:g} is too small for an image of each of {len(train.label_names)} labels: raised to "
        f"{count:,} images"
    ]


# ---- what is refused, and what is said ----------------------------------------------------------


def _refuse_one_label(label_names: list[str], args: DataArguments) -> None:
    if len(label_names) < 2:
        raise UserError(
            f"dataset {args.dataset} has one label ({label_names[0]}): give images of two or more"
        )


def _refuse_empty_labels(found: Found, plan: Plan) -> None:
    empty = [folder for split, folder in found.empty_labels if split in plan.used()]
    if empty:
        raise UserError(
            f"{len(empty)} label folder{'s' * (len(empty) > 1)} without an image: {names(empty, 10)}; add images, "
            "or remove the folder"
        )


def _count_identical(test: Split, train: Split) -> int:
    seen = set(train.content)
    return sum(sha256 in seen for sha256 in test.content)


def _identical_note(identical: int, num_test: int) -> list[str]:
    if not identical:
        return []
    return [
        f"{identical:,} of the {num_test:,} test images are byte for byte training images too: the test flatters"
    ]


def _inventory_notes(inventory: Inventory) -> list[str]:
    notes = [f"found {inventory.layout}"]
    if inventory.left_out:
        notes.append(say_left_out(inventory.left_out, inventory.num_found))
    notes += [
        f"split {split} ({rows:,} rows) is not used" for split, rows in inventory.unused.items()
    ]
    return notes


def _used_note(train: Split, selection: Split, test: Split, plan: Plan) -> str:
    sliced = "a slice of it" if plan.selection is None else f"split {plan.selection}"
    cut_ = "a part of it" if plan.test is None else f"split {plan.test}"
    return f"train: split {train.name}; selection: {sliced}; test: {cut_}"


def _say(lines: Iterable[str]) -> None:
    if PartialState().is_main_process:
        for line in lines:
            logger.info(line)
