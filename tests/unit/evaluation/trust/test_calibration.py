# SPDX-License-Identifier: Apache-2.0
"""Temperature, and the measures of calibration, against their definitions."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from training.evaluation.classification import classification_metrics
from training.evaluation.trust.calibration import (
    HIGHEST,
    LOWEST,
    error_if_perfect,
    fit_temperature,
    measure_calibration,
    negative_log_likelihood,
)


def answers(n=4000, num_classes=5, temperature=1.0, seed=0):
    """Logits whose softmax at `temperature` is the chance of each label, and labels drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, num_classes)) * temperature
    chances = softmax(logits / temperature, axis=1)
    labels = (rng.random((n, 1)) < chances.cumsum(1)).argmax(1)
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.5])
def test_a_temperature_is_found_again(temperature):
    logits, labels = answers(temperature=temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.08)
    best = negative_log_likelihood(logits / found, labels)
    for other in (found * 0.99, found * 1.01):
        assert negative_log_likelihood(logits / other, labels) > best


def test_it_stays_within_its_bounds():
    labels = np.zeros(100, int)
    certain = np.tile([[1.0, 0.0]], (100, 1))
    assert fit_temperature(certain, labels) == pytest.approx(LOWEST, rel=1e-3)
    assert fit_temperature(certain, 1 - labels) == pytest.approx(HIGHEST, rel=1e-3)
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperature(np.array([[np.nan, 0]]), np.array([0]))
    with pytest.raises(ValueError, match="finite logits"):
        fit_temperature(np.empty((0, 2)), np.array([], int))


def test_measures_are_their_definitions():
    logits, labels = answers(200)
    chances = softmax(logits.astype(np.float64), axis=1)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, chances))
    expected = ((chances - np.eye(5)[labels]) ** 2).sum(1).mean()
    measured = measure_calibration(logits, labels)
    assert measured["nll"]["value"] == pytest.approx(log_loss(labels, chances))
    assert measured["brier"]["value"] == pytest.approx(expected)
    assert measured["ece"]["value"] == classification_metrics(logits, labels)["ece"]


def test_intervals_hold_the_value_and_are_the_same_each_time():
    logits, labels = answers(300)
    first = measure_calibration(logits, labels)
    assert first == measure_calibration(logits, labels)
    assert list(first) == ["nll", "brier", "ece"]
    for name in ("nll", "brier", "ece"):
        low, high = first[name]["interval"]
        assert low < first[name]["value"] < high


def test_few_images_show_an_error_even_of_a_perfect_model():
    logits, labels = answers(4000)
    few, many = error_if_perfect(logits[:100]), error_if_perfect(logits)
    assert few > 3 * many
    measured = measure_calibration(logits, labels)["ece"]["value"]
    assert measured == pytest.approx(many, abs=0.01)
