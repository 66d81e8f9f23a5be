# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests against published figures, scipy, and brute force."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest  # scikit-learn brings it

from training.evaluation.intervals import mcnemar_exact, paired_interval, wilson_interval


# Four decimals; the defining equation in the test is the check that does not share our formula.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (9, 10, 0.5958, 0.9821),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (22725, 25250, 0.8962, 0.9036),
    ],
)
def test_wilson_intervals(successes, n, low, high):
    got = wilson_interval(successes, n)
    assert got == pytest.approx((low, high), abs=5e-5)
    # The defining equation: at each bound p, |p_hat - p| is z standard errors of p.
    for bound in got:
        if 1e-9 < bound < 1 - 1e-9:
            error = math.sqrt(bound * (1 - bound) / n)
            assert abs(successes / n - bound) / error == pytest.approx(1.959964, rel=1e-6)


# The results of Fagerland, Lydersen and Laake's R package contingencytables (its tests/testthat) for
# Cavo et al. 2012, and for one image that both and one that neither gets right.
@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((59, 6, 16, 80), -0.1186, -0.0046), ((1, 0, 0, 1), -0.5734, 0.5734)],
)
def test_published_paired_intervals(table, low, high):
    assert paired_interval(*table) == pytest.approx((low, high), abs=5e-5)


def test_the_published_mcnemar_test():
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=5e-7)


@pytest.mark.parametrize("first", [0, 1, 7, 40, 1200])
@pytest.mark.parametrize("second", [0, 1, 8, 39, 1100])
def test_mcnemar_is_scipys_binomial_test(first, second):
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected, rel=1e-9)


def test_the_other_way_round_is_the_same_interval():
    low, high = paired_interval(200, 9, 30, 61)
    assert paired_interval(200, 30, 9, 61) == pytest.approx((-high, -low))
    assert high < 0


@pytest.mark.parametrize(
    "table", [(0, 0, 0, 9), (9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 9, 0), (500, 0, 0, 3), (1, 2, 0, 0)]
)
def test_extreme_tables_have_an_interval(table):
    low, high = paired_interval(*table)
    difference = (table[1] - table[2]) / sum(table)
    assert -1 <= low <= difference <= high <= 1 and low < high


def test_no_image():
    with pytest.raises(ValueError, match="no image"):
        paired_interval(0, 0, 0, 0)


# Shares of images that both, only the first, only the second and neither get right.
@pytest.mark.parametrize(
    "shares",
    [(0.85, 0.05, 0.03, 0.07), (0.4, 0.3, 0.1, 0.2), (0.9, 0.02, 0.02, 0.06), (0.2, 0.1, 0.1, 0.6)],
)
def test_coverage(shares):
    """Of 4,000 tables of 300 images some 95 % of the intervals hold the true difference."""
    rng = np.random.default_rng(0)
    truth = shares[1] - shares[2]
    intervals = [paired_interval(*map(int, row)) for row in rng.multinomial(300, shares, 4000)]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    # One standard error of a share among 4,000 is 0.0034; found with this seed: 0.951 to 0.960.
    assert 0.94 < covered < 0.975
