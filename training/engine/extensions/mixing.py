"""Mixup and cutmix as an extension: pairs are drawn in the worker, mixed and judged on the device."""

from __future__ import annotations

import torch

from training.engine.extension import Extension
from training.engine.loss import Criterion
from training.engine.training_arguments import Settings
from training.input.mixing import DrawMixing, mix, own_share, partners
from training.model.network import Network


class Mixing(Extension):
    """Mixes neighbouring images of a batch, and their losses in the same shares."""

    key = "mixup"

    def __init__(self, draws: DrawMixing, criterion: Criterion) -> None:
        self.draws, self.criterion = draws, criterion

    @classmethod
    def build(cls, network: Network, settings: Settings) -> Mixing | None:
        """Make the extension where mixup or cutmix is on in the first epoch; None where neither is."""
        if not settings.augmentation.mixes(epoch=0):
            return None
        size = network.preprocessing
        draws = DrawMixing(size.height, size.width, settings.augmentation)
        return cls(draws, Criterion.of(settings))

    def before_forward(self, batch: dict[str, torch.Tensor]) -> None:
        """Mix `pixel_values`; add "own_share" (batch,), what is left of each image's own label."""
        if "mix_box" not in batch:
            return
        pixels, lambdas, boxes = (batch[k] for k in ("pixel_values", "mix_lambda", "mix_box"))
        batch["pixel_values"] = mix(pixels, lambdas, boxes)
        batch["own_share"] = own_share(lambdas, boxes, pixels[0, 0].numel())

    def loss(
        self, logits: torch.Tensor, batch: dict[str, torch.Tensor], loss: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean of both labels' losses in their shares, for a batch that was mixed."""
        if "own_share" not in batch:
            return loss
        share, labels = batch["own_share"], batch["labels"]
        own = self.criterion(logits, labels, "none")
        others = self.criterion(logits, partners(labels), "none")
        return (share * own + (1 - share) * others).mean()
