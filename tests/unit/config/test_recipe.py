# SPDX-License-Identifier: Apache-2.0
"""The recipe: file and command line, what is refused and in which words."""

import json
import logging
import re
from pathlib import Path
from unittest import mock

import pytest

from training.common.arguments import keys_of
from training.common.errors import UserError
from training.config import recipe as config
from training.config.keys import FREE_KEYS, TAKEN_AWAY, default_values
from training.config.packaged import packaged_recipes
from training.config.recipe import known_keys, parse_recipe
from training.config.values import convert
from training.engine.arguments import RangedKeys

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
    not_recorded = FREE_KEYS | {"output_dir"} | TAKEN_AWAY.keys() | keys_of(RangedKeys).keys()
    assert defaults.keys() - values.keys() <= not_recorded


def test_the_command_line_overrides_the_file(parse):
    recipe = parse("seed: 1\nlearning_rate: 0.5\n", "--seed", "2")
    assert (recipe.training.seed, recipe.training.learning_rate) == (2, 0.5)


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


def test_a_switch_is_turned_off_by_its_name_with_no(parse, refused):
    assert parse("").training.load_best_model_at_end is True
    for word in ("--no_load_best_model_at_end", "--no-load-best-model-at-end"):
        assert parse("", word).training.load_best_model_at_end is False
    assert parse("", "--no-tf32").training.tf32 is False
    assert "unknown key no_lerning_rate (the command line)" in refused("", "--no_lerning_rate")
    assert refused("", "--no_seed").startswith("no_seed (the command line) is for switches, alone")
    assert refused("", "--no_tf32", "true").endswith("write --tf32 value")


def test_a_switch_alone_is_on(parse):
    assert parse("", "--gradient_checkpointing").training.gradient_checkpointing is True
    assert parse("", "--eval_on_start", "--seed", "1").training.eval_on_start is True


@pytest.mark.parametrize("key", sorted(known_keys() - {"use_cpu"}))
def test_every_key_may_be_written_with_hyphens(key, parse):
    """The value is refused, so that nothing hangs on which it is: the key was found by its name."""
    hyphens = key.replace("_", "-")
    with pytest.raises(UserError) as line, mock.patch.object(config, "convert", _refuse):
        parse("", f"--{hyphens}", "a-b_c")
    assert str(line.value) == f"{key} ['a-b_c']"
    with pytest.raises(UserError) as file, mock.patch.object(config, "convert", _refuse):
        parse(f"{hyphens}: a-b_c")
    assert str(file.value) == f"{key} a-b_c"


def _refuse(key: str, kind: object, given: object) -> None:
    if key != "use_cpu":
        raise UserError(f"{key} {given}")


def test_hyphens_in_values_stay(parse):
    words = ["--run-name", "a-b", "--resume-from-checkpoint=x-y/checkpoint-4"]
    training = parse("", *words).training
    assert (training.run_name, training.resume_from_checkpoint) == ("a-b", "x-y/checkpoint-4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr_scheduler_kwargs: {min_lr: 1e-6}", []),
        ('lr_scheduler_kwargs: {min_lr: "1e-6"}', []),
        ("", ["--lr_scheduler_kwargs", '{"min_lr": 1e-6}']),
        ("", ["--lr_scheduler_kwargs", '{"min_lr": "1e-6"}']),
    ],
)
def test_numbers_in_a_mapping_are_numbers(parse, text, words):
    recipe = parse(f"lr_scheduler_type: cosine_with_min_lr\n{text}", *words)
    assert recipe.training.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert recipe.values["lr_scheduler_kwargs"] == {"min_lr": 1e-6}


def test_numbers_of_a_file(parse):
    recipe = parse(
        "logging_steps: 1e2\ncrop_scale: [8e-2, 1]\nmax_steps: 1e3\nadam_epsilon: 1e-6\n"
    )
    training = recipe.training
    assert (training.logging_steps, training.max_steps) == (100, 1000)
    assert (recipe.augmentation.crop_scale, training.adam_epsilon) == ([0.08, 1.0], 1e-6)


def test_texts_of_a_file_stay_texts(parse):
    recipe = parse("model: a/b\nmodel_revision: 0123456\nrun_name: 12e45678\ndataset: 1e-6\n")
    assert recipe.model.model_revision == "0123456"
    assert (recipe.training.run_name, recipe.data.dataset) == ("12e45678", "1e-6")


def test_a_mapping_that_is_no_json(refused):
    for wrong in ("{min_lr: 1}", '{"min_lr": 1', "[1]", "min_lr=1"):
        said = refused("", "--lr_scheduler_kwargs", wrong)
        assert said.startswith(f"lr_scheduler_kwargs is {wrong!r}: give a mapping, as '{{")


