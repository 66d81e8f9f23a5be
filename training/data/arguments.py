"""The recipe's keys about images: which there are, and which part of them is used for what."""

from __future__ import annotations

import dataclasses
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from training.common.arguments import check_ranges, default_of, key
from training.common.errors import UserError

# Keys that say which images there are and what they are called.
WHICH_IMAGES = (
    "image_column",
    "label_column",
    "label_names",
    "train_split",
    "selection_split",
    "test_split",
    "selection_fraction",
    "test_fraction",
    "split_seed",
    "dataset_revision",
)


@dataclass
class DataArguments:
    """The recipe's keys about which images are read, and which of them train, select and test."""

    dataset: str = key(
        "ethz/food101",
        "Hub id, folder, table, archive, glob, or `sample`, drawn dishes",
        usual=True,
    )
    dataset_revision: str | None = key(None, "commit, tag or branch")
    image_column: str = key("image", "column with the images")
    label_column: str = key("label", "column with the class labels")
    train_split: str = key("train", "split to train and select on")
    selection_split: str | None = key(
        None, "split that selects (null: `validation` if it is not the test, else a slice of train)"
    )
    test_split: str | None = key(
        None,
        "split to report on, scored once (null: `test`, else `validation`, else a part of train)",
    )
    selection_fraction: float | None = key(
        None,
        "share of the train split that selects (null: 0.05; 0.1 below 5,000 images, 0.2 below 500)",
        above=0,
        below=1,
        give="a share between 0 and 1",
        usual=True,
    )
    test_fraction: float | None = key(
        None,
        "share of the train split that tests if none does (null: 0.2)",
        above=0,
        below=1,
        give="a share between 0 and 1",
        usual=True,
    )
    split_seed: int = key(
        0, "seed of what is cut from the train split", at_least=0, at_most=2**32 - 1
    )
    label_names: list[str] | None = key(
        None, "names of labels that are numbers: a list, or one file with a name a line"
    )
    undecodable_images: str = key(
        "stop",
        "what cannot be used: stop before the first step, or skip and count",
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
        self.label_names = read_label_names(self.label_names)
        if self.selection_fraction and self.test_fraction:
            if self.selection_fraction + self.test_fraction >= 1:
                raise UserError(
                    f"selection_fraction {self.selection_fraction:g} and test_fraction "
                    f"{self.test_fraction:g} leave nothing to train on: give smaller shares"
                )

    def is_default(self, name: str) -> bool:
        """Say whether a key has its default, so that another value may be found instead."""
        field = next(each for each in dataclasses.fields(self) if each.name == name)
        return getattr(self, name) == default_of(field)


def read_label_names(given: list[str] | None) -> list[str] | None:
    """Read the key label_names: a list, or one file with a name a line; None where it is not given.

    Raises:
        UserError: a name is there twice or is empty, or the file cannot be read.
    """
    if given is None:
        return None
    if len(given) == 1:
        path = Path(given[0]).expanduser()
        try:
            given = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise UserError(
                f"label_names {given[0]} cannot be read ({reason}): give a list of names, or a UTF-8 file with "
                "one a line"
            ) from error
    each = [unicodedata.normalize("NFC", name.strip()) for name in given]
    twice = sorted({name for name in each if each.count(name) > 1 or not name})
    if twice:
        what = f"{twice[0]} twice" if twice[0] else "an empty name"
        raise UserError(f"label_names has {what}: give each number a name of its own")
    return each
