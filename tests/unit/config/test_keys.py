# SPDX-License-Identifier: Apache-2.0
"""Keys that a recipe may not have, keys that a resumption may change, and keys as words."""

import dataclasses

import pytest
from transformers import TrainingArguments

from training.config.keys import FREE_KEYS, REMOVED, TAKEN_AWAY, as_argv, without_nulls
from training.config.recipe import known_keys


def test_a_bare_no_is_a_strategy(parse):
    recipe = parse("eval_strategy: no\nsave_strategy: no\nload_best_model_at_end: false\n")
    assert recipe.training.eval_strategy == "no"
    assert recipe.training.save_strategy == "no"
    assert recipe.training.load_best_model_at_end is False


def test_null_leaves_the_default(parse):
    recipe = parse("learning_rate: null\nmodel: null\noutput_dir: null\nsplit_seed: null\n")
    assert recipe.training.learning_rate == TrainingArguments.learning_rate
    assert recipe.model.model is None
    assert recipe.training.output_dir == "runs/mine"
    assert recipe.data.split_seed == 0


def test_null_on_the_command_line_takes_back_the_file(parse):
    # The refusal of model with model_config tells people to write `model: null`.
    for words in (["--model", "null"], ["--model=null"]):
        recipe = parse("model: user/name\n", *words, "--model_config", '{"hidden_size": 48}')
        assert recipe.model.model is None and recipe.values["model"] is None
    words = ["--model", "user/name", "--model_config", "null"]
    recipe = parse("model_config: {hidden_size: 48}\n", *words)
    assert recipe.model.model == "user/name" and recipe.values["model_config"] is None
    text = "ema_decay: 0.99\nimage_size: 64\nearly_stopping_patience: 3\nlearning_rate: 1e-3\n"
    words = ["--ema_decay", "null", "--image_size=null", "--early-stopping-patience", "null"]
    recipe = parse(text, *words, "--learning_rate=null", "--seed", "3")
    assert (recipe.extensions.ema_decay, recipe.model.image_size) == (None, None)
    assert recipe.values["ema_decay"] is None and recipe.training.seed == 3
    assert recipe.training.early_stopping_patience is None
    assert recipe.training.learning_rate == TrainingArguments.learning_rate


def test_null_does_not_hide_an_unknown_key(refused):
    assert "unknown key ema_deca (the command line)" in refused("", "--ema_deca", "null")


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
