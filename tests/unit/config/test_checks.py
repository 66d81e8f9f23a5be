# SPDX-License-Identifier: Apache-2.0
"""What is refused because two keys do not fit each other, or a key does nothing with the method."""

import dataclasses
from pathlib import Path

import pytest

from tests.unit.toys import write_recipe
from training.common.arguments import default_of
from training.common.errors import UserError
from training.config.checks import check_method
from training.config.keys import default_values
from training.config.recipe import known_keys, parse_recipe
from training.engine.arguments import METHODS, ExtensionArguments
from training.input.arguments import Augmentation


def test_mixing_that_would_never_end_is_refused(parse, refused):
    text = "mixup: 0.8\nmix_off_epoch: 3\n"
    said = refused(text, "--num_train_epochs", "3")
    assert said.startswith("mix_off_epoch is 3 and num_train_epochs 3: mixing would never be off")
    assert parse(text, "--num_train_epochs", "4").augmentation.mix_off_epoch == 3
    for words in (["--mixup", "0"], ["--mix_off_epoch", "0"], ["--max_steps", "1"]):
        parse(text, "--num_train_epochs", "3", *words)


def test_an_end_of_mixing_that_depends_on_the_number_of_images_is_refused(parse, refused):
    text = "cutmix: 1.0\nmix_off_epoch: 2\nmin_steps: 470\n"
    assert refused(text).startswith("mix_off_epoch is 2 and min_steps 470, which may add epochs")
    for words in (["--min_steps", "0"], ["--mix_off_epoch", "0"], ["--max_steps", "470"]):
        parse(text, *words)


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_an_odd_batch_cannot_be_mixed(parse, refused, key):
    words = ["--total_train_batch_size=15", "--per_device_train_batch_size=5"]
    message = refused(f"{key}: 0.8", *words)
    assert message.startswith("per_device_train_batch_size is 5: mixup and cutmix mix pairs")
    parse(f"{key}: 0.8\nmix_probability: 0", *words)
    parse("random_erasing: 0.5", *words)


# ---- keys that the method has no use for --------------------------------------------------------


def check(tune: str, **values: object) -> None:
    """Check a recipe that names `values` and has the defaults beside them."""
    network = {"model": "user/vit"} if tune != "full" else {}
    check_method({**default_values(), **network, "tune": tune, **values}, {"tune", *values})


def said_of(tune: str, **values: object) -> str:
    with pytest.raises(UserError) as error:
        check(tune, **values)
    return str(error.value)


@pytest.mark.parametrize("tune", METHODS)
def test_a_method_with_the_defaults_is_fine(tune):
    check(tune)


@pytest.mark.parametrize("tune", [tune for tune in METHODS if tune != "full"])
def test_weights_that_stay_must_not_be_random(tune):
    assert said_of(tune, model=None) == (
        f"tune {tune} and model is null: the weights that it leaves as they are would be random; "
        "give a model to start from, or tune full"
    )


@pytest.mark.parametrize(
    ("key", "value", "users"),
    [
        ("lora_rank", 8, ["lora", "probe_then_lora"]),
        ("lora_target_modules", ["fc1"], ["lora", "probe_then_lora"]),
        ("probe_learning_rates", [0.1], ["linear_probe", "probe_then_full", "probe_then_lora"]),
        ("probe_epochs", 3.0, ["probe_then_full", "probe_then_lora"]),
        ("probe_solver", "sgd", ["linear_probe", "probe_then_full", "probe_then_lora"]),
    ],
)
def test_a_key_of_another_method_is_refused(key, value, users):
    for tune in METHODS:
        if tune in users:
            check(tune, **{key: value})
        elif (key, tune) == ("probe_epochs", "linear_probe"):
            assert "has no use for probe_epochs:" in said_of(tune, **{key: value})
        else:
            assert said_of(tune, **{key: value}) == (
                f"{key} with tune {tune} does nothing: it is for tune {' or '.join(users)}; leave it out"
            )


@pytest.mark.parametrize(
    ("tune", "key", "value"),
    [
        ("linear_probe", "probe_learning_rates", [0.1]),
        ("probe_then_full", "probe_learning_rates", [0.1]),
        ("probe_then_full", "probe_epochs", 3.0),
        ("probe_then_lora", "probe_epochs", 3.0),
    ],
)
def test_keys_of_sgd_are_refused_where_logistic_regression_is_asked_for(tune, key, value):
    check(tune, **{key: value, "probe_solver": "sgd"})
    assert said_of(tune, **{key: value, "probe_solver": "logistic_regression"}) == (
        f"{key} with probe_solver logistic_regression does nothing: it is for probe_solver sgd; leave one of "
        "the two out"
    )


def test_a_probe_names_all_that_it_has_no_use_for_in_one_line():
    said = said_of("linear_probe", weight_decay=0.1, mixup=0.8, drop_path=0.1, train_short_side=64)
    assert said.startswith(
        "tune linear_probe has no use for weight_decay, mixup, drop_path, train_short_side: heads learn"
    )
    assert "\n" not in said


def test_a_probe_accepts_a_key_that_says_what_it_does_anyway():
    check("linear_probe", weight_decay=0, max_grad_norm=0, optim="sgd", mixup=0.0, ema_decay=None)


def test_a_probe_refuses_every_key_of_augmentation_and_extensions():
    for kind in (Augmentation, ExtensionArguments):
        for field in dataclasses.fields(kind):
            value = default_of(field)
            other = "other" if isinstance(value, str) else [0.5, 1.0] if value == [0.08, 1] else 7
            assert f"no use for {field.name}:" in said_of("linear_probe", **{field.name: other})


def test_what_is_refused_is_a_key():
    """A renamed key would be refused no more, without a word."""
    from training.config.checks import _NAMED, _off_values

    assert {*_NAMED, *_off_values()} <= known_keys()


# ---- the same in a recipe and on its command line ------------------------------------------------


@pytest.fixture
def probe(tmp_path) -> Path:
    """A probe of a model that nobody looks for: only the keys are read."""
    return write_recipe(
        tmp_path / "tiny.yaml",
        dataset=tmp_path / "dishes",
        model=tmp_path / "model",
        model_config=None,
        learning_rate=None,
        tune="linear_probe",
        num_train_epochs=3,
        probe_learning_rates=[0.01, 1.0],
    )


def said_to(recipe: Path, *words: str) -> str:
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
def test_what_cannot_act_is_refused_by_name(probe, words):
    key, value = words.split()
    assert f"tune linear_probe has no use for {key}:" in said_to(probe, f"--{key}", value)


def test_all_of_them_in_one_line(probe):
    assert "no use for crop_scale:" in said_to(probe, "--crop_scale", "0.5", "1")
    message = said_to(probe, "--learning_rate", "1", "--mixup", "0.8", "--max_grad_norm", "1")
    assert "no use for max_grad_norm, learning_rate, mixup:" in message


@pytest.mark.parametrize(
    "words",
    [
        "weight_decay 0", "max_grad_norm 0", "optim sgd", "label_smoothing_factor 0.1",
        "warmup_steps 3", "lr_scheduler_type linear", "loss generalized_cross_entropy",
        "head_init_scale 0", "early_stopping_patience 3", "mixup 0",
    ],
)  # fmt: skip
def test_what_acts_or_changes_nothing_is_taken(probe, words):
    key, *values = words.split()
    parse_recipe([str(probe), f"--{key}", *values])


def test_null_names_no_key(parse, refused):
    assert parse("lora_rank: null").method.tune == "full"
    said = refused("lora_rank: null", "--lora_dropout=0.1")
    assert said.startswith("lora_dropout with tune full does nothing")
