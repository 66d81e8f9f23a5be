# SPDX-License-Identifier: Apache-2.0
"""The recipe: file and command line, what is refused and in which words."""

import json
from pathlib import Path

import pytest

from training.common.arguments import keys_of
from training.common.errors import UserError
from training.config import recipe as config
from training.config.keys import FREE_KEYS, TAKEN_AWAY, default_values
from training.config.recipe import parse_recipe

# ---- what is accepted -------------------------------------------------------------------------


def test_an_empty_file_is_a_recipe_of_defaults(parse):
    recipe = parse("")
    assert recipe.name == "mine"
    assert recipe.data.dataset == "ethz/food101"
    assert recipe.training.output_dir == "runs/mine"
    assert recipe.training.eval_strategy == "epoch"


def test_the_defaults_are_what_an_empty_file_gives(parse):
    """Else a run of a version that did not know a key would be taken for another one."""
    defaults = default_values()
    assert {name for kind in config.CLASSES for name in keys_of(kind)} == defaults.keys()
    values = {key: value for key, value in parse("").values.items() if key not in FREE_KEYS}
    assert values == {key: defaults[key] for key in values}
    assert defaults.keys() - values.keys() <= FREE_KEYS | {"output_dir"} | TAKEN_AWAY.keys()


def test_the_command_line_overrides_the_file(parse):
    recipe = parse("seed: 1\nlearning_rate: 0.5\n", "--seed", "2")
    assert (recipe.training.seed, recipe.training.learning_rate) == (2, 0.5)


# YAML 1.1 reads 2e-4 (no dot) as a string; a recipe must not care.
@pytest.mark.parametrize("text", ["learning_rate: 2e-4", 'learning_rate: "2e-4"'])
def test_scientific_notation_in_a_file_is_a_number(parse, text):
    assert parse(text).training.learning_rate == 2e-4


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "2e-4"],
        ["--learning_rate=2e-4"],
        ["--learning-rate", "2e-4"],
        ["--learning-rate=2e-4"],
    ],
)
def test_every_form_of_an_option(parse, words):
    assert parse("", *words).training.learning_rate == 2e-4


def test_lists(parse):
    assert parse("crop_scale: [0.2, 0.9]").augmentation.crop_scale == [0.2, 0.9]
    assert parse("", "--crop_scale", "0.3", "1").augmentation.crop_scale == [0.3, 1.0]


def test_no_model_leaves_the_recipes_revision_behind(parse):
    recipe = parse("model: user/one\nmodel_revision: abc\n", "--model", "null")
    assert (recipe.model.model, recipe.model.model_revision) == (None, None)


def test_a_recipe_from_scratch_takes_a_model(tmp_path):
    words = ["from_scratch", "--model", "user/vit", "--model_config", "null"]
    words += ["--output_dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match="--weight_init null"):
        parse_recipe(words)
    assert parse_recipe([*words, "--weight_init", "null"]).model.model == "user/vit"


def test_another_model_leaves_the_recipes_revision_behind(parse):
    text = "model: user/one\nmodel_revision: abc\n"
    assert parse(text).model.model_revision == "abc"
    for words in (["--model", "user/two"], ["--model=user/two"], ["--model_revision", "null"]):
        assert parse(text, *words).model.model_revision is None
    assert parse(text, "--model", "a/b", "--model_revision", "d").model.model_revision == "d"


def test_resolved_values_say_what_was_set_and_are_json(parse):
    recipe = parse(
        "dataset: sample\nlr_scheduler_type: linear\nmodel_config: {hidden_size: 48}\n",
        "--max_grad_norm=0.5",
        "--optim",
        "sgd",
    )
    values = json.loads(json.dumps(recipe.values, allow_nan=False))
    assert values["dataset"] == "sample"
    assert values["lr_scheduler_type"] == "linear"
    assert values["model_config"] == {"hidden_size": 48}
    assert values["max_grad_norm"] == 0.5
    assert values["optim"] == "sgd"
    assert values["total_train_batch_size"] == 64  # a default of ours is recorded as well
    assert "adafactor" not in values and "tpu_num_cores" not in values  # nobody asked


# ---- what is refused --------------------------------------------------------------------------


def test_an_unknown_key_gets_a_suggestion_and_its_place(refused):
    message = refused("lerning_rate: 1")
    assert "unknown key lerning_rate (recipe " in message
    assert "did you mean learning_rate?" in message
    message = refused("", "--lerning-rate", "1")
    assert "unknown key lerning_rate (the command line): did you mean learning_rate?" in message


def test_an_unlike_key_is_sent_to_the_help(refused):
    assert "food101 train --help" in refused("zzzzzz: 1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("learning_rate: fast", "'fast'"),
        ("seed: 1.5", "'1.5'"),
        ("lora_rank: four", "'four'"),
        ("use_cpu: perhaps", "perhaps"),
        ("total_train_batch_size: many", "'many'"),
        ("crop_scale: [a, b]", "'a'"),
    ],
)
def test_a_wrong_type_names_key_and_value(refused, text, value):
    message = refused(text)
    assert message.startswith(f"key {text.split(':')[0]}") and value in message


# One or two of each class: the ranges themselves are tested beside the class.
IMPOSSIBLE = [
    ("selection_fraction", "2"),
    ("selection_fraction", "nan"),
    ("model_config", "[1]"),
    ("image_size", "0"),
    ("mixup", "-1"),
    ("reduced_decoding", "always"),
    ("gce_q", "1e-40"),
    ("lora_alpha", "1e300"),
    ("probe_epochs", "0"),
    ("drop_path", "1"),
    ("learning_rate", "-1e-3"),
    ("learning_rate", "inf"),
    ("num_train_epochs", "0"),
    ("total_train_batch_size", "0"),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_impossible_values_are_named(refused, key, value):
    message = refused("", f"--{key}={value}")
    assert message.startswith(key)
    assert value in message or str(float(value)) in message


def test_what_transformers_refuses_is_one_line(refused):
    assert "SchedulerType" in refused("lr_scheduler_type: nope")
    assert "load_best_model_at_end" in refused("eval_strategy: no")


def test_a_stray_argument(refused):
    assert refused("", "--seed", "1", "2").startswith("2 (the command line) stands alone")


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("top1", True), ("macro_f1", True), ("nll", False), ("ece", False), ("loss", False)],
)
def test_the_metric_that_selects_knows_its_direction(parse, metric, greater):
    assert parse(f"metric_for_best_model: {metric}").training.greater_is_better is greater


def test_no_epochs_but_steps(parse):
    assert parse("num_train_epochs: 0\nmax_steps: 3").training.max_steps == 3


def test_files_that_are_no_recipe(refused, tmp_path):
    assert "is not YAML" in refused("a: [1")
    assert "must be `key: value` lines" in refused("- 1\n- 2\n")
    assert "must be `key: value` lines" in refused("just words")
    (tmp_path / "latin.yaml").write_bytes(b"dataset: caf\xe9\n")
    with pytest.raises(UserError, match="is not YAML"):
        parse_recipe([str(tmp_path / "latin.yaml")])


def test_parsing_leaves_no_folder(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse("")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.yaml"]
