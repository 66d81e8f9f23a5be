"""Scores of images that nothing was learned from, the only ones that a temperature or threshold may see.

selection.npz in the run's folder holds them as the finished model gives them: logits float32
(num_images, num_classes), labels int64, content (SHA-256 of each image's bytes) and source.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SELECTION, OUT_OF_FOLD = "selection", "out of fold"  # where the scores come from


@dataclass(frozen=True)
class HeldOut:
    """Logits and labels of images that the scoring head has not learned from."""

    logits: np.ndarray  # float32 (num_images, num_classes)
    labels: np.ndarray  # class ids, int64 (num_images,)
    content: np.ndarray  # SHA-256 of each image's encoded bytes, texts (num_images,)
    # "selection": the slice that chose the checkpoint, scored by the finished model; "out of fold": of a
    # cross-validation, where the finished head has learned from every image.
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, content: Collection[str]) -> HeldOut:
        """Leave out the images whose bytes are among these: what is reported must not be fitted on."""
        kept = ~np.isin(self.content, list(content))
        return dataclasses.replace(
            self, logits=self.logits[kept], labels=self.labels[kept], content=self.content[kept]
        )

    def divided(self, temperature: float) -> HeldOut:
        """Divide the logits by a temperature, as the folded head does."""
        return dataclasses.replace(self, logits=(self.logits / temperature).astype(np.float32))

    def save(self, path: Path) -> None:
        """Write selection.npz, whole or not at all; nothing in it is pickled."""
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.savez_compressed(
                file,
                logits=self.logits,
                labels=self.labels,
                content=np.asarray(self.content, dtype="U64"),
                source=np.asarray(self.source),
            )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> HeldOut:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["logits"], file["labels"], file["content"], str(file["source"]))
