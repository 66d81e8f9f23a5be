"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from training.common.errors import UserError
from training.evaluation.predictions import read_predictions

# Answers may differ between machines where the two best labels are this close.
TIE = 1e-3


def rescore(folder: Path, source: Any, split: Any, num_images: int) -> str:
    """Score evenly spread test images again and compare with predictions.csv.

    Raises:
        UserError: an answer differs where the two best labels are not a near tie.
    """
    from training.evaluation.scoring import score
    from training.input.eval_images import EvalImages
    from training.model.network import label_names_of, load_network

    positions = np.linspace(0, len(split) - 1, min(num_images, len(split)), dtype=int)
    positions = sorted(set(positions.tolist()))
    sample = split.dataset.select(positions)
    network = load_network(folder)
    names = label_names_of(network.model.config)
    images = EvalImages(sample, network.preprocessing)  # so few are not worth a cache
    logits = score(network, images, batch_size=32, num_workers=0)
    recorded = [row["predicted"] for row in read_predictions(folder)]
    labels = [names[i] for i in sample["label"]]
    answers = [names[i] for i in logits.argmax(1)]
    margins = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0]
    different = [
        (position, recorded[position], answer)
        for position, answer, margin in zip(positions, answers, margins, strict=True)
        if recorded[position] != answer and margin > TIE
    ]
    if different:
        position, before, after = different[0]
        raise UserError(
            f"{len(different)} of {len(positions)} test images get another answer from the downloaded "
            f"files (image {position}: {before} on the card, {after} now): do not use this revision"
        )
    right = sum(a == b for a, b in zip(answers, labels, strict=True))
    expected = sum(recorded[p] == b for p, b in zip(positions, labels, strict=True))
    return (
        f"{len(positions)} of {len(split)} test images scored again from the downloaded files: "
        f"{right} right, {expected} by the card's record"
    )
