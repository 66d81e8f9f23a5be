# SPDX-License-Identifier: Apache-2.0
"""The ranges and choices of the keys about training."""

import math

import pytest

from tests.unit.toys import tiny_settings
from training.common.errors import UserError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
        ("layer_decay", math.nan),
        ("drop_path", -0.1),
        ("drop_path", 1.0),
        ("drop_path", math.nan),
        ("early_stopping_patience", 0),
        ("ema_decay", 0.0),
        ("ema_decay", 1.0),
        ("ema_decay", math.nan),
    ],
)
def test_impossible_values_are_named(tmp_path, key, value):
    with pytest.raises(UserError, match=f"^{key} is {value}"):
        tiny_settings(tmp_path, **{key: value})
