"""Images and labels: a Hub id, a local folder or parquet, or the sample -> `Splits`.

Three splits, each with one use: `train` updates weights, `selection` (a stratified slice of the
data set's own training split) chooses the checkpoint, `test` is scored once, after training.
The Hub's food101 calls its official, reviewed 25,250-image test set `validation`.
Images stay encoded: every split has the columns `image` ({"bytes", "path"}) and `label`.
With `train_short_side` the images of `train` come from a cache; those of the others never do.
"""

from __future__ import annotations

from datasets import ClassLabel, Dataset, Features, Value

from training.common.errors import UserError
from training.common.machine import local_main_first
from training.data.arguments import DataArguments
from training.data.reduced import Cache, find_or_build
from training.data.scan import scan_images
from training.data.sources import load_source, one_line, select_split
from training.data.splits import Source, Split, Splits, fingerprint_of


def load_splits(args: DataArguments) -> Splits:
    """Load and scan the training and the test split, and cut the selection slice from the first.

    All processes call this together, and get the same.

    Raises:
        UserError: data missing, unreachable or unusable; the message says what to change.
    """
    source, everything = load_source(args)
    train = _scan(select_split(everything, args.train_split, args), args.train_split, args)
    test = _scan(select_split(everything, args.test_split, args), args.test_split, args)
    if args.train_split == args.test_split:
        raise UserError(
            f"train_split and test_split are both {args.train_split}: the report would be on training data"
        )
    if train.label_names != test.label_names:
        raise UserError(
            f"{args.train_split} and {args.test_split} have different labels: "
            f"{_differ(train.label_names, test.label_names)}"
        )
    _refuse_untrained(test, train)
    kept, chosen = _cut_selection(train, args)
    cache, images = None, train.dataset
    if args.train_short_side is not None:
        cache, images = open_cache(train, args.train_short_side)
    return Splits(
        source=source,
        train=images.select(kept),
        selection=_slice(train, chosen, "selection"),
        test=test,
        label_names=train.label_names,
        train_fingerprint=train.fingerprint,
        left_out=train.left_out,
        identical_train_test=_count_identical(test, train),
        train_cache=cache.summary() if cache else None,
        originals=_slice(train, kept, "training"),
    )


def open_cache(train: Split, short_side: int) -> tuple[Cache, Dataset]:
    """Find or make the cache of a training split; return it with its images in the split's order.

    All processes call this together; the first of each machine makes the cache.

    Args:
        short_side: in pixels, of the reduced images.
    """
    with local_main_first():
        cache = find_or_build(train, short_side)
        return cache, cache.open()


def _refuse_untrained(test: Split, train: Split) -> None:
    """Refuse test labels without a training image: a folder's splits share one list of labels."""
    unseen = set(test.dataset["label"][:]) - set(train.dataset["label"][:])
    if unseen:
        names = _some([test.label_names[i] for i in sorted(unseen)])
        raise UserError(
            f"{train.name} and {test.name} have different labels: {train.name} has no image of {names}"
        )


def _count_identical(test: Split, train: Split) -> int:
    seen = set(train.content)
    return sum(sha256 in seen for sha256 in test.content)


def load_split(
    args: DataArguments, split: str, label_names: list[str] | None = None
) -> tuple[Source, Split]:
    """Load and scan one split of the data set.

    Args:
        label_names: the labels of a model in the order of its ids, by which the split's labels are
            numbered; None keeps the data set's own numbers.

    Raises:
        UserError: as `load_splits`, and where the label set differs from `label_names`.
    """
    source, everything = load_source(args)
    dataset = select_split(everything, split, args)
    if label_names is not None:
        dataset = align_labels(dataset, label_names)
    return source, _scan(dataset, split, args)


def align_labels(dataset: Dataset, label_names: list[str]) -> Dataset:
    """Renumber the labels of `dataset` in the order of `label_names`.

    It is needed even for one data set: food101's own order is not the sorted one that a folder of
    the same images has (ids 16 and 17).

    Raises:
        UserError: the data set has other labels than `label_names`.
    """
    names = dataset.features["label"].names
    if set(names) != set(label_names):
        raise UserError(f"the data set's labels are not the model's: {_differ(names, label_names)}")
    if names == label_names:
        return dataset
    return dataset.align_labels_with_mapping(
        {name: i for i, name in enumerate(label_names)}, "label"
    )


def _differ(left: list[str], right: list[str]) -> str:
    only_left, only_right = sorted(set(left) - set(right)), sorted(set(right) - set(left))
    return (
        f"{len(left)} against {len(right)} labels; only in the first: {_some(only_left)}; "
        f"only in the second: {_some(only_right)}"
    )


def _some(names: list[str]) -> str:
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    )


def _cut_selection(train: Split, args: DataArguments) -> tuple[list[int], list[int]]:
    """Choose the rows to train on and the rows to select on, stratified by label."""
    features = Features({"label": ClassLabel(names=train.label_names), "row": Value("int64")})
    columns = {"label": train.dataset["label"][:], "row": range(len(train))}
    rows = Dataset.from_dict(columns, features)
    try:
        parts = rows.train_test_split(
            test_size=args.selection_fraction, stratify_by_column="label", seed=args.split_seed
        )
    except ValueError as error:
        raise UserError(
            f"selection_fraction {args.selection_fraction} of {len(train)} images with {len(train.label_names)} "
            f"labels cannot be cut by label: {one_line(error)}; give a larger share or more images"
        ) from error
    return parts["train"]["row"][:], parts["test"]["row"][:]


def _slice(train: Split, rows: list[int], name: str) -> Split:
    dataset, content = train.dataset.select(rows), tuple(train.content[i] for i in rows)
    fingerprint = fingerprint_of(train.label_names, dataset["label"][:], content)
    return Split(name, dataset, train.label_names, fingerprint, content)


def _scan(dataset: Dataset, split: str, args: DataArguments) -> Split:
    """Decode every image once before the first step; leave out, or refuse, what cannot be."""
    found = scan_images(dataset, split)
    bad = [i for i, error in enumerate(found["error"]) if error]
    names = dataset.features["label"].names
    if bad and args.undecodable_images == "stop":
        raise UserError(
            f"image {bad[0]} of split {split} ({found['path'][bad[0]] or 'no path'}): {found['error'][bad[0]]}; "
            f"{len(bad)} such images; repair them, or leave them out with --undecodable_images skip"
        )
    good = sorted(set(range(len(dataset))) - set(bad))
    if not good:
        raise UserError(f"split {split} of {args.dataset} has no image that can be decoded")
    kept = dataset.select(good) if bad else dataset
    content = tuple(found["sha256"][i] for i in good)
    return Split(
        name=split,
        dataset=kept,
        label_names=names,
        fingerprint=fingerprint_of(names, kept["label"][:], content),
        content=content,
        left_out=len(bad),
    )
