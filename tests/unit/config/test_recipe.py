# SPDX-License-Identifier: Apache-2.0
"""The recipe: file and command line, what is refused and in which words."""

import dataclasses
import json
from pathlib import Path

import pytest
from transformers import TrainingArguments

from training.common.arguments import keys_of
from training.common.errors import UserError
from training.config import recipe as config
from training.config.keys import FREE_KEYS, REMOVED, TAKEN_AWAY
from training.config.packaged import packaged_recipes
from training.config.recipe import parse_recipe
from training.engine.training_arguments import FineTuningArguments, check_world_size


@pytest.fixture
def parse(tmp_path):
    """parse(text of the file, *command line) -> Recipe; on the CPU wherever the tests run."""

    def parse(text: str, *overrides: str) -> config.Recipe:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return parse_recipe([str(path), "--use_cpu=true", *overrides])

    return parse


@pytest.fixture
def refused(parse):
    def refused(text: str, *overrides: str) -> str:
        with pytest.raises(UserError) as error:
            parse(text, *overrides)
        message = str(error.value)
        assert "\n" not in message
        return message

    return refused


# ---- what is accepted -------------------------------------------------------------------------


def test_an_empty_file_is_a_recipe_of_defaults(parse):
    recipe = parse("")
    assert recipe.name == "mine"
    assert recipe.data.dataset == "ethz/food101"
    assert recipe.training.output_dir == "runs/mine"
    assert recipe.training.eval_strategy == "epoch"


def test_the_defaults_are_what_an_empty_file_gives(parse):
    """Else a run of a version that did not know a key would be taken for another one."""
    defaults = config.default_values()
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


def test_a_nested_model_config(parse):
    wanted = {"hidden_size": 48, "hidden_act": "gelu"}
    assert parse("model_config:\n  hidden_size: 48\n  hidden_act: gelu\n").model.model_config == (
        wanted
    )
    assert parse("", "--model_config", json.dumps(wanted)).model.model_config == wanted
    assert parse("", f"--model_config={json.dumps(wanted)}").model.model_config == wanted


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


def test_no_model_leaves_the_recipes_revision_behind(parse):
    recipe = parse("model: user/one\nmodel_revision: abc\n", "--model", "null")
    assert (recipe.model.model, recipe.model.model_revision) == (None, None)


def test_a_recipe_from_scratch_takes_a_model(tmp_path):
    words = ["from_scratch", "--model", "user/vit", "--model_config", "null"]
    words += ["--output_dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match="--weight_init null"):
        parse_recipe(words)
    assert parse_recipe([*words, "--weight_init", "null"]).model.model == "user/vit"


def test_null_does_not_hide_an_unknown_key(refused):
    assert "unknown key ema_deca (the command line)" in refused("", "--ema_deca", "null")


def test_mixing_that_would_never_end_is_refused(parse, refused):
    text = "mixup: 0.8\nmix_off_epoch: 3\n"
    said = refused(text, "--num_train_epochs", "3")
    assert said.startswith("mix_off_epoch is 3 and num_train_epochs 3: mixing would never be off")
    assert parse(text, "--num_train_epochs", "4").augmentation.mix_off_epoch == 3
    for words in (["--mixup", "0"], ["--mix_off_epoch", "0"], ["--max_steps", "9"]):
        parse(text, "--num_train_epochs", "3", *words)


def test_another_model_leaves_the_recipes_revision_behind(parse):
    text = "model: user/one\nmodel_revision: abc\n"
    assert parse(text).model.model_revision == "abc"
    for words in (["--model", "user/two"], ["--model=user/two"], ["--model_revision", "null"]):
        assert parse(text, *words).model.model_revision is None
    assert parse(text, "--model", "a/b", "--model_revision", "d").model.model_revision == "d"


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_parse(name):
    recipe = parse_recipe([name, "--use_cpu"])
    assert recipe.name == name
    assert recipe.training.output_dir == f"runs/{name}"


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("learning_rate: fast", "'fast'"),
        ("seed: 1.5", "'1.5'"),
        ("use_cpu: perhaps", "perhaps"),
        ("total_train_batch_size: many", "'many'"),
        ("crop_scale: [a, b]", "'a'"),
    ],
)
def test_a_wrong_type_names_key_and_value(refused, text, value):
    message = refused(text)
    assert message.startswith(f"key {text.split(':')[0]}") and value in message


