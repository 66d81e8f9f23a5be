# SPDX-License-Identifier: Apache-2.0
"""Texts of a file and a command line as values of a key's type, and what is said of the others."""

from typing import Any

import pytest

from training.common.errors import UserError
from training.config.recipe import CLASSES, known_keys
from training.config.values import WORDS, Kind, convert, kinds_of, with_numbers

KINDS = kinds_of(CLASSES)
MANY = Kind(float, is_list=True, is_one=False, words="numbers")
SOME = Kind(str, is_list=True, words="a text")


@pytest.mark.parametrize(
    ("type_", "given", "value"),
    [
        (bool, "true", True), (bool, "Yes", True), (bool, "1", True), (bool, "on", True),
        (bool, "FALSE", False), (bool, "no", False), (bool, "0", False), (bool, True, True),
        (int, "3", 3), (int, "-3", -3), (int, "1e3", 1000), (int, "10.0", 10), (int, 7, 7),
        (float, "3", 3.0), (float, "1e-4", 1e-4), (float, "-.5", -0.5), (float, 2, 2.0),
        (str, "3", "3"), (str, "12e45678", "12e45678"), (str, "0123", "0123"), (str, "", ""),
        (dict, '{"a": "1e-6"}', {"a": 1e-6}), (dict, {"a": {"b": "2"}}, {"a": {"b": 2}}),
    ],
)  # fmt: skip
def test_a_value_of_its_type(type_, given, value):
    found = convert("k", Kind(type_), given)
    assert found == value and type(found) is type(value)
    assert convert("k", Kind(type_), [given]) == value


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        (bool, "maybe"), (bool, "yes please"), (bool, "2"), (bool, {"a": 1}),
        (int, "three"), (int, "1.5"), (int, "nan"), (int, "1e400"), (int, ""), (int, True),
        (int, "9" * 5000),
        (float, "1e"), (float, "nan"), (float, "-inf"), (float, "1,5"), (float, False),
        (float, {}), (str, {"a": 1}),
        (dict, "not json"), (dict, "[1]"), (dict, '{"a": 1'), (dict, "3"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(type_, given):
    with pytest.raises(UserError) as error:
        convert("k", Kind(type_, words="something"), given)
    assert str(error.value) == f"k is {given!r}: give something"


def test_lists():
    assert convert("k", MANY, ["1", "2e-1"]) == [1.0, 0.2]
    assert convert("k", MANY, "1") == [1.0]
    assert convert("k", SOME, ["a"]) == "a" and convert("k", SOME, ["a", "b"]) == ["a", "b"]
    for given, said in (
        (["1", "x"], "k is 'x': give numbers"),
        (["1", None], "k is None: give numbers"),
        ([["1"]], "k is ['1']: give numbers"),
        ([], "k has no value: give numbers"),
    ):
        with pytest.raises(UserError) as error:
            convert("k", MANY, given)
        assert str(error.value) == said
    with pytest.raises(UserError, match=r"^k is \['1', '2'\]: give a number, and only one"):
        convert("k", Kind(int, words="a number"), ["1", "2"])


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("1e-6", 1e-6), ("3", 3), ("-0.5", -0.5), (".5", 0.5), ("1e400", "1e400"),
        ("1e-6 m", "1e-6 m"), ("e5", "e5"), ("1e", "1e"), ("nan", "nan"), ("inf", "inf"),
        ("1_000", "1_000"), ("v1", "v1"), ("", ""), (True, True), (None, None),
        (["1", {"a": "x"}], [1, {"a": "x"}]),
    ],
)  # fmt: skip
def test_numbers_inside_a_mapping(given: Any, value: Any):
    found = with_numbers({"k": given})["k"]
    assert found == value and type(found) is type(value)


def test_the_kinds_of_all_keys():
    """One of each: a key whose type is read wrongly would be refused, or be a text."""
    assert KINDS.keys() >= known_keys()
    of = {name: (kind.type, kind.is_list, kind.is_one) for name, kind in KINDS.items()}
    assert of["seed"] == (int, False, True) and of["data_seed"] == (int, False, True)
    assert of["tf32"] == of["use_cpu"] == (bool, False, True)
    assert of["crop_scale"] == (float, True, False) and of["report_to"] == (str, True, False)
    assert of["optim"] == of["eval_strategy"] == of["debug"] == (str, False, True)
    assert of["optim_target_modules"] == (str, True, True)
    mappings = {name for name in known_keys() if KINDS[name].type is dict}
    paths = {"accelerator_config", "deepspeed", "fsdp_config"}
    assert mappings == paths | {
        "gradient_checkpointing_kwargs",
        "lr_scheduler_kwargs",
        "model_config",
    }
    assert {name for name in KINDS if KINDS[name].is_path} == paths
    assert all(kind.words for kind in KINDS.values())


def test_what_to_give_says_the_type_and_the_range():
    assert KINDS["tf32"].words == WORDS[bool]
    assert KINDS["lora_rank"].words == "a whole number, at least 1 (4 to 64 is usual)"
    assert KINDS["learning_rate"].words == "a number from 0 up"
    assert KINDS["loss"].words == "cross_entropy or generalized_cross_entropy"


def test_a_path_in_the_place_of_a_mapping():
    assert convert("fsdp_config", KINDS["fsdp_config"], "fsdp.json") == "fsdp.json"
    assert convert("fsdp_config", KINDS["fsdp_config"], '{"a": 1}') == {"a": 1}
    assert [convert("fsdp", KINDS["fsdp"], text) for text in ("true", "no", "full_shard")] == [
        True, False, "full_shard",
    ]  # fmt: skip
