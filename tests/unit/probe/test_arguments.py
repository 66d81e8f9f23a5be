# SPDX-License-Identifier: Apache-2.0
"""The ranges of the keys about a linear probe."""

import dataclasses
import math

import pytest

from training.common.arguments import keys_of
from training.common.errors import UserError
from training.probe.arguments import LEARNING_RATES, ProbeArguments


@pytest.mark.parametrize("rates", [[0.0], [0.1, -1.0], [math.nan], [math.inf], [1e6], []])
def test_impossible_rates_are_named(rates):
    with pytest.raises(
        UserError, match="^probe_learning_rates is .*: give numbers above 0, below 1,"
    ):
        ProbeArguments(rates)


def test_a_rate_twice_is_refused():
    with pytest.raises(UserError, match=r"is \[0.1, 0.2, 0.1\]: give each of them once"):
        ProbeArguments([0.1, 0.2, 0.1])


@pytest.mark.parametrize("epochs", [0.0, -1.0, math.nan, math.inf])
def test_impossible_epochs_are_named(epochs):
    with pytest.raises(UserError, match=f"^probe_epochs is {epochs}: give a number above 0"):
        ProbeArguments(probe_epochs=epochs)


def test_the_grid_is_a_list_of_each_instance():
    one, two = ProbeArguments(), ProbeArguments()
    assert one.probe_learning_rates == LEARNING_RATES == sorted(LEARNING_RATES)
    one.probe_learning_rates.clear()
    assert two.probe_learning_rates == ProbeArguments().probe_learning_rates != []
    assert list(keys_of(ProbeArguments)) == [
        each.name for each in dataclasses.fields(ProbeArguments)
    ]