def test_the_home_folder_in_paths(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parse("seed: 3")  # writes mine.yaml
    recipe = parse_recipe(
        ["~/mine.yaml", "--use_cpu", "--output_dir=~/runs/x", "--model=~/vit",
         "--resume_from_checkpoint=~/runs/x/checkpoint-1"]
    )  # fmt: skip
    assert (recipe.name, recipe.training.seed) == ("mine", 3)
    assert recipe.training.output_dir == recipe.values["output_dir"] == str(tmp_path / "runs/x")
    assert recipe.model.model == str(tmp_path / "vit")
    assert recipe.training.resume_from_checkpoint == str(tmp_path / "runs/x/checkpoint-1")


# ---- what follows the command line ---------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_recipes())
@pytest.mark.parametrize(
    "words",
    [
        "--num_train_epochs 1",
        "--num_train_epochs 5",
        "--max_steps 3",
        "--max_steps 10",
        "--total_train_batch_size 2",
        "--total_train_batch_size 96",
        "--model user/other",
        "--tune full",
        "--eval_strategy steps --save_strategy steps",
        "--warmup_steps 500",
    ],
)
def test_one_key_over_a_packaged_recipe(name, words):
    parse_recipe([name, "--use_cpu", *words.split()])


def test_what_follows_is_said_and_recorded(caplog):
    with caplog.at_level(logging.INFO, "training"):
        recipe = parse_recipe(["from_scratch", "--use_cpu", "--num_train_epochs", "5"])
    assert recipe.augmentation.mix_off_epoch == recipe.values["mix_off_epoch"] == 4
    assert caplog.messages == [
        "from_scratch: --num_train_epochs 5 gives mix_off_epoch 4: the same share as 130 of 150 epochs"
    ]
    with pytest.raises(
        UserError, match="^mix_off_epoch is 130 and num_train_epochs 5: mixing would"
    ):
        parse_recipe(["from_scratch", "--num_train_epochs", "5", "--mix_off_epoch", "130"])


# ---- every key ------------------------------------------------------------------------------------

# A value of each type that is not the default of any key.
OTHER = {str: ["other"], bool: ["true", "false"], int: ["7"], float: ["0.25"], dict: ['{"a": 1}']}


@pytest.mark.parametrize("key", sorted(known_keys() - {"use_cpu"}))
def test_a_value_is_kept_or_refused_by_name(parse, key):
    """What is neither would be overwritten, without a word."""
    for word in OTHER[config.KINDS[key].type]:
        try:
            recipe = parse("", f"--{key}={word}")
        except UserError as error:
            assert re.search(
                rf"\b{key}\b|AcceleratorConfig|DebugOption|deepspeed|group", str(error)
            )
            continue
        kept = [
            vars(part)[key]
            for part in recipe
            if isinstance(part, config.CLASSES)
            if key in vars(part)
        ]
        assert kept == [convert(key, config.KINDS[key], [word])]


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "three", "1e", "", "-1e999"])
@pytest.mark.parametrize(
    "key",
    sorted(key for key in known_keys() if config.KINDS[key].type in (int, float)),
)
def test_no_number_is_not_a_number(refused, key, word):
    assert refused("", f"--{key}", word).startswith(f"{key} is {word!r}: give ")
    assert refused("", f"--{key}").startswith(f"{key} has no value: give ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--learning_rate -1", "learning_rate is -1.0: give a number from 0 up"),
        ("--num_train_epochs -3", "num_train_epochs is -3.0: give a number from 0 up"),
        ("--num_train_epochs three", "num_train_epochs is 'three': give a number from 0 up"),
        ("--weight_decay -0.1", "weight_decay is -0.1: give a number from 0 up"),
        ("--warmup_steps -5", "warmup_steps is -5.0: give a number from 0 up"),
        ("--seed -1", "seed is -1: give 0 to 4,294,967,295"),
        ("--seed 4294967296", "seed is 4294967296: give 0 to 4,294,967,295"),
        ("--data_seed 4294967296", "data_seed is 4294967296: give 0 to 4,294,967,295"),
        ("--split_seed -1", "split_seed is -1: give 0 to 4,294,967,295"),
        ("--split_seed 4294967296", "split_seed is 4294967296: give 0 to 4,294,967,295"),
        ("--gradient_checkpointing maybe", "gradient_checkpointing is 'maybe': give true or false"),
        ("--tf32 perhaps", "tf32 is 'perhaps': give true or false"),
        ("--save_total_limit -1", "save_total_limit is -1: give at least 1, or null to keep all"),
        ("--eval_strategy maybe", "eval_strategy is 'maybe': give no, steps or epoch"),
    ],
)
def test_the_one_line_of_an_impossible_value(refused, words, said):
    assert refused("", *words.split()) == said
    key, value = words[2:].split()
    assert refused(f"{key}: {value}") == said


def test_a_switch_of_two_words(refused):
    assert refused('tf32: "yes please"') == "tf32 is 'yes please': give true or false"


# ---- what is refused


def test_lists(parse):
    assert parse("crop_scale: [0.2, 0.9]").augmentation.crop_scale == [0.2, 0.9]
    assert parse("", "--crop_scale", "0.3", "1").augmentation.crop_scale == [0.3, 1.0]


def test_no_model_leaves_the_recipes_revision_behind(parse):
    recipe = parse("model: user/one\nmodel_revision: abc\n", "--model", "null")
    assert (recipe.model.model, recipe.model.model_revision) == (None, None)


def test_a_recipe_from_scratch_takes_a_model(tmp_path):
    words = ["from_scratch", "--model", "user/vit", "--output_dir", str(tmp_path / "run")]
    taken = parse_recipe(words).model
    assert (taken.model, taken.model_config, taken.weight_init) == ("user/vit", None, "normal")
    with pytest.raises(UserError, match="--weight_init null"):
        parse_recipe([*words, "--weight_init", "mimetic"])
    for mapping in ('{"hidden_size": 48}', "{}"):
        with pytest.raises(UserError, match="model and model_config are both set"):
            parse_recipe([*words, "--model_config", mapping])
    vit = ["linear_probe", *words[1:], "--as_vit", "true", "--model_config", "{}"]
    with pytest.raises(UserError, match="model and model_config are both set"):
        parse_recipe(vit)


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
        ("gradient_checkpointing: maybe", "'maybe'"),
        ("total_train_batch_size: many", "'many'"),
        ("crop_scale: [a, b]", "'a'"),
    ],
)
def test_a_wrong_type_names_key_and_value(refused, text, value):
    message = refused(text)
    assert message.startswith(f"{text.split(':')[0]} is {value}: give ")


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
    assert "'nope'" in refused("lr_scheduler_type: nope")
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
