"""The recipe's keys about training images; whatever changes more than crop and flip is off by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.common.arguments import check_ranges, key
from training.common.errors import UserError

# A JPEG may be decoded at a fraction of its size while the crop keeps this share of the target's
# pixels a side; None never.
REDUCED_DECODING = {"off": None, "strict": 1.0, "loose": 0.7}
AUTO_AUGMENT = ("off", "randaugment", "trivialaugment")
MAX_MAGNITUDE = 30  # of RandAugment, as its paper searched and torchvision numbers
MAX_OPS = 14  # as many operations as there are


@dataclass(frozen=True)
class Augmentation:
    """The recipe's keys about what training does to an image beyond resizing it; pickled to the workers.

    The operations of `auto_augment` are in `policies`, erasing and mixing in `mixing`.
    """

    crop_scale: list[float] = key(
        [0.08, 1.0],
        "area range of the random resized crop (aspect ratio 3/4 to 4/3, Inception's)",
        usual=True,
    )
    horizontal_flip: float = key(
        0.5, "probability of mirroring", at_least=0, at_most=1, give="a probability"
    )
    reduced_decoding: str = key(
        "off",
        "decode JPEGs at 1/2 to 1/8: strict while the crop keeps the target's pixels, loose to 0.7 of them",
        choices=tuple(REDUCED_DECODING),
    )
    auto_augment: str = key(
        "off",
        "a policy of operations (RandAugment: arXiv:1909.13719; TrivialAugment: 2103.10158)",
        choices=AUTO_AUGMENT,
        usual=True,
    )
    randaugment_num_ops: int = key(
        2,
        "operations on each image, RandAugment's N",
        at_least=1,
        at_most=MAX_OPS,
        note=", or auto_augment off",
    )
    randaugment_magnitude: int = key(
        9,
        "their strength, RandAugment's M, numbered as torchvision's",
        at_least=0,
        at_most=MAX_MAGNITUDE,
        give=f"a whole number, 0 to {MAX_MAGNITUDE}",
    )
    # The highest are far beyond use, and before the arithmetic ends: NumPy's beta(1e308, 1e308) is 0.
    color_jitter: float = key(
        0.0,
        "brightness, contrast and saturation times 1 - x to 1 + x",
        at_least=0,
        at_most=10,
        give="a number from 0 to 10; 0 is off",
    )
    random_erasing: float = key(
        0.0,
        "probability of erasing a box (arXiv:1708.04896)",
        at_least=0,
        at_most=1,
        give="a probability",
        usual=True,
    )
    mixup: float = key(
        0.0,
        "alpha of mixup's Beta distribution (arXiv:1710.09412)",
        at_least=0,
        at_most=1000,
        give="a number from 0 to 1000; 0 is off",
        usual=True,
    )
    cutmix: float = key(
        0.0,
        "alpha of cutmix's Beta distribution (arXiv:1905.04899)",
        at_least=0,
        at_most=1000,
        give="a number from 0 to 1000; 0 is off",
        usual=True,
    )
    mix_probability: float = key(
        1.0,
        "share of image pairs that are mixed, with mixup or cutmix",
        at_least=0,
        at_most=1,
        give="a probability",
    )
    mix_switch_probability: float = key(
        0.5,
        "share of cutmix in them, when mixup is on as well",
        at_least=0,
        at_most=1,
        give="a probability",
    )
    mix_off_epoch: int = key(
        0,
        "mix no more from this epoch on; the first is 0",
        at_least=0,
        give="an epoch, or 0 for never",
    )

    def __post_init__(self) -> None:
        low, high = self.crop_scale if len(self.crop_scale) == 2 else (0, 0)
        if not 0 < low <= high <= 1:
            raise UserError(
                f"crop_scale is {self.crop_scale}: give two shares of the area, as 0.08 1.0"
            )
        check_ranges(self)

    def mixes(self, epoch: int) -> bool:
        """Tell whether images are mixed in an epoch; the first is 0."""
        wanted = max(self.mixup, self.cutmix) > 0 and self.mix_probability > 0
        return wanted and not 0 < self.mix_off_epoch <= epoch

    def active_keys(self) -> dict[str, Any]:
        """Map the keys that act to their values, for run.json and the card.

        Keys: crop_scale, horizontal_flip and reduced_decoding always; of the others those that are on.
        """
        keys = ["crop_scale", "horizontal_flip", "reduced_decoding"]
        if self.auto_augment != "off":
            keys.append("auto_augment")
        if self.auto_augment == "randaugment":
            keys += ["randaugment_num_ops", "randaugment_magnitude"]
        keys += [key for key in ("color_jitter", "random_erasing") if getattr(self, key)]
        if self.mixes(epoch=0):
            keys += [key for key in ("mixup", "cutmix", "mix_off_epoch") if getattr(self, key)]
            keys.append("mix_probability")
            keys += ["mix_switch_probability"] if self.mixup and self.cutmix else []
        return {key: getattr(self, key) for key in keys}
