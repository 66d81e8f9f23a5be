"""What a block of the card looks like, and the list of them in the order in which they are shown.

A block shows one key of evaluation.json below *Results*, under a heading of its own. A new one is a
class in a file of its own, and one more line in `BLOCKS`; `training.evaluation.section` is the other
half, which measures what the block shows.
"""

from typing import Any, Protocol

from model_card.sections.classes import ByDish, MostConfused
from model_card.sections.not_food import NotFood
from model_card.sections.trust import Abstention, Calibration, Sets


class Block(Protocol):
    """A heading and what stands below it, made from the JSON value of one key."""

    key: str  # in evaluation.json
    title: str
    required: bool  # no card without it; else it is left out where the key is absent or null

    def check(self, value: Any) -> Any:
        """Return the JSON value in the type that `markdown` takes.

        Raises:
            ValueError: it cannot be true; see `model_card.checks`.
        """
        ...

    def markdown(self, value: Any, n: int) -> str:
        """Write what stands below the heading, from the checked value and the number of test images."""
        ...


BLOCKS: tuple[Block, ...] = (
    ByDish(),
    MostConfused(),
    Calibration(),
    Abstention(),
    Sets(),
    NotFood(),
)
