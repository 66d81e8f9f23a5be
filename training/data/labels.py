"""Number the labels of all splits by their names: one list, whatever each split called them by number."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, concatenate_datasets

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.found import Found, LeftOut, names, relative
from training.data.splits import image_paths


@dataclass(frozen=True)
class Labelled:
    """Splits with labels numbered by one list of names, and the rows without a usable label."""

    names: list[str]
    splits: dict[str, Dataset]  # columns `image` and `label`, a ClassLabel of `names`
    faults: dict[str, list[LeftOut]]  # by split
    notes: tuple[str, ...]


def name_labels(found: Found, used: list[str], args: DataArguments) -> Labelled:
    """Number the labels of the splits `used` by name; the first of them says which labels there are.

    The order is that of the first split's ClassLabel, or of a list that comes with the data set
    or `label_names`, else sorted; numbers without names are in the order of their value.

    Args:
        used: names of splits; the first is the one that is trained on.

    Raises:
        UserError: a split has a label that the first does not have, numbers that only some splits have
            names for, or `label_names` that do not fit.
    """
    given = args.label_names
    kinds = {_kind(piece) for split in used for piece in found.splits[split] if _has_label(piece)}
    if {"number", "name"} <= kinds and given is None:
        raise UserError(
            f"{names(used, 5)} of {args.dataset}: some splits number their labels and some name them; give "
            "the names of the numbers with label_names"
        )
    read = {split: [_texts(piece, given, args) for piece in found.splits[split]] for split in used}
    order = _order(found, read, used, given)
    all_names, unused = _in_first(order, read, used)
    splits, faults = {}, {}
    for split in used:
        splits[split], faults[split] = _number(found, split, read[split], all_names)
    return Labelled(all_names, splits, faults, _notes(kinds, given, all_names, unused))


def is_labelled(pieces: Iterable[Dataset]) -> bool:
    """Say whether any row of a split has a label."""
    return any(_has_label(piece) for piece in pieces)


# ---- what a cell means --------------------------------------------------------------------------

# A row's label in words, or None and why it has none that can be used.
Text = tuple[str | None, str]


def text_of(value: Any, own: list[str] | None, given: list[str] | None) -> Text:
    """Say what a cell's label is called; None and the reason where it is none.

    Args:
        value: the cell.
        own: names of the column's ClassLabel; None where it has none.
        given: the key label_names; None where it was not given.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, "has no label"
    if isinstance(value, bool):
        return str(value).lower(), ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return _text_of_number(value, own, given)
    if not isinstance(value, str):
        kind = "a list" if isinstance(value, (list, tuple)) else f"a {type(value).__name__}"
        return None, f"has {kind} as its label: {str(value)[:60]}"
    text = unicodedata.normalize("NFC", value.strip())
    if given is not None and text.isascii() and text.isdigit():
        return _text_of_number(int(text), None, given)
    return (text, "") if text else (None, "has no label")


def _text_of_number(number: int, own: list[str] | None, given: list[str] | None) -> Text:
    if number == -1:  # what `datasets` writes where a label is secret
        return None, "has no label"
    known = own if own is not None else given
    if known is None:
        return (str(number), "") if number >= 0 else (None, f"has an impossible label: {number}")
    if not 0 <= number < len(known):
        return None, f"has a label without a name: {number} of {len(known)}"
    text = unicodedata.normalize("NFC", known[number].strip())
    return (text, "") if text else (None, f"has a label with an empty name: {number}")


def _texts(piece: Dataset, given: list[str] | None, args: DataArguments) -> list[Text]:
    feature = piece.features["label"]
    own = feature.names if isinstance(feature, ClassLabel) else None
    if own is not None and given is not None:
        raise UserError(
            f"label_names is given and {args.dataset} has names of its own ({names(own)}): leave it out"
        )
    known: dict[Any, Text] = {}
    texts = []
    for value in piece["label"][:]:
        key = value if isinstance(value, (str, int, bool, float)) else None
        if key is None or (type(key), key) not in known:
            text = text_of(value, own, given)
            if key is None:
                texts.append(text)
                continue
            known[type(key), key] = text
        texts.append(known[type(key), key])
    return texts


def _kind(piece: Dataset) -> str:
    """Say whether labels are given by number or by name."""
    feature = piece.features["label"]
    dtype = getattr(feature, "dtype", "")
    is_number = not isinstance(feature, ClassLabel) and ("int" in dtype or "float" in dtype)
    return "number" if is_number else "name"


