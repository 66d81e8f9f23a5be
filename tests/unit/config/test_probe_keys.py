# SPDX-License-Identifier: Apache-2.0
"""The keys that a recipe with a linear probe may have, and those that it may not."""

from pathlib import Path

import pytest

from tests.unit.toys import write_recipe
from training.common.errors import UserError
from training.config.recipe import parse_recipe

RATES = [0.01, 1.0, 30.0]


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A probe of a model that nobody looks for: only the keys are read."""
    return write_recipe(
        tmp_path / "tiny.yaml",
        dataset=tmp_path / "dishes",
        model=tmp_path / "model",
        model_config=None,
        learning_rate=None,
        tune="linear_probe",
        num_train_epochs=3,
        probe_learning_rates=RATES,
    )


def refused(recipe: Path, *words: str) -> str:
    with pytest.raises(UserError) as error:
        parse_recipe([str(recipe), *words])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "learning_rate 1e-3", "weight_decay 0.05", "max_grad_norm 1", "optim adamw_torch",
        "adam_beta2 0.99", "probe_epochs 3", "auto_augment randaugment", "color_jitter 0.3",
        "random_erasing 0.2", "mixup 0.8", "cutmix 1.0", "drop_path 0.1", "layer_decay 0.7",
        "ema_decay 0.99", "gradient_checkpointing true", "reduced_decoding strict",
        "train_short_side 256", "horizontal_flip 0", "mix_probability 0.5",
        "randaugment_magnitude 3",
    ],
)  # fmt: skip
def test_what_cannot_act_is_refused_by_name(recipe, words):
    key, value = words.split()
    assert f"tune linear_probe has no use for {key}:" in refused(recipe, f"--{key}", value)


def test_all_of_them_in_one_line(recipe):
    assert "no use for crop_scale:" in refused(recipe, "--crop_scale", "0.5", "1")
    message = refused(recipe, "--learning_rate", "1", "--mixup", "0.8", "--max_grad_norm", "1")
    assert "no use for max_grad_norm, learning_rate, mixup:" in message


@pytest.mark.parametrize(
    "words",
    [
        "weight_decay 0", "max_grad_norm 0", "optim sgd", "label_smoothing_factor 0.1",
        "warmup_steps 3", "lr_scheduler_type linear", "loss generalized_cross_entropy",
        "head_init_scale 0", "early_stopping_patience 3", "mixup 0",
    ],
)  # fmt: skip
def test_what_acts_or_changes_nothing_is_taken(recipe, words):
    key, *values = words.split()
    parse_recipe([str(recipe), f"--{key}", *values])


def test_a_probe_of_random_weights_is_refused(recipe):
    for tune in ("linear_probe", "probe_then_full"):
        assert "give a model to start from" in refused(recipe, "--model", "null", "--tune", tune)


def test_keys_of_a_probe_without_one_are_refused(recipe):
    message = refused(recipe, "--tune", "full")
    assert (
        "probe_learning_rates with tune full does nothing: it is for tune linear_probe" in message
    )


@pytest.mark.parametrize(
    "rates", [["0"], ["-1"], ["nan"], ["inf"], ["1e300"], ["0.1", "0.1"], ["lots"]]
)
def test_impossible_rates(recipe, rates):
    assert "probe_learning_rates" in refused(recipe, "--probe_learning_rates", *rates)
