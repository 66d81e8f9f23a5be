"""The one block of ours in a model's config.json, under our own name, so that transformers keeps it.

    "food_classification": {"format": 1, "names": {"en": {"hot_dog": "Hot dog"}, ...}, ...}

Whoever has something to say about a model that its pipeline must know calls `merge_block`: on the config
of a network before it is saved, or on the JSON of a file that is written again. What a key means stands
in `KEYS`: a new one is a line there. A network that is trained anew starts without a block, whatever its
weights came with (`build_network`). The uploaded pipeline reads the block by `own_block`.
"""

from __future__ import annotations

from typing import Any

from inference.food_answers import BLOCK, BLOCK_FORMAT, own_block
from training.common.errors import UserError

# Key -> what its value is.
KEYS = {
    "names": "language -> label -> name; a label that a language lacks is shown as it reads",
    "names_from": "language -> where its names come from, see `training.model.names`",
    "temperature": "what the scores were divided by, in the head's weights; absent: by nothing",
    "held_out": "n images and source of the scores that temperature, thresholds and sets come from",
    "thresholds": "accuracy of what is answered -> the least probability of an answer; null: none keeps it",
    "not_food": "file, score, head and thresholds that tell pictures without food, see "
    "`inference.food_distance`; absent: the model does not tell them",
    "sets": "how often a set holds the right label -> the least probability of a label in it",
}


def read_block(config: Any) -> dict[str, Any]:
    """Copy the block of a config of transformers, or of a parsed config.json; {} where there is none.

    Raises:
        UserError: it is of another format.
    """
    try:
        return dict(own_block(config))
    except ValueError as error:
        raise UserError(str(error)) from error


def merge_block(config: Any, **values: Any) -> None:
    """Set keys of the block of a config, or of a parsed config.json; the other keys of it stay.

    Args:
        config: it is changed.
        values: JSON values of `KEYS`; None takes a key out.

    Raises:
        UserError: the block that is there is of another format.
        ValueError: a key is not in `KEYS`.
    """
    if unknown := sorted(values.keys() - KEYS.keys()):
        raise ValueError(f"{', '.join(unknown)}: not in KEYS of {__name__}")
    merged = {**read_block(config), **values}
    kept = {key: value for key, value in merged.items() if value is not None and key != "format"}
    drop_block(config)
    if not kept:
        return
    block = {"format": BLOCK_FORMAT, **kept}
    if isinstance(config, dict):
        config[BLOCK] = block
    else:
        setattr(config, BLOCK, block)


def drop_block(config: Any) -> None:
    """Take the whole block out of a config, or of a parsed config.json, whatever its format."""
    if isinstance(config, dict):
        config.pop(BLOCK, None)
    elif hasattr(config, BLOCK):
        delattr(config, BLOCK)