def _has_label(piece: Dataset) -> bool:
    feature = piece.features["label"]
    own = feature.names if isinstance(feature, ClassLabel) else None
    return any(text_of(value, own, None)[1] != "has no label" for value in piece["label"][:])


# ---- one list of names --------------------------------------------------------------------------


def _order(
    found: Found, read: dict[str, list[list[Text]]], used: list[str], given: list[str] | None
) -> list[str]:
    """List the names of all splits: those that the first split knows in the order of its ids, then others."""
    pieces = found.splits[used[0]]
    present = {text for texts in read[used[0]] for text, _ in texts if text}
    order = list(given or ())
    if found.label_order is not None and present <= set(found.label_order):
        order = list(found.label_order)
    for piece in pieces:
        if isinstance(piece.features["label"], ClassLabel):
            own = piece.features["label"].names
            order += [unicodedata.normalize("NFC", name.strip()) for name in own]
    by_value = given is None and all(
        _kind(piece) == "number" and _is_int(piece) for piece in pieces
    )
    order += sorted(present - set(order), key=int if by_value else None)
    everywhere = {text for each in read.values() for texts in each for text, _ in texts if text}
    order = [*order, *sorted(everywhere - set(order))]
    broken = [name for name in order if any(unicodedata.category(c)[0:2] == "Cc" for c in name)]
    if broken:
        raise UserError(
            f"label {broken[0]!r} holds a line break or another control character: rename it"
        )
    return list(dict.fromkeys(order))  # two spellings of one name are one label


def _is_int(piece: Dataset) -> bool:
    return all(
        value is None or isinstance(value, int) or value.is_integer() for value in piece["label"][:]
    )


def _in_first(
    order: list[str], read: dict[str, list[list[Text]]], used: list[str]
) -> tuple[list[str], list[str]]:
    """Keep the names that the first split has images of; return them, and names without an image.

    Raises:
        UserError: another split has images of a label that the first does not have.
    """
    present = {
        split: {text for texts in pieces for text, _ in texts if text}
        for split, pieces in read.items()
    }
    first = used[0]
    for split in used[1:]:
        unseen = [name for name in order if name in present[split] - present[first]]
        if unseen:
            only = [name for name in order if name in present[first] - present[split]]
            hint = f"; only {first} has {names(only, 5)}" if only else ""
            raise UserError(
                f"{first} and {split} have different labels: {first} has no image of {names(unseen, 5)}{hint}"
            )
    kept = [name for name in order if name in present[first]]
    return kept, [name for name in order if name not in present[first]]


def _number(
    found: Found, split: str, read: list[list[Text]], all_names: list[str]
) -> tuple[Dataset, list[LeftOut]]:
    """Write the ids of `all_names` into the rows of a split; leave out the rows without a label."""
    ids = {name: i for i, name in enumerate(all_names)}
    pieces, faults, row = [], [], 0
    for piece, texts in zip(found.splits[split], read, strict=True):
        bad = [i for i, (text, _) in enumerate(texts) if text is None]
        if bad:
            for i, path in zip(bad, image_paths(piece.select(bad)), strict=True):
                where = relative(path, found.root)
                name = (
                    f"{where} (row {row + i} of {split})" if where else f"row {row + i} of {split}"
                )
                faults.append(LeftOut(name, "row", texts[i][1]))
        row += len(piece)
        feature = piece.features["label"]
        if bad or not isinstance(feature, ClassLabel) or feature.names != all_names:
            numbers = [ids[text] if text is not None else -1 for text, _ in texts]
            piece = piece.remove_columns("label").add_column(
                "label", numbers, feature=ClassLabel(names=all_names)
            )
            if bad:
                good = sorted(set(range(len(piece))) - set(bad))
                piece = piece.select(good)
        pieces.append(piece)
    whole = pieces[0] if len(pieces) == 1 else concatenate_datasets(pieces)
    return whole, faults


def _notes(
    kinds: set[str], given: list[str] | None, all_names: list[str], unused: list[str]
) -> tuple[str, ...]:
    notes = []
    if kinds == {"number"} and given is None:
        notes.append(
            f"labels are numbers without names and stay so ({names(all_names, 5)}): give names with label_names"
        )
    if unused:
        notes.append(
            f"{len(unused):,} of {len(unused) + len(all_names):,} labels that the data set names have no image "
            f"to train on and are left out: {names(unused, 5)}"
        )
    return tuple(notes)
