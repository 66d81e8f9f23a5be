# SPDX-License-Identifier: Apache-2.0
"""The recipe's keys about the network."""

import pytest

from training.common.errors import UserError
from training.model.arguments import ModelArguments, json_mapping


def test_a_config_is_a_mapping_as_json():
    wanted = {"hidden_size": 48, "hidden_act": "gelu"}
    text = '{"hidden_size": 48, "hidden_act": "gelu"}'
    assert ModelArguments(model_config=text).model_config == wanted
    assert ModelArguments(model_config=wanted).model_config == wanted
    for wrong in ("[1]", "hidden_size: 48", "3", "{"):
        with pytest.raises(UserError, match="^model_config is '.*': give a mapping"):
            json_mapping("model_config", wrong)


def test_first_weights_are_chosen_for_a_network_from_scratch():
    assert ModelArguments(weight_init="mimetic").weight_init == "mimetic"
    assert ModelArguments(model="user/name").weight_init == "normal"


@pytest.mark.parametrize("config", ['{"hidden_size": 48}', "{}", {}])
@pytest.mark.parametrize("model", ["user/name", ""])
def test_model_and_model_config_exclude_each_other(model, config):
    with pytest.raises(UserError, match="^model and model_config are both set: .* `model: null`"):
        ModelArguments(model=model, model_config=config)
    assert ModelArguments(model_config=config).model is None


def test_an_empty_name_of_a_model_is_no_network_from_scratch():
    """As of a variable of the shell that is not set; that there is no such model is said later."""
    with pytest.raises(UserError, match="^weight_init mimetic and model : it is for a network"):
        ModelArguments(model="", weight_init="mimetic")
    assert ModelArguments(model="", as_vit=True).model == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "image_size is 0: give a number of pixels"),
        ({"head_init_scale": 2.0}, "head_init_scale is 2.0: give 0 to 1"),
        ({"head_init_scale": float("nan")}, "head_init_scale is nan: give 0 to 1"),
        ({"weight_init": "zeros"}, "weight_init is 'zeros': give normal or mimetic"),
        ({"model": "a/b", "weight_init": "mimetic"}, "mimetic and model a/b: it is for a network"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(UserError) as error:
        ModelArguments(**values)
    assert message in str(error.value)


def test_a_file_of_names_is_read_before_anything_else(tmp_path):
    with pytest.raises(UserError, match="^display_names nowhere.csv cannot be read"):
        ModelArguments(display_names="nowhere.csv")
    (tmp_path / "names.csv").write_text("label,English\npizza,Pizza\n", encoding="utf-8")
    with pytest.raises(UserError, match="the column 'English': give a language by its code"):
        ModelArguments(display_names=str(tmp_path / "names.csv"))
