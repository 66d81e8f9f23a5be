"""The recipe's keys about images: which there are, and which part of them is used for what."""

from __future__ import annotations

from dataclasses import dataclass

from training.common.arguments import check_ranges, key


@dataclass
class DataArguments:
    """The recipe's keys about which images are read, and which of them train, select and test."""

    dataset: str = key(
        "ethz/food101",
        "Hub id, local folder or parquet file(s), or `sample`, drawn dishes",
        usual=True,
    )
    dataset_revision: str | None = key(None, "commit, tag or branch")
    image_column: str = key("image", "column with the images")
    label_column: str = key("label", "column with the class labels")
    train_split: str = key("train", "split to train and select on")
    test_split: str = key("validation", "split to report on, scored once, after training")
    selection_fraction: float = key(
        0.05,
        "stratified share of the train split that selects",
        above=0,
        below=1,
        give="a share between 0 and 1",
        usual=True,
    )
    split_seed: int = key(0, "seed of the selection slice")
    undecodable_images: str = key(
        "stop",
        "stop before the first step, or skip and count them",
        choices=("stop", "skip"),
        usual=True,
    )
    train_short_side: int | None = key(
        None,
        "train on images reduced to this short side (see `food101 cache`)",
        at_least=1,
        give="a number of pixels",
        usual=True,
    )
    eval_cache_gb: float = key(
        16.0,
        "limit of decoded evaluation images and a probe's features on disk",
        at_least=0,
        give="GB, or 0 for no cache",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
