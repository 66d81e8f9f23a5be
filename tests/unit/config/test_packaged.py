# SPDX-License-Identifier: Apache-2.0
"""The recipes that are installed with the code, and the file of a name."""

import pytest

from training.common.errors import UserError
from training.config.packaged import RECIPES, find_recipe, packaged_recipes
from training.config.recipe import parse_recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_parse(name):
    recipe = parse_recipe([name, "--use_cpu"])
    assert recipe.name == name
    assert recipe.training.output_dir == f"runs/{name}"


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(
        UserError, match=r"^unknown recipe vit_base_fod101: did you mean vit_base_food101\?$"
    ):
        find_recipe("vit_base_fod101")
    names = ", ".join(packaged_recipes())
    with pytest.raises(UserError) as error:
        find_recipe("nowhere/x.yaml")
    assert str(error.value) == f"unknown recipe nowhere/x.yaml: give one of {names}, or a path"


@pytest.mark.parametrize("argv", [[], ["--seed", "1"]])
def test_no_recipe_lists_them(argv):
    with pytest.raises(UserError, match="which recipe.*vit_base_food101"):
        parse_recipe(argv)


def test_the_names_are_those_of_the_files_in_order():
    names = packaged_recipes()
    assert names == sorted(names) and {"sample", "vit_base_food101"} <= set(names)
    assert {f"{name}.yaml" for name in names} == {path.name for path in RECIPES.iterdir()}


def test_a_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").write_text("seed: 1")
    assert find_recipe("sample") == RECIPES / "sample.yaml"
    assert find_recipe("./sample").resolve() == tmp_path / "sample"


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="unknown recipe"):
        find_recipe(str(tmp_path))
