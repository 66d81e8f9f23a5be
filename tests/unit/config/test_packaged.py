# SPDX-License-Identifier: Apache-2.0
"""The recipes that are installed with the code."""

import pytest

from training.common.errors import UserError
from training.config.packaged import packaged_recipes
from training.config.recipe import parse_recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_parse(name):
    recipe = parse_recipe([name, "--use_cpu"])
    assert recipe.name == name
    assert recipe.training.output_dir == f"runs/{name}"


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
