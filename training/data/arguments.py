"""TODO."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from training.common.errors import UserError


@dataclass
class DataArguments:
    """Which images, and which part of them is used for what."""

    dataset: str = field(
        default="ethz/food101",
        metadata={
            "help": "Hub id, local folder or parquet file(s), or `sample` for the drawn dishes"
        },
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "commit, tag or branch"})
    image_column: str = field(default="image", metadata={"help": "column with the images"})
    label_column: str = field(default="label", metadata={"help": "column with the class labels"})
    train_split: str = field(default="train", metadata={"help": "split to train and select on"})
    test_split: str = field(
        default="validation", metadata={"help": "split to report on, scored once, after training"}
    )
    selection_fraction: float = field(
        default=0.05,
        metadata={"help": "stratified share of the train split that selects the checkpoint"},
    )
    split_seed: int = field(default=0, metadata={"help": "seed of the selection slice"})
    undecodable_images: str = field(
        default="stop", metadata={"help": "`stop` before the first step, or `skip` and count them"}
    )
    train_short_side: int | None = field(
        default=None,
        metadata={"help": "train on images reduced to this short side, from a cache made once"},
    )
    eval_cache_gb: float = field(
        default=16.0,
        metadata={
            "help": "limit of the decoded evaluation images and a probe's features on disk; 0 keeps none"
        },
    )

    def __post_init__(self) -> None:
        if not 0 < self.selection_fraction < 1:
            raise UserError(
                f"selection_fraction is {self.selection_fraction}: give a share between 0 and 1"
            )
        if self.undecodable_images not in ("stop", "skip"):
            raise UserError(f"undecodable_images is {self.undecodable_images!r}: give stop or skip")
        if self.train_short_side is not None and self.train_short_side < 1:
            raise UserError(f"train_short_side is {self.train_short_side}: give a number of pixels")
        if not 0 <= self.eval_cache_gb < math.inf:  # NaN is neither
            raise UserError(f"eval_cache_gb is {self.eval_cache_gb}: give GB, or 0 for no cache")
