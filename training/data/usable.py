"""Tell the rows that can be used from those that cannot: not decoded, or the same bytes under two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import SHOWN, Found, LeftOut, plain, relative
from training.data.labels import Labelled
from training.data.layouts.walk import kind_of
from training.data.scan import Look, scan_images
from training.data.splits import Split, fingerprint_of, image_paths


def usable_splits(
    found: Found, labelled: Labelled, args: DataArguments
) -> tuple[dict[str, Split], list[LeftOut]]:
    """Look at every image of the splits; stop at what cannot be used, or leave it out and list it.

    Returns:
        The splits by name, and what of them, and of `found.faults`, was left out.

    Raises:
        UserError: something cannot be used and the recipe says stop, which lists it; or nothing is left of
            a split, or of one of its labels.
    """
    looks = {split: scan_images(dataset, split) for split, dataset in labelled.splits.items()}
    paths = {split: _paths(found, labelled, split) for split in looks}
    bad = _undecodable(looks, paths)
    for (split, row), fault in _two_labels(labelled, looks, paths).items():
        bad[split].setdefault(row, fault)
    left_out = [*found.faults]
    for split in looks:
        left_out += [*labelled.faults[split], *bad[split].values()]
    if left_out and args.undecodable_images == "stop":
        raise UserError(_stop(left_out, found))
    splits = {
        split: _split(labelled, split, bad[split], looks[split], paths[split], args)
        for split in looks
    }
    return splits, left_out


def row_name(path: str, row: int, split: str) -> str:
    """Name an image for a person: its file, or its row where it has none."""
    return path or f"row {row} of {split}"


def _paths(found: Found, labelled: Labelled, split: str) -> list[str]:
    """Name each row's file relative to the data set; "" of a row without one."""
    return [relative(path, found.root) for path in image_paths(labelled.splits[split])]


def _undecodable(
    looks: dict[str, list[Look]], paths: dict[str, list[str]]
) -> dict[str, dict[int, LeftOut]]:
    bad: dict[str, dict[int, LeftOut]] = {}
    for split, each in looks.items():
        bad[split] = {
            row: LeftOut(
                row_name(paths[split][row], row, split), kind_of(paths[split][row]), look.error
            )
            for row, look in enumerate(each)
            if look.error
        }
    return bad


def _two_labels(
    labelled: Labelled, looks: dict[str, list[Look]], paths: dict[str, list[str]]
) -> dict[tuple[str, int], LeftOut]:
    """Find images that have the same bytes and different labels, within a split or in two."""
    where: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for split, each in looks.items():
        for row, (look, label) in enumerate(
            zip(each, labelled.splits[split]["label"][:], strict=True)
        ):
            if not look.error:
                where[look.sha256].append((split, row, label))
    faults = {}
    for places in where.values():
        first = places[0]
        unlike = next((place for place in places if place[2] != first[2]), None)
        if unlike is None:
            continue
        for split, row, label in places:
            other = first if first[2] != label else unlike
            name, other_name = (
                row_name(paths[s][r], r, s) for s, r in ((split, row), (other[0], other[1]))
            )
            faults[split, row] = LeftOut(
                name,
                kind_of(paths[split][row]),
                f"the same bytes under two labels: {other_name} ({labelled.names[other[2]]}) too",
            )
    return faults


def _stop(left_out: Sequence[LeftOut], found: Found) -> str:
    shown = "".join(f"\n  {plain(f'{each.path}: {each.reason}')}" for each in left_out[:SHOWN])
    more = f"\n  and {len(left_out) - SHOWN:,} more" if len(left_out) > SHOWN else ""
    images = "image" if len(left_out) == 1 else "images"
    return (
        f"{len(left_out):,} {images} of {found.num_found():,} files or rows cannot be used: repair them, or leave "
        f"them out with --undecodable_images skip{shown}{more}"
    )


def _split(
    labelled: Labelled,
    split: str,
    bad: dict[int, LeftOut],
    looks: list[Look],
    paths: list[str],
    args: DataArguments,
) -> Split:
    dataset = labelled.splits[split]
    good = [row for row in range(len(dataset)) if row not in bad]
    if not good:
        faults = [*bad.values(), *labelled.faults[split]]
        why = f": {plain(f'{faults[0].path}: {faults[0].reason}')}" if faults else ""
        raise UserError(f"split {split} of {args.dataset} has no image that can be used{why}")
    kept = dataset.select(good) if bad else dataset
    labels = kept["label"][:]
    _refuse_lost_labels(labelled, split, dataset["label"][:], labels, bad)
    content = tuple(looks[row].sha256 for row in good)
    return Split(
        name=split,
        dataset=kept,
        label_names=labelled.names,
        fingerprint=fingerprint_of(labelled.names, labels, content),
        content=content,
        left_out=len(bad) + len(labelled.faults[split]),
        paths=tuple(paths[row] for row in good),
    )


def _refuse_lost_labels(
    labelled: Labelled, split: str, before: list[int], after: list[int], bad: dict[int, LeftOut]
) -> None:
    lost = sorted(set(before) - set(after))
    if lost:
        first = next(fault for row, fault in bad.items() if before[row] == lost[0])
        told = ", ".join(labelled.names[i] for i in lost[:10])
        raise UserError(
            f"no image of {told} in split {split} can be used ({plain(f'{first.path}: {first.reason}')}): repair "
            "them, or remove the label"
        )
