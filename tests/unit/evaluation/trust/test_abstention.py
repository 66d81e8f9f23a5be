# SPDX-License-Identifier: Apache-2.0
"""Thresholds and sets: the promise is kept in simulated draws, and the edges are what they should be."""

import numpy as np
import pytest
from scipy.stats import binomtest

from inference.food_answers import images_needed
from training.evaluation.trust.abstention import (
    choose_threshold,
    lower_bound,
    measure_sets,
    risk_coverage,
    set_quantiles,
    tried_sizes,
)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (7, 10), (10, 10), (280, 300)])
def test_the_bound_is_clopper_and_pearsons(right, n):
    test = binomtest(right, n, alternative="greater")
    assert lower_bound(right, n) == pytest.approx(test.proportion_ci(0.95, "exact").low)


def test_images_needed():
    assert images_needed(0.95) == 59
    for target in (0.8, 0.9, 0.99):
        n = images_needed(target)
        assert lower_bound(n, n) >= target > lower_bound(n - 1, n - 1)


def test_a_threshold_keeps_its_promise():
    """In 95 % of draws; of 400 draws fewer than 365 would be a chance of 1 in 1,000."""
    rng = np.random.default_rng(0)
    population = np.sort(rng.beta(1.2, 0.35, 100_000))  # chance of each answer to be right
    above = np.cumsum(population[::-1]) / np.arange(1, len(population) + 1)
    kept = found = 0
    for _ in range(400):
        confidence = rng.beta(1.2, 0.35, 600)
        chosen = choose_threshold(confidence, rng.random(600) < confidence, 0.9)
        if chosen:
            answered = len(population) - np.searchsorted(population, chosen[0])
            found, kept = found + 1, kept + (above[answered - 1] >= 0.9)
    assert found > 390 and kept >= found - 35


def test_no_threshold_where_it_cannot_be_kept():
    sure = np.linspace(0.9, 0.99, 58)
    assert choose_threshold(sure, np.ones(58, bool), 0.95) is None  # too few
    sure = np.linspace(0.9, 0.99, 59)
    assert choose_threshold(sure, np.ones(59, bool), 0.95) == (0.9, 59)
    wrong = np.ones(59, bool)
    wrong[0] = False
    assert choose_threshold(sure, wrong, 0.95) is None


def test_it_stops_at_the_first_failure():
    right = np.ones(400, bool)
    right[100:110] = False  # then 290 right ones, which would make up for them
    assert lower_bound(390, 400) > 0.95
    threshold, n = choose_threshold(-np.arange(400.0), right, 0.95)
    assert n < 110 and threshold == -(n - 1)


def test_equal_confidences_are_answered_together():
    sure = np.repeat([0.9, 0.8, 0.7], 40)
    assert tried_sizes(sure, 0.95).tolist() == [80, 120]
    assert choose_threshold(sure, np.ones(120, bool), 0.95) == (0.7, 120)


def test_risk_and_coverage():
    curve, area = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))
    assert curve[-1] == [1.0, 0.25] and area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert len(curve) == 20


def test_sets_hold_the_label_as_often_as_promised():
    rng = np.random.default_rng(0)
    coverages = []
    for _ in range(200):
        probabilities = rng.dirichlet(np.full(4, 0.4), 500)
        labels = (rng.random((500, 1)) < probabilities.cumsum(1)).argmax(1)
        lowest = set_quantiles(probabilities[:250], labels[:250])["0.9"]
        coverages.append(measure_sets(probabilities[250:], labels[250:], lowest)["coverage"])
    assert 0.89 < np.mean(coverages) < 0.91


def test_a_coverage_that_needs_more_images_has_no_set():
    probabilities, labels = np.tile([[0.6, 0.4]], (9, 1)), np.zeros(9, int)
    found = set_quantiles(probabilities, labels, (0.5, 0.9, 0.95))
    assert found == {"0.5": pytest.approx(0.6), "0.9": pytest.approx(0.6)}
    whole = measure_sets(np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([0, 1]), 0.65)
    assert whole["coverage"] == 0.0 and whole["empty"] == 0.5 and whole["mean_size"] == 0.5
