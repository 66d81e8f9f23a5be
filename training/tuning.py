"""The recipe's keys about which weights are trained: all, a head on frozen features, or LoRA."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.errors import UserError

if TYPE_CHECKING:
    from training.config import DataArguments, FineTuningArguments, ModelArguments

TUNE = ("full", "linear_probe", "probe_then_full", "lora")
# The grid of DINOv2's probe (arXiv:2304.07193, dinov2/eval/linear.py), for a batch of 256.
PROBE_LEARNING_RATES = (
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
)  # fmt: skip

MAX_RATE = 1e6  # far beyond use; float32 ends much further on
# What a probe does not do, with the values that say so too. The first are refused whatever is in
# force by default, if a recipe names them; the others cannot be told from their defaults.
_NAMED: dict[str, tuple[Any, ...]] = {
    "weight_decay": (0,),
    "max_grad_norm": (0,),
    "optim": ("sgd",),
    **dict.fromkeys(("crop_scale", "horizontal_flip", "gradient_checkpointing_kwargs"), ()),
    **dict.fromkeys(("mix_probability", "mix_switch_probability", "mix_off_epoch"), ()),
    **dict.fromkeys(("randaugment_num_ops", "randaugment_magnitude"), ()),
    **dict.fromkeys(("learning_rate", "probe_epochs", "optim_args", "optim_target_modules"), ()),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "neftune_noise_alpha"), ()),
}
_NEUTRAL: dict[str, Any] = {
    "auto_augment": "off",
    "color_jitter": 0,
    "random_erasing": 0,
    "mixup": 0,
    "cutmix": 0,
    "reduced_decoding": "off",
    "layer_decay": 1,
    "drop_path": 0,
    "ema_decay": None,
    "gradient_checkpointing": False,
}


@dataclass
class TuningArguments:
    """What is trained; a part of FineTuningArguments."""

    tune: str = field(
        default="full",
        metadata={
            "help": "full, linear_probe (a head on frozen features), probe_then_full (arXiv:2202.10054) "
            "or lora (arXiv:2106.09685)"
        },
    )
    probe_learning_rates: list[float] = field(
        default_factory=lambda: list(PROBE_LEARNING_RATES),
        metadata={"help": "one head each, all in one pass; the selection slice chooses (DINOv2's)"},
    )
    probe_epochs: float = field(
        default=10.0, metadata={"help": "passes over the features before probe_then_full goes on"}
    )
    lora_rank: int = field(default=16, metadata={"help": "rank of the update of each matrix"})
    lora_alpha: float = field(
        default=16.0, metadata={"help": "the update counts lora_alpha / lora_rank times"}
    )
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "dropout on the update's input, drawn by torch: process by process"},
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"],
        metadata={
            "help": "last names of the linear layers that are adapted (LoRA's: query, value); the head "
            "is trained in full"
        },
    )

    def check_tuning(self) -> None:
        """Refuse impossible values by name.

        Raises:
            UserError: a value that its key cannot have.
        """
        if self.tune not in TUNE:
            *most, last = TUNE
            raise UserError(f"tune is {self.tune!r}: give {', '.join(most)} or {last}")
        rates = self.probe_learning_rates
        if not rates or not all(0 < rate < MAX_RATE for rate in rates):  # NaN is neither
            raise UserError(
                f"probe_learning_rates is {rates}: give numbers above 0, below {MAX_RATE:,.0f}, as 0.01 0.1"
            )
        if len(set(rates)) < len(rates):
            raise UserError(f"probe_learning_rates is {rates}: give each of them once")
        if not 0 < self.probe_epochs < math.inf:
            raise UserError(f"probe_epochs is {self.probe_epochs}: give a number above 0")
        self._check_lora()

    def _check_lora(self) -> None:
        if self.lora_rank < 1:
            raise UserError(f"lora_rank is {self.lora_rank}: give at least 1 (4 to 64 is usual)")
        if not 0 < self.lora_alpha < MAX_RATE:
            raise UserError(
                f"lora_alpha is {self.lora_alpha}: give a number above 0, below {MAX_RATE:,.0f}"
            )
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"lora_dropout is {self.lora_dropout}: give 0 to below 1")
        if not self.lora_target_modules:
            raise UserError(
                "lora_target_modules is empty: give names of linear layers, as q_proj v_proj"
            )
        if self.tune == "lora" and importlib.util.find_spec("peft") is None:
            raise UserError(
                'tune is lora and peft is not installed: pip install -e ".[lora]", or make setup'
            )


def check_tuned(
    training: FineTuningArguments, data: DataArguments, model: ModelArguments, named: set[str]
) -> None:
    """Refuse keys that `tune` leaves without a use; all of them in one line.

    Args:
        named: the keys that the recipe and the command line give.

    Raises:
        UserError: there is one, or frozen weights would be random ones.
    """
    tune = training.tune
    if tune != "full" and model.model is None:
        raise UserError(
            f"tune {tune} and model is null: the weights that it leaves as they are would be random; "
            "give a model to start from, or tune full"
        )
    _refuse_keys_of_others(tune, named)
    if tune != "linear_probe":
        return
    values = vars(training) | {"train_short_side": data.train_short_side}
    useless = [key for key, same in _NAMED.items() if key in named and values[key] not in same]
    neutral = {**_NEUTRAL, "train_short_side": None}
    useless += [key for key, value in neutral.items() if values[key] != value]
    if useless:
        raise UserError(
            f"tune linear_probe has no use for {', '.join(useless)}: heads learn on frozen features of "
            "the images as evaluation sees them, by SGD without weight decay or clipping, at each of "
            "probe_learning_rates, for num_train_epochs; leave out what it has no use for, or start "
            "from the recipe linear_probe"
        )


def _refuse_keys_of_others(tune: str, named: set[str]) -> None:
    for start, users in (
        ("lora_", ("lora",)),
        ("probe_learning_rates", ("linear_probe", "probe_then_full")),
        ("probe_epochs", ("probe_then_full", "linear_probe")),
    ):
        for key in sorted(named):
            if key.startswith(start) and tune not in users:
                raise UserError(
                    f"{key} with tune {tune} does nothing: it is for tune {users[0]}; leave it out"
                )
