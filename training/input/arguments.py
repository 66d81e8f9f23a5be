"""The recipe's keys about augmentation and loss, each off or neutral unless the recipe says so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from training.common.errors import UserError

REDUCED_DECODING = {"off": None, "strict": 1.0, "loose": 0.7}

AUTO_AUGMENT = ("off", "randaugment", "trivialaugment")

LOSSES = ("cross_entropy", "generalized_cross_entropy")

MAX_MAGNITUDE = 30  # of RandAugment, as its paper searched and torchvision numbers

MAX_OPS = 14  # as many operations as there are

# Far beyond use, and before the arithmetic ends: NumPy's beta(1e308, 1e308) is always 0.
HIGHEST, LEAST_Q = {"color_jitter": 10, "mixup": 1000, "cutmix": 1000}, 1e-3


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image beyond resizing it; pickled to the workers.

    `crop_scale` is the area range of the random resized crop (aspect ratio 3/4 to 4/3, as in
    Inception's and torchvision's); `horizontal_flip` is a probability. `reduced_decoding` lets a
    JPEG be decoded at 1/2, 1/4 or 1/8: `strict` while the crop keeps at least the target's pixels,
    `loose` down to 0.7 of them, `off` never. The rest is described in `policies` and `mixing`.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    horizontal_flip: float = 0.5
    reduced_decoding: str = "off"
    auto_augment: str = "off"
    randaugment_num_ops: int = 2
    randaugment_magnitude: int = 9
    color_jitter: float = 0.0
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    mix_switch_probability: float = 0.5
    mix_off_epoch: int = 0

    def mixes(self, epoch: int) -> bool:
        """Whether images are mixed in this epoch, which counts from 0."""
        wanted = max(self.mixup, self.cutmix) > 0 and self.mix_probability > 0
        return wanted and not 0 < self.mix_off_epoch <= epoch

    def in_force(self) -> dict[str, Any]:
        """For run.json: crop, flip, decoding, and what else is on."""
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


@dataclass
class AugmentationArguments:
    """What is done to training images, and the loss; a part of FineTuningArguments."""

    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0],
        metadata={"help": "area range of the random resized crop (Inception's is 0.08 1.0)"},
    )
    horizontal_flip: float = field(default=0.5, metadata={"help": "probability of mirroring"})
    reduced_decoding: str = field(
        default="off",
        metadata={"help": "decode JPEGs at 1/2 to 1/8 where allowed: off strict loose"},
    )
    auto_augment: str = field(
        default="off",
        metadata={"help": "off, randaugment (arXiv:1909.13719) or trivialaugment (2103.10158)"},
    )
    randaugment_num_ops: int = field(
        default=2, metadata={"help": "operations on each image, RandAugment's N"}
    )
    randaugment_magnitude: int = field(
        default=9, metadata={"help": "their strength, RandAugment's M: 0 to 30, as torchvision's"}
    )
    color_jitter: float = field(
        default=0.0,
        metadata={"help": "brightness, contrast and saturation times 1 - x to 1 + x; 0 is off"},
    )
    random_erasing: float = field(
        default=0.0, metadata={"help": "probability of erasing a box (arXiv:1708.04896)"}
    )
    mixup: float = field(
        default=0.0, metadata={"help": "alpha of mixup's Beta (arXiv:1710.09412); 0 is off"}
    )
    cutmix: float = field(
        default=0.0, metadata={"help": "alpha of cutmix's Beta (arXiv:1905.04899); 0 is off"}
    )
    mix_probability: float = field(
        default=1.0, metadata={"help": "share of image pairs that are mixed, with mixup or cutmix"}
    )
    mix_switch_probability: float = field(
        default=0.5, metadata={"help": "share of cutmix in them, when mixup is on as well"}
    )
    mix_off_epoch: int = field(
        default=0, metadata={"help": "mix no more from this epoch on (the first is 0); 0 is never"}
    )
    loss: str = field(
        default="cross_entropy",
        metadata={"help": "or generalized_cross_entropy, for noisy labels (arXiv:1805.07836)"},
    )
    gce_q: float = field(
        default=0.7,
        metadata={"help": "its q: near 0 it is the cross-entropy, at 1 the mean absolute error"},
    )

    def check_augmentation(self) -> None:
        """Refuse impossible values by name.

        Raises:
            UserError: a value that its key cannot have.
        """
        low, high = self.crop_scale if len(self.crop_scale) == 2 else (0, 0)
        if not 0 < low <= high <= 1:
            raise UserError(
                f"crop_scale is {self.crop_scale}: give two shares of the area, as 0.08 1.0"
            )
        for key in (
            "horizontal_flip",
            "random_erasing",
            "mix_probability",
            "mix_switch_probability",
        ):
            self._check_range(key, 1, "a probability")
        for key, high in HIGHEST.items():
            self._check_range(key, high, f"a number from 0 to {high}; 0 is off")
        self._check_range(
            "randaugment_magnitude", MAX_MAGNITUDE, f"a whole number, 0 to {MAX_MAGNITUDE}"
        )
        if not LEAST_Q <= self.gce_q <= 1:
            raise UserError(f"gce_q is {self.gce_q}: give a number from {LEAST_Q} to 1")
        if not 1 <= self.randaugment_num_ops <= MAX_OPS:
            raise UserError(
                f"randaugment_num_ops is {self.randaugment_num_ops}: give 1 to {MAX_OPS}, or auto_augment off"
            )
        if self.mix_off_epoch < 0:
            raise UserError(f"mix_off_epoch is {self.mix_off_epoch}: give an epoch, or 0 for never")
        for key, known in (
            ("reduced_decoding", REDUCED_DECODING),
            ("auto_augment", AUTO_AUGMENT),
            ("loss", LOSSES),
        ):
            if getattr(self, key) not in known:
                *most, last = known
                raise UserError(
                    f"{key} is {getattr(self, key)!r}: give {', '.join(most)} or {last}"
                )

    def _check_range(self, key: str, high: float, what: str) -> None:
        value = getattr(self, key)
        if not 0 <= value <= high:  # NaN is not either
            raise UserError(f"{key} is {value}: give {what}")

    def check_pairs(self, per_device: int) -> None:
        """Neighbours are mixed, so that both must always be in the same device's batch.

        Raises:
            UserError: the batch of one device is odd and images are mixed.
        """
        if per_device % 2 and self.augmentation().mixes(epoch=0):
            raise UserError(
                f"per_device_train_batch_size is {per_device}: mixup and cutmix mix pairs of images, "
                "give an even number"
            )

    def augmentation(self) -> Augmentation:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(Augmentation)}
        return Augmentation(**values | {"crop_scale": tuple(self.crop_scale)})

    def generalized_q(self) -> float | None:
        """q where the generalised cross-entropy is trained, else None."""
        return self.gce_q if self.loss == "generalized_cross_entropy" else None
