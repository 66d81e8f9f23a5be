"""Random erasing as an extension: a box is drawn in the worker and zeroed on the device."""

from __future__ import annotations

import torch

from training.engine.extension import Extension
from training.engine.training_arguments import Settings
from training.input.mixing import DrawErasing, erase
from training.model.network import Network


class Erasing(Extension):
    """Zeroes a random box, the mean colour, of a share of the images (arXiv:1708.04896)."""

    key = "random_erasing"

    def __init__(self, draws: DrawErasing) -> None:
        self.draws = draws

    @classmethod
    def build(cls, network: Network, settings: Settings) -> Erasing | None:
        """Make the extension where `random_erasing` is above 0; None where it is 0."""
        probability, size = settings.augmentation.random_erasing, network.preprocessing
        return cls(DrawErasing(size.height, size.width, probability)) if probability else None

    def before_forward(self, batch: dict[str, torch.Tensor]) -> None:
        """Erase the drawn boxes, "erase_box" (batch, 4), from `pixel_values`; scored batches have none."""
        if "erase_box" in batch:
            batch["pixel_values"] = erase(batch["pixel_values"], batch["erase_box"])
