# SPDX-License-Identifier: Apache-2.0
"""Keys that a recipe may not have, keys that a resumption may change, and keys as words."""

import dataclasses

import pytest
from transformers import TrainingArguments

from training.config.keys import CALLED, FREE_KEYS, OTHER_NAMES, REMOVED, TAKEN_AWAY
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


# ---- names that others have ----------------------------------------------------------------------


def test_what_others_call_a_key_is_a_key_under_our_name():
    assert CALLED.keys() <= known_keys()
    assert not OTHER_NAMES.keys() & (known_keys() | TAKEN_AWAY.keys() | REMOVED.keys())
    names = [name for names in CALLED.values() for name in names.split()]
    assert len(names) == len(set(names)) > 100
    assert set(names) <= OTHER_NAMES.keys()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("epochs", "num_train_epochs"),
        ("lr", "learning_rate"),
        ("batch_size", "total_train_batch_size"),
        ("batch-size", "total_train_batch_size"),
        ("output", "output_dir"),
        ("data", "dataset"),
        ("workers", "dataloader_num_workers"),
        ("resume", "resume_from_checkpoint"),
        ("imgsz", "image_size"),
        ("opt", "optim"),
        ("weight-init-value", ""),
    ],
)
def test_a_name_of_others_is_told_and_not_taken(refused, name, key):
    told = f"is not a key here: it is called {key}" if key else "unknown key weight_init_value"
    for message in (refused("", f"--{name}", "3"), refused(f"{name}: 3")):
        assert told in message


def test_a_name_for_two_keys_names_both(refused):
    for name in ("checkpoint", "ckpt"):
        message = refused("", f"--{name}", "x")
        assert " model, " in message and "resume_from_checkpoint" in message


@pytest.mark.parametrize("key", ["fp16", "amp", "half"])
def test_precision_is_the_launchers(refused, key):
    assert "mixed_precision" in refused("", f"--{key}")
