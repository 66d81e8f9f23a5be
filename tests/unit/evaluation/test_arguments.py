# SPDX-License-Identifier: Apache-2.0
"""Keys about how sure a model may say that it is."""

import pytest

from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.evaluation.arguments import TrustArguments


def test_scores_are_calibrated_unless_it_is_taken_back():
    assert TrustArguments().calibrate
    assert not parse_recipe(["sample", "--calibrate", "false"]).trust.calibrate


def test_a_value_that_is_no_switch_is_refused_by_name():
    with pytest.raises(UserError, match="calibrate"):
        parse_recipe(["sample", "--calibrate", "perhaps"])
