# SPDX-License-Identifier: Apache-2.0
"""A recipe's file: its numbers, its texts, and what is no recipe."""

from typing import Any

import pytest

from training.common.errors import UserError
from training.config.recipe_file import read_recipe


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> dict[str, Any]:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return read_recipe(str(path))

    return read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6), ("1E5", 1e5), ("-2e-1", -0.2), ("1.e3", 1e3), (".5e1", 5.0),
        ("1.5", 1.5), ("3", 3), ("0.1", 0.1),
        ('"1e-6"', "1e-6"), ("1e", "1e"), ("e5", "e5"), ("1e-6m", "1e-6m"), ("v1e5", "v1e5"),
        ("12e45678", "12e45678"), ("3-4", "3-4"),
    ],
)  # fmt: skip
def test_numbers_as_everybody_writes_them(read, text, value):
    found = read(f"kwargs: {{a: {text}}}")["kwargs"][0]["a"]
    assert found == value and type(found) is type(value)


def test_what_stands_there_is_kept_beside_the_value(read):
    found = read(
        "model_revision: 0123456\neval_strategy: no\nlist: [8e-2, 1, off]\nmodel: null\n"
        "other: ~\nrate: 2e-4\nempty:\nmapping: {a: 1e-6}\nnum-train-epochs: 3\n"
    )
    assert found["model_revision"][1] == "0123456"
    assert found["eval_strategy"] == (False, "no")
    assert found["list"] == ([0.08, 1, False], ["8e-2", "1", "off"])
    assert found["model"] == found["other"] == found["empty"] == (None, None)
    assert found["rate"] == (2e-4, "2e-4")
    assert found["mapping"] == ({"a": 1e-6}, {"a": 1e-6})
    assert found["num_train_epochs"] == (3, "3")


def test_other_yaml_is_as_ever(read):
    assert read("a: &x {b: 1}\nc: *x\n")["c"][0] == {"b": 1}
    assert read("<<: {a: 1}\nb: 2\n").keys() == {"a", "b"}
    assert read("") == read("# nothing\n") == read("null\n") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not YAML"),
        ("- 1\n- 2\n", "must be `key: value` lines"),
        ("just words", "must be `key: value` lines"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
        ("a: 2024-13-45\n", "is not YAML"),
        ("seed: 1\nmixup: 1\nseed: 2\n", "^seed stands in .*mine.yaml twice"),
        ("data-seed: 1\ndata_seed: 2\n", "^data_seed stands in .*mine.yaml twice"),
    ],
)
def test_files_that_are_no_recipe(read, text, said):
    with pytest.raises(UserError, match=said) as error:
        read(text)
    assert "\n" not in str(error.value)
