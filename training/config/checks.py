"""Check what one class of arguments cannot: keys of a recipe that do not fit each other."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.common.arguments import default_of, keys_of
from training.common.errors import UserError
from training.engine.arguments import (
    ADAPTERS,
    HEAD_ALONE,
    TUNINGS,
    ExtensionArguments,
    MethodArguments,
)
from training.engine.training_arguments import FineTuningArguments
from training.input.arguments import Augmentation

# Keys of what a linear probe does not do, refused if a recipe names them, with the values that are
# accepted because they say the same. Keys that are refused by their value alone: see `_off_values`.
_NAMED: dict[str, tuple[Any, ...]] = {
    "weight_decay": (0,),
    "max_grad_norm": (0,),
    "optim": ("sgd",),
    **dict.fromkeys(("crop_scale", "horizontal_flip", "gradient_checkpointing_kwargs"), ()),
    **dict.fromkeys(("mix_probability", "mix_switch_probability", "mix_off_epoch"), ()),
    **dict.fromkeys(("randaugment_num_ops", "randaugment_magnitude"), ()),
    "min_steps": (0,),
    **dict.fromkeys(("learning_rate", "probe_epochs", "optim_args", "optim_target_modules"), ()),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_epsilon", "neftune_noise_alpha"), ()),
}

_ADAPTING = tuple(name for name, each in TUNINGS.items() if each.trains == ADAPTERS)
_PROBING = tuple(name for name, each in TUNINGS.items() if each.probes)

# Keys of some methods -> the methods that they are for.
METHOD_KEYS: dict[str, tuple[str, ...]] = {
    **{name: _ADAPTING for name in keys_of(MethodArguments) if name.startswith("lora_")},
    "probe_learning_rates": _PROBING,
    "probe_solver": _PROBING,
    # A probe alone names it with all else that it has no use for.
    "probe_epochs": _PROBING,
}


def check_mixing(augmentation: Augmentation, args: FineTuningArguments) -> None:
    """Refuse mixing with an odd batch per device, or with an end after the last epoch.

    Neighbours in a batch are mixed, so that both images of a pair must be in one device's batch.

    Raises:
        UserError: the batch of one device is odd, `mix_off_epoch` is after the last epoch, or
            `min_steps` may add epochs.
    """
    if not augmentation.mixes(epoch=0):
        return
    off, epochs = augmentation.mix_off_epoch, args.num_train_epochs
    if off and off >= epochs and args.max_steps < 1:
        raise UserError(
            f"mix_off_epoch is {off} and num_train_epochs {epochs:g}: mixing would never be off; give "
            "an epoch before the last, or 0 to mix to the end"
        )
    if off and args.min_steps and args.max_steps < 1:
        raise UserError(
            f"mix_off_epoch is {off} and min_steps {args.min_steps}, which may add epochs: give one of the "
            "two, or max_steps"
        )
    if args.per_device_train_batch_size % 2:
        raise UserError(
            f"per_device_train_batch_size is {args.per_device_train_batch_size}: mixup and cutmix mix "
            "pairs of images, give an even number"
        )


def check_method(values: dict[str, Any], named: set[str]) -> None:
    """Refuse keys that do nothing with the recipe's `tune`; a linear probe's all in one line.

    Args:
        values: every key of this project with its value, and those of TrainingArguments in `named`.
        named: the keys that the recipe and the command line give.

    Raises:
        UserError: there is such a key, or weights that stay as they are would be random.
    """
    tune, tuning = values["tune"], TUNINGS[values["tune"]]
    if tuning.freezes and values["model"] is None:
        raise UserError(
            f"tune {tune} and model is null: the weights that it leaves as they are would be random; "
            "give a model to start from, or tune full"
        )
    _refuse_keys_of_others(tune, named)
    for key in ("probe_learning_rates", "probe_epochs"):
        if key in named and values["probe_solver"] == "logistic_regression":
            raise UserError(
                f"{key} with probe_solver logistic_regression does nothing: it is for probe_solver sgd; leave "
                "one of the two out"
            )
    if tuning.trains != HEAD_ALONE:
        return
    useless = [key for key, same in _NAMED.items() if key in named and values[key] not in same]
    useless += [key for key, off in _off_values().items() if values[key] != off]
    if useless:
        raise UserError(
            f"tune {tune} has no use for {', '.join(useless)}: heads learn on frozen features of "
            "the images as evaluation sees them, by SGD without weight decay or clipping, at each of "
            "probe_learning_rates, for num_train_epochs; leave out what it has no use for, or start "
            "from the recipe linear_probe"
        )


def _off_values() -> dict[str, Any]:
    """Map what a probe never does to the values that switch it off: augmentation, extensions, tricks."""
    off = {
        each.name: default_of(each)
        for kind in (Augmentation, ExtensionArguments)
        for each in dataclasses.fields(kind)
        if each.name not in _NAMED
    }
    return {**off, "gradient_checkpointing": False, "train_short_side": None}


def _refuse_keys_of_others(tune: str, named: set[str]) -> None:
    for key, users in METHOD_KEYS.items():
        if key in named and tune not in users:
            # What a probe alone has no use for is in METHOD_KEYS to be named with the rest, below.
            real = [
                each for each in users if key not in _NAMED or TUNINGS[each].trains != HEAD_ALONE
            ]
            raise UserError(
                f"{key} with tune {tune} does nothing: it is for tune {' or '.join(real)}; leave it out"
            )
