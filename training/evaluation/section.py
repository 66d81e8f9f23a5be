"""What a part of evaluation.json is made from, and what such a part looks like to `report`.

A new part is a class in a file of its own, and one more line in `report.SECTIONS`. The card shows it
if `model_card.sections.blocks` has a block of the same key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from training.model.network import Network


@dataclass(frozen=True)
class Scored:
    """The answers of a saved model to the test split, and what else a section may need."""

    logits: np.ndarray  # float32 (num_images, num_classes), test split, in its order
    labels: np.ndarray  # class ids, (num_images,)
    label_names: list[str]  # in the order of the class ids
    # Whose answers they are, with its config's block; None: only the logits are known.
    network: Network | None
    # From the food of the training images, float64 (num_images,); None: the model has no such measure.
    distances: np.ndarray | None = None


class Section(Protocol):
    """One part of evaluation.json beside the metrics."""

    key: str  # its key in evaluation.json

    def measure(self, scored: Scored) -> Any:
        """Return the JSON value of the part."""
        ...
