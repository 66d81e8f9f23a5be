# SPDX-License-Identifier: Apache-2.0
"""The verb train, and its help."""

import re

from training.common.arguments import keys_of
from training.config.recipe import CLASSES, known_keys


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