IMPOSSIBLE = [
    ("selection_fraction", "0"),
    ("selection_fraction", "1"),
    ("selection_fraction", "2"),
    ("selection_fraction", "nan"),
    ("learning_rate", "-1e-3"),
    ("learning_rate", "nan"),
    ("learning_rate", "inf"),
    ("weight_decay", "-0.1"),
    ("max_grad_norm", "-1"),
    ("num_train_epochs", "-1"),
    ("num_train_epochs", "0"),
    ("per_device_eval_batch_size", "0"),
    ("label_smoothing_factor", "1"),
    ("horizontal_flip", "1.5"),
    ("reduced_decoding", "always"),
    ("auto_augment", "autoaugment"),
    ("randaugment_num_ops", "0"),
    ("randaugment_num_ops", "15"),
    ("mixup", "1e308"),
    ("cutmix", "inf"),
    ("color_jitter", "1e300"),
    ("lora_alpha", "1e300"),
    ("randaugment_magnitude", "31"),
    ("randaugment_magnitude", "-1"),
    ("color_jitter", "-0.1"),
    ("random_erasing", "1.1"),
    ("mixup", "-1"),
    ("mixup", "inf"),
    ("cutmix", "nan"),
    ("mix_probability", "2"),
    ("mix_switch_probability", "-0.5"),
    ("mix_off_epoch", "-1"),
    ("loss", "focal"),
    ("gce_q", "0"),
    ("gce_q", "1e-40"),
    ("gce_q", "1.5"),
    ("undecodable_images", "ignore"),
    ("eval_cache_gb", "-1"),
    ("eval_cache_gb", "nan"),
    ("image_size", "0"),
    ("total_train_batch_size", "0"),
    ("model_config", "[1]"),
    ("model_config", "{"),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_impossible_values_are_named(refused, key, value):
    message = refused("", f"--{key}={value}")
    assert message.startswith(key)
    assert value in message or str(float(value)) in message


@pytest.mark.parametrize("scale", [["0.5"], ["0", "1"], ["0.9", "0.1"], ["0.5", "1.5"]])
def test_impossible_crop_scales(refused, scale):
    assert refused("", "--crop_scale", *scale).startswith("crop_scale is [")


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_an_odd_batch_cannot_be_mixed(parse, refused, key):
    words = ["--total_train_batch_size=15", "--per_device_train_batch_size=5"]
    message = refused(f"{key}: 0.8", *words)
    assert message.startswith("per_device_train_batch_size is 5: mixup and cutmix mix pairs")
    parse(f"{key}: 0.8\nmix_probability: 0", *words)
    parse("random_erasing: 0.5", *words)


def test_augmentation_is_off_unless_asked_for(parse):
    plain = ["crop_scale", "horizontal_flip", "reduced_decoding"]
    assert list(parse("").augmentation.in_force()) == plain
    some = parse("mixup: 0.8\nauto_augment: randaugment\n").augmentation.in_force()
    more = ["auto_augment", "randaugment_num_ops", "randaugment_magnitude", "mixup"]
    assert list(some) == [*plain, *more, "mix_probability"]
    assert parse("mixup: 0.8").values["cutmix"] == 0  # the resolved recipe lists every key


def test_model_and_model_config_exclude_each_other(refused):
    assert "model: null" in refused("model: user/name\nmodel_config: {hidden_size: 48}\n")


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


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(
        UserError, match="unknown recipe vit_base_fod101: did you mean vit_base_food101"
    ):
        parse_recipe(["vit_base_fod101"])
    with pytest.raises(UserError, match="unknown recipe nowhere/x.yaml: give one of .*sample"):
        parse_recipe(["nowhere/x.yaml"])


@pytest.mark.parametrize("argv", [[], ["--seed", "1"]])
def test_no_recipe_lists_them(argv):
    with pytest.raises(UserError, match="which recipe.*vit_base_food101"):
        parse_recipe(argv)


# ---- the world size ----------------------------------------------------------------------------


def test_the_world_size_guard():
    check_world_size(1, 1, 0)
    check_world_size(4, 4, 1)
    with pytest.raises(UserError, match="started 2 processes but torch sees a world of 1.*USE_CPU"):
        check_world_size(2, 1, 0)
    with pytest.raises(UserError, match="one process sees 4 GPUs"):
        check_world_size(1, 1, 4)


def test_a_launcher_that_torch_does_not_see_is_refused(monkeypatch):
    """A multi-GPU configuration on a machine without GPUs trains twice into one folder."""
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(TrainingArguments, "world_size", 1)
    monkeypatch.setattr(TrainingArguments, "n_gpu", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 processes"):
        FineTuningArguments(output_dir="unused")


def test_parsing_leaves_no_folder(parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse("")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.yaml"]
