# SPDX-License-Identifier: Apache-2.0
"""The recipe's keys about a linear probe."""

import math

import pytest

from training.common.errors import UserError
from training.probe.arguments import LEARNING_RATES, ProbeArguments


def test_the_grid_is_dinov2s():
    rates = ProbeArguments().probe_learning_rates
    assert rates == LEARNING_RATES and len(rates) == 13 and rates == sorted(rates)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([], "probe_learning_rates is []: give numbers above 0, below 1,000,000, as 0.01 0.1"),
        ([0.1, 0.0], "probe_learning_rates is [0.1, 0.0]: give numbers above 0"),
        ([math.nan], "probe_learning_rates is [nan]: give numbers above 0"),
        ([1e6], "probe_learning_rates is [1000000.0]: give numbers above 0, below 1,000,000"),
        ([0.1, 0.1], "probe_learning_rates is [0.1, 0.1]: give each of them once"),
    ],
)
def test_impossible_rates_are_named(rates, message):
    with pytest.raises(UserError) as error:
        ProbeArguments(probe_learning_rates=rates)
    assert str(error.value).startswith(message)


def test_an_impossible_number_of_epochs_is_named():
    with pytest.raises(UserError, match="probe_epochs is 0: give a number above 0"):
        ProbeArguments(probe_epochs=0)
