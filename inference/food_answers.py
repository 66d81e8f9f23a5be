# SPDX-License-Identifier: Apache-2.0
"""What the food pipeline says of an image: names, and how sure it is, when it is asked.

Uploaded beside `food_classification`.

    classify("dinner.jpg", abstain=True, coverage=0.9)
    # {"labels": [{"label": "ramen", ...}, ...],  the rows of before, at most top_k
    #  "answered": False,                         True: sure enough for the accuracy that was asked for
    #  "set": [{"label": "ramen", ...}, ...],     the dishes that cannot be ruled out, best first
    #  "not_food": None}

What was not asked for is None. The numbers that decide stand in the model's config.json and were found
on held-out images: `thresholds` by the accuracy of what is answered, `sets` by how often a set holds the
right label. What they promise, and what not, is in docs/trust.md of the project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

# Under this key config.json says what a pipeline must know of the model beside its labels:
# {"format": 1, "names": {"en": {"hot_dog": "Hot dog"}, "ko": ...}, ...}.
BLOCK, BLOCK_FORMAT = "food_classification", 1

TARGET = 0.95  # accuracy of what is answered with abstain=True
CONFIDENCE = 0.95  # with which a stored threshold keeps its accuracy

# What an answer has: `answer` and `unreadable` fill it.
EMPTY = {"labels": [], "answered": None, "set": None, "not_food": None}


@dataclass(frozen=True)
class AnswerOptions:
    """What was asked for, as the probabilities of this model that decide it; None: not asked for."""

    least_to_answer: float | None  # of the best label
    least_in_set: float | None  # of each label


def options_of(
    block: Mapping[str, Any], abstain: Any, coverage: Any, function: str
) -> AnswerOptions | None:
    """Look up in a model what `abstain` and `coverage` ask for; None where they ask for nothing.

    Args:
        block: the model's own part of config.json, see `food_classification.own_block`.
        abstain: True for `TARGET`, or an accuracy whose threshold is stored; None or False: not asked.
        coverage: how often the set shall hold the right label, if that is stored; None: not asked.
        function: what the scores are made by, "softmax", "sigmoid" or "none".

    Raises:
        ValueError: a value is none of these, or this model cannot keep it; one line with the cure.
    """
    if abstain is False:
        abstain = None
    if abstain is None and coverage is None:
        return None
    asked = "abstain" if abstain is not None else "coverage"
    if function != "softmax":
        raise ValueError(
            f"{asked} is about softmax probabilities, and function_to_apply is {function!r}: "
            "leave one of the two out"
        )
    return AnswerOptions(
        None if abstain is None else _threshold(block, abstain),
        None if coverage is None else _least_in_set(block, coverage),
    )


def answer(
    ranked: Sequence[Mapping[str, Any]],
    chances: Mapping[str, float],
    options: AnswerOptions,
    top_k: int,
) -> dict[str, Any]:
    """Decide what is said of one image.

    Args:
        ranked: a row {"label", ...} for every label of the model, best first.
        chances: probability of each label, as `probabilities` computes it.
        top_k: how many rows `labels` has; decision and set are of all labels.

    Returns:
        `EMPTY`'s keys. `set` may be empty: then not even the best label is likely enough.
    """
    found = {**EMPTY, "labels": list(ranked[:top_k])}
    if options.least_to_answer is not None:
        found["answered"] = max(chances.values()) >= options.least_to_answer
    if options.least_in_set is not None:
        inside = (row for row in ranked if chances[row["label"]] >= options.least_in_set)
        found["set"] = [dict(row) for row in inside]
    return found


def unreadable(error: str) -> dict[str, Any]:
    """Answer for an image that cannot be scored: the same keys, and `error`, one line."""
    return {**EMPTY, "labels": [], "error": error}


def probabilities(logits: np.ndarray) -> list[float]:
    """Compute the softmax of one image's logits, (num_classes,), in float64.

    As the model's evaluation did, to the last bit: the same images lie above a threshold.
    """
    row = logits.astype(np.float64)[None]
    shifted = row - row.max(1, keepdims=True)
    return np.exp(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))[0].tolist()


def readable_name(label: str) -> str:
    """Make a label readable: `baby_back_ribs` becomes `Baby back ribs`."""
    return label.replace("_", " ").strip().capitalize()


def own_block(config: Any) -> Mapping[str, Any]:
    """Find the block `BLOCK` of a config of transformers, or of a parsed config.json; {} if none.

    Raises:
        ValueError: it is of a format that this code does not know.
    """
    is_json = isinstance(config, Mapping)
    block = config.get(BLOCK) if is_json else getattr(config, BLOCK, None)
    if block is None:
        return {}
    if isinstance(block, Mapping) and block.get("format") == BLOCK_FORMAT:
        return block
    found = block.get("format") if isinstance(block, Mapping) else block
    raise ValueError(
        f"{BLOCK} in config.json has format {short(found)}, and this code reads "
        f"{BLOCK_FORMAT}: use the code that came with the model, or a newer vit-food101"
    )


def names_in(config: Any, language: str | None = None) -> Mapping[str, str]:
    """Find what a model's labels are called in a language: {"hot_dog": "핫도그", ...}.

    None is English, and {} where there is none. A label may be lacking.

    Raises:
        ValueError: the model has no names in this language; the line says in which it has.
    """
    names = own_block(config).get("names") or {}
    if language is None:
        return names.get("en", {})
    if isinstance(language, str) and language in names:
        return names[language]
    there = (
        f"give {' or '.join(sorted(names))}"
        if names
        else (
            "it has none in any; leave language out, or give it names by "
            "`food101 release RUN --output DIR --display_names FILE`"
        )
    )
    raise ValueError(f"language {short(language)}: the model has no names in it: {there}")


# ---- what is stored -----------------------------------------------------------------------------


def _threshold(block: Mapping[str, Any], abstain: Any) -> float:
    thresholds = block.get("thresholds")
    said = f"abstain={short(abstain)}"
    if not thresholds:
        raise ValueError(_nothing_stored(said, "thresholds"))
    key = stored_key(TARGET if abstain is True else abstain, thresholds)
    if key is None:
        raise ValueError(f"{said}: give True (for {TARGET}) or one of {', '.join(thresholds)}")
    if (found := thresholds[key]) is not None:
        return found
    kept = [each for each, least in thresholds.items() if least is not None]
    cure = f"give {' or '.join(kept)}" if kept else "leave abstain out"
    if (n := _num_held_out(block)) < (needed := images_needed(float(key))):
        raise ValueError(
            f"{said}: that needs at least {needed} held-out images and there were {n}: "
            f"train again with more (selection_fraction), or {cure}"
        )
    raise ValueError(
        f"{said}: no threshold keeps that on the {n} held-out images of this model: {cure}, or train "
        "a better one"
    )


def _least_in_set(block: Mapping[str, Any], coverage: Any) -> float:
    sets = block.get("sets")
    said = f"coverage={short(coverage)}"
    if not sets:
        raise ValueError(_nothing_stored(said, "sets"))
    key = stored_key(coverage, sets)
    if key is None:
        stored = sorted(sets, key=float)
        raise ValueError(
            f"{said}: give a number from {stored[0]} to {stored[-1]} in steps of 0.01; others are not "
            f"stored with this model, which had {_num_held_out(block)} held-out images"
        )
    return sets[key]


def images_needed(target: float) -> int:
    """Count the images that must all be right before an accuracy is sure enough: 59 for 0.95."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(target))


def stored_key(value: Any, keys: Mapping[str, Any]) -> str | None:
    """Find the key that a number is, whatever float it is: 0.1 + 0.8 is "0.9"; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1:
        return None
    return next((key for key in keys if abs(float(key) - float(value)) < 1e-6), None)


def _num_held_out(block: Mapping[str, Any]) -> int:
    return block.get("held_out", {}).get("n", 0)


def _nothing_stored(said: str, what: str) -> str:
    return (
        f"{said}: config.json of this model has no {what}: train it again with vit-food101, which "
        "finds them on held-out images, or leave the option out"
    )


def short(value: Any) -> str:
    """Show a value in one line of a message, cut where it is long."""
    text = " ".join(repr(value).split())  # an array's has lines
    return text if len(text) <= 60 else f"{text[:60]}..."
