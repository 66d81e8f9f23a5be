# SPDX-License-Identifier: Apache-2.0
"""Keys that a recipe may not have, keys that a resumption may change, and keys as words."""

import dataclasses

import pytest
from transformers import TrainingArguments

from training.config.keys import FREE_KEYS, REMOVED, TAKEN_AWAY, as_argv, without_nulls
from training.config.recipe import known_keys


@pytest.mark.parametrize("key", sorted(REMOVED))
def test_removed_keys_name_their_successor(refused, key):
    for message in (refused(f"{key}: 1"), refused("", f"--{key}=1"), refused("", f"--{key}", "1")):
        assert message.startswith(f"{key} (") and "no longer exists" in message
        assert REMOVED[key] in message


@pytest.mark.parametrize("key", sorted(TAKEN_AWAY))
def test_taken_away_keys_name_the_cure(refused, key):
    for message in (refused(f"{key}: true"), refused("", f"--{key}"), refused("", f"--{key}=true")):
        assert message.startswith(f"{key} (") and "is not a key here" in message
        assert TAKEN_AWAY[key] in message


def test_the_tables_fit_this_transformers():
    """A taken-away key is still a field there; a removed one is a field no more."""
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    newer = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # not in 5.17 yet
    assert set(TAKEN_AWAY) - newer <= fields
    assert not set(REMOVED) & fields


def test_a_taken_away_key_is_refused_even_when_false(refused):
    assert "mixed_precision" in refused("bf16: false")


def test_no_key_is_both_accepted_and_refused():
    assert not known_keys() & (TAKEN_AWAY.keys() | REMOVED.keys())
    assert not TAKEN_AWAY.keys() & REMOVED.keys()
    assert known_keys() >= FREE_KEYS


# ---- as words of a command line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "kept", "keys"),
    [
        ([], [], []),
        (["--seed", "1"], ["--seed", "1"], []),
        (["--model", "null"], [], ["model"]),
        (["--model=null", "--seed", "1"], ["--seed", "1"], ["model"]),
        (["--image-size", "null", "--ema_decay=null"], [], ["image_size", "ema_decay"]),
        # Only a whole value takes a key back, and only a key has one.
        (["--dataset", "nullable", "null"], ["--dataset", "nullable", "null"], []),
        (["--crop_scale", "0.1", "null"], ["--crop_scale", "0.1", "null"], []),
        (["--use_cpu"], ["--use_cpu"], []),
    ],
)
def test_null_takes_a_key_back(words, kept, keys):
    assert without_nulls(words) == (kept, keys)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", None, []),
        ("seed", 3, ["--seed=3"]),
        ("learning_rate", "2e-4", ["--learning_rate=2e-4"]),
        ("tf32", False, ["--tf32=False"]),
        ("eval_strategy", False, ["--eval_strategy=no"]),
        ("eval_strategy", "epoch", ["--eval_strategy=epoch"]),
        ("save_strategy", True, ["--save_strategy=yes"]),
        ("crop_scale", [0.08, 1], ["--crop_scale", "0.08", "1"]),
        ("model_config", {"hidden_act": "gelu"}, ['--model_config={"hidden_act": "gelu"}']),
        ("dataset", "-odd name", ["--dataset=-odd name"]),
    ],
)
def test_a_value_of_a_file_as_words(key, value, words):
    assert as_argv(key, value) == words
