# SPDX-License-Identifier: Apache-2.0
"""The recipe's keys about images."""

import math

import pytest

from training.common.errors import UserError
from training.data.arguments import DataArguments


def test_the_defaults_are_food101_as_the_hub_has_it():
    data = DataArguments()
    assert (data.dataset, data.train_split) == ("ethz/food101", "train")
    # By their names: its validation is the test, and a slice of its train selects.
    assert data.test_split is data.selection_split is None
    assert data.selection_fraction is data.test_fraction is None
    assert data.train_short_side is None  # the originals


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"selection_fraction": 0.0}, "selection_fraction is 0.0: give a share between 0 and 1"),
        ({"selection_fraction": 1.0}, "selection_fraction is 1.0: give a share between 0 and 1"),
        ({"selection_fraction": 2.0}, "selection_fraction is 2.0: give a share between 0 and 1"),
        ({"selection_fraction": math.nan}, "selection_fraction is nan"),
        ({"undecodable_images": "ignore"}, "undecodable_images is 'ignore': give stop or skip"),
        ({"train_short_side": 0}, "train_short_side is 0: give a number of pixels"),
        ({"eval_cache_gb": -1.0}, "eval_cache_gb is -1.0: give GB, or 0 for no cache"),
        ({"eval_cache_gb": math.nan}, "eval_cache_gb is nan: give GB"),
        ({"eval_cache_gb": math.inf}, "eval_cache_gb is inf: give GB"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(UserError) as error:
        DataArguments(**values)
    assert str(error.value).startswith(message)
