# SPDX-License-Identifier: Apache-2.0
"""The verb train, and its help."""

import re
from pathlib import Path
from typing import Any

import pytest

from training.cli import launcher
from training.cli.train import help_of_train
from training.common.arguments import keys_of
from training.config.recipe import CLASSES, Recipe, known_keys, parse_recipe

# Keys that the machine or another key decides where a recipe leaves them out.
DERIVED = {
    "output_dir",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataloader_pin_memory",
    "accelerator_config",
    "greater_is_better",
    "save_steps",
    "use_cpu",  # set by the test
}


def test_the_help_of_train_lists_recipes_and_keys(food101):
    code, out, _ = food101("train", "--help")
    assert code == 0
    assert "sample" in out and "vit_base_food101" in out
    lines = out.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 120  # one screen
    for kind in CLASSES:
        usual = {name for name, key in keys_of(kind).items() if key.usual}
        assert all(f"  --{name} " in out for name in usual)
    assert "  --mixup " in out and "[0; a number from 0 to 1000; 0 is off]" in out
    code, everything, _ = food101("train", "--help_all")
    assert code == 0
    assert set(re.findall(r"^  --(\w+) ", everything, re.M)) == known_keys()


def test_train_without_a_recipe_shows_its_help(food101):
    code, out, _ = food101("train")
    assert code == 2 and "usage: food101 train RECIPE" in out


def listed(text: str) -> dict[str, str]:
    """The keys of a help, and the default in their brackets: "[0.5; a probability]" -> "0.5"."""
    lines = re.findall(r"^  --(\w+) .*?(?: \[([^\[\]]*)\])?$", text, re.M)
    return {name: facts.split("; ")[0] for name, facts in lines}


def as_in_a_recipe(value: Any) -> str:
    if isinstance(value, (bool, type(None))):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return " ".join(map(as_in_a_recipe, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def values_of(recipe: Recipe) -> dict[str, Any]:
    """Every key's value, those that nobody set included."""
    parts = [part for part in recipe if isinstance(part, CLASSES)]
    values = {key: value for part in parts for key, value in vars(part).items()}
    return values | recipe.training.to_dict()


@pytest.mark.parametrize("every_key", [False, True])
def test_the_help_shows_the_defaults_that_an_empty_recipe_gets(tmp_path, every_key):
    (tmp_path / "empty.yaml").touch()
    values = values_of(parse_recipe([str(tmp_path / "empty.yaml"), "--use_cpu=true"]))
    shown = listed(help_of_train(every_key))
    assert len(shown) > 20
    wrong = {
        name: (default, values[name])
        for name, default in shown.items()
        if name not in DERIVED and default != as_in_a_recipe(values[name])
    }
    assert wrong == {}
    assert known_keys() >= DERIVED


def test_how_the_help_is_read_here():
    assert listed("  --seed          text (a; b) [42]\n  --flip  x [0.5; a probability]\n") == {
        "seed": "42",
        "flip": "0.5",
    }
    assert listed("  --logging_steps  steps\n") == {"logging_steps": ""}


def test_a_recipe_is_launched_with_its_words(food101, monkeypatch):
    seen = []
    monkeypatch.setattr(launcher, "launch", lambda argv: seen.append(argv) or 7)
    assert food101("train", "sample", "--seed", 3) == (7, "", "")
    assert seen == [["sample", "--seed", "3"]]


def test_an_unknown_recipe_is_refused_before_anything_is_started(refused, monkeypatch):
    monkeypatch.setattr(launcher, "launch", None)
    assert "unknown recipe smaple: did you mean sample?" in refused("train", "smaple")
    assert "unknown recipe" in refused("train", Path("nowhere.yaml"))
