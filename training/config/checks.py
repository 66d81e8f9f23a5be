"""TODO."""

from __future__ import annotations

from typing import Any

from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.engine.arguments import FineTuningArguments
from training.model.arguments import ModelArguments

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
