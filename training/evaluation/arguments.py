"""The recipe's keys about what is measured of a trained network before it is scored."""

from __future__ import annotations

from dataclasses import dataclass

from training.common.arguments import check_ranges, key


@dataclass(frozen=True)
class TrustArguments:
    """The recipe's keys about how sure the released model says it is."""

    calibrate: bool = key(
        True,
        "divide the scores by one temperature, so that they mean what they say (arXiv:1706.04599)",
    )

    not_food: bool = key(
        False,
        "fit what tells pictures without food: a forward pass over up to 20,000 training images, some MB",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
