"""Score some test images with downloaded files, and compare with what the release says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.common.errors import UserError
from training.data.splits import Split
from training.evaluation.predictions import read_predictions
from training.evaluation.scoring import score
from training.input.eval_images import EvalImages
from training.model.network import label_names_of, load_network

# Answers may differ between machines where the two best labels are this close.
TIE = 1e-3


@dataclass(frozen=True)
class Answer:
    """One test image: its true label, the recorded prediction and the new one."""

    position: int  # in the test split
    label: str
    recorded: str  # by predictions.csv
    now: str  # by the downloaded files
    margin: float  # difference of the two highest logits, now


def rescore(folder: Path, split: Split, num_images: int) -> str:
    """Score evenly spread test images again and compare with predictions.csv.

    Args:
        folder: model and predictions.csv, as they were downloaded.
        split: the test split that predictions.csv is about.
        num_images: how many to score, at most all.

    Returns:
        A sentence with the numbers of right answers, now and by predictions.csv.

    Raises:
        UserError: an answer differs where the two best labels are not a near tie.
    """
    positions = np.linspace(0, len(split) - 1, min(num_images, len(split)), dtype=int)
    positions = sorted(set(positions.tolist()))
    sample = split.dataset.select(positions)
    network = load_network(folder)
    names = label_names_of(network.model.config)
    images = EvalImages(sample, network.preprocessing)  # so few are not worth a cache
    logits = score(network, images, batch_size=32, num_workers=0)
    margins = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0]
    recorded = read_predictions(folder)
    answers = [
        Answer(position, names[label], recorded[position]["predicted"], names[now], margin)
        for position, label, now, margin in zip(
            positions, sample["label"], logits.argmax(1), margins, strict=True
        )
    ]
    return compare_answers(answers, len(split))


def compare_answers(answers: list[Answer], num_images: int) -> str:
    """Compare answers with recorded ones, and say in a sentence how many of each are right.

    Args:
        num_images: in the whole test split.

    Raises:
        UserError: an answer differs where the two best labels are not a near tie.
    """
    different = [each for each in answers if each.recorded != each.now and each.margin > TIE]
    if different:
        first = different[0]
        raise UserError(
            f"{len(different)} of {len(answers)} test images get another answer from the downloaded "
            f"files (image {first.position}: {first.recorded} on the card, {first.now} now): do not use this revision"
        )
    right = sum(each.now == each.label for each in answers)
    expected = sum(each.recorded == each.label for each in answers)
    return (
        f"{len(answers)} of {num_images} test images scored again from the downloaded files: "
        f"{right} right, {expected} by the card's record"
    )
