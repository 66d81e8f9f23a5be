# SPDX-License-Identifier: Apache-2.0
"""The ranges and choices of the keys about training."""

import dataclasses
import math
import sys

import pytest
from transformers import TrainingArguments

from model_card import facts
from tests.unit.toys import tiny_settings
from training.common.arguments import default_of, keys_of
from training.common.errors import UserError
from training.engine.arguments import (
    ADAPTERS,
    ALL_WEIGHTS,
    HEAD_ALONE,
    LOSSES,
    METHODS,
    TUNINGS,
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    RangedKeys,
    TrainerKeys,
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
        ("layer_decay", math.nan),
        ("drop_path", -0.1),
        ("drop_path", 1.0),
        ("drop_path", math.nan),
        ("early_stopping_patience", 0),
        ("ema_decay", 0.0),
        ("ema_decay", 1.0),
        ("ema_decay", math.nan),
        ("average_last", 1),
        ("gce_q", 0.0),
        ("gce_q", 1.5),
        ("loss", "focal"),
        ("tune", "LoRA"),
        ("lora_rank", 0),
        ("lora_alpha", 0.0),
        ("lora_alpha", math.inf),
        ("lora_alpha", math.nan),
        ("lora_dropout", 1.0),
        ("label_smoothing_factor", 1.0),
        ("num_train_epochs", -1.0),
        ("min_steps", -1),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("max_grad_norm", -1.0),
        ("per_device_eval_batch_size", 0),
        ("per_device_train_batch_size", 0),
        ("total_train_batch_size", -8),
        ("max_steps", -2),
        ("warmup_steps", -5.0),
        ("warmup_steps", math.nan),
        ("seed", -1),
        ("seed", 2**32),
        ("data_seed", 2**32),
        ("eval_strategy", "never"),
        ("save_strategy", "always"),
        ("save_total_limit", 0),
        ("dataloader_num_workers", -2),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.1),
        ("adam_epsilon", -1e-8),
        ("neftune_noise_alpha", -1.0),
        ("torch_empty_cache_steps", 0),
        ("logging_strategy", "best"),
        ("logging_steps", 0.0),
        ("eval_steps", -1.0),
        ("eval_delay", -1.0),
        ("eval_accumulation_steps", 0),
        ("save_steps", math.inf),
        ("dataloader_prefetch_factor", 0),
        ("ddp_bucket_cap_mb", 0),
        ("ddp_timeout", 0),
    ],
)
def test_impossible_values_are_named(tmp_path, key, value):
    with pytest.raises(UserError, match=f"^{key} is '?{value}'?: give "):
        tiny_settings(tmp_path, **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_decay", 1.0),
        ("drop_path", 0.0),
        ("ema_decay", None),
        ("average_last", 2),
        ("gce_q", 1.0),
        ("lora_dropout", 0.0),
        ("early_stopping_patience", 1),
        ("max_grad_norm", 0.0),
        ("seed", 2**32 - 1),
        ("data_seed", 2**32 - 1),
        ("max_steps", -1),
        ("save_total_limit", None),
        ("adam_epsilon", 0.0),
        ("logging_steps", 0.5),
    ],
)
def test_the_ends_of_the_ranges_are_taken(tmp_path, key, value):
    settings = tiny_settings(tmp_path, **{key: value})
    parts = (settings.extensions, settings.loss, settings.method, settings.training)
    assert [vars(part)[key] for part in parts if key in vars(part)] == [value]


def test_choices():
    assert [LossArguments(loss=name).loss for name in LOSSES] == [*LOSSES]
    assert [MethodArguments(tune=name).tune for name in METHODS] == [*METHODS]
    with pytest.raises(
        UserError, match="tune is 'head': give full, linear_probe, .* or probe_then_lora$"
    ):
        MethodArguments(tune="head")


def test_q_is_that_of_the_loss_that_is_trained_on():
    assert LossArguments(gce_q=0.5).generalized_q is None
    assert LossArguments("generalized_cross_entropy", 0.5).generalized_q == 0.5


def test_two_averages_exclude_each_other():
    with pytest.raises(UserError, match="average_last 3 with ema_decay 0.9: .* leave one of them"):
        ExtensionArguments(average_last=3, ema_decay=0.9)


def test_lora_needs_names_and_peft(monkeypatch):
    with pytest.raises(UserError, match="lora_target_modules is empty"):
        MethodArguments(lora_target_modules=[])
    monkeypatch.setitem(sys.modules, "peft", None)
    MethodArguments()
    MethodArguments(tune="probe_then_full")
    for tune in ("lora", "probe_then_lora"):
        with pytest.raises(UserError, match=f"tune is {tune} and peft is not installed"):
            MethodArguments(tune=tune)


@pytest.mark.parametrize(
    ("tune", "trains", "probes", "probes_first", "freezes"),
    [
        ("full", ALL_WEIGHTS, False, False, False),
        ("linear_probe", HEAD_ALONE, True, False, True),
        ("probe_then_full", ALL_WEIGHTS, True, True, True),
        ("lora", ADAPTERS, False, False, True),
        ("probe_then_lora", ADAPTERS, True, True, True),
    ],
)
def test_what_a_method_means(tune, trains, probes, probes_first, freezes):
    tuning = MethodArguments(tune=tune).tuning
    assert (tuning.trains, tuning.probes_first) == (trains, probes_first)
    assert (tuning.probes, tuning.freezes) == (probes, freezes)


def test_the_card_knows_every_method():
    """model_card imports nothing of ours, and has a table of its own."""
    ours = {tune: (each.trains, each.probes_first) for tune, each in TUNINGS.items()}
    assert ours == facts.TUNINGS and tuple(TUNINGS) == METHODS


KINDS = [LossArguments, MethodArguments, ExtensionArguments, TrainerKeys, RangedKeys]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_a_help_and_a_default_that_it_accepts(kind):
    keys = keys_of(kind)
    assert list(keys) == [each.name for each in dataclasses.fields(kind)]
    for each in dataclasses.fields(kind):
        assert keys[each.name].help and keys[each.name].accepts(default_of(each)), each.name


def test_a_key_that_only_has_a_range_has_the_default_of_transformers():
    theirs = {each.name: default_of(each) for each in dataclasses.fields(TrainingArguments)}
    for each in dataclasses.fields(RangedKeys):
        if each.name == "save_steps":  # it follows eval_steps, and is 500 there else too
            continue
        assert default_of(each) == theirs[each.name], each.name
    assert not keys_of(RangedKeys).keys() & keys_of(TrainerKeys).keys()
