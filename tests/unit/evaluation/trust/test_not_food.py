# SPDX-License-Identifier: Apache-2.0
"""What tells pictures without food: which images it is fitted on, what its thresholds refuse."""

import numpy as np
import pytest
import safetensors.numpy

from inference.food_distance import FoodDistance
from tests.unit.toys import LABELS, tiny_network
from training.evaluation.section import Scored
from training.evaluation.trust.not_food import (
    MIN_HELD_OUT,
    SHARES,
    RefusedFood,
    choose_thresholds,
    fit,
    rows_to_fit,
    settle,
    too_few,
)
from training.model.config_block import merge_block

WIDTH = 12


def clouds(n: int, seed: int = 0, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around one of three means, with another variance in each direction."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(9).normal(0, 3, (3, WIDTH))
    labels = rng.integers(0, 3, n)
    spread = np.linspace(0.2, 1.5, WIDTH)
    features = means[labels] + scale * spread * rng.normal(size=(n, WIDTH))
    return features.astype(np.float32), labels


def test_the_distance_is_that_of_the_definition():
    features, labels = clouds(600)
    arrays, shrinkage = fit(features, labels)
    wide = features.astype(np.float64)
    means = np.stack([wide[labels == i].mean(0) for i in range(3)])
    inside = wide - means[labels]
    covariance = inside.T @ inside / len(inside)
    shrunk = (1 - shrinkage) * covariance
    shrunk += shrinkage * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    precision = np.linalg.inv(shrunk)
    expected = [min((x - m) @ precision @ (x - m) for m in means) for x in wide[:50]]
    assert np.allclose(FoodDistance(arrays)(features[:50]), expected, rtol=1e-3)
    assert 0 < shrinkage < 0.2
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_what_lies_elsewhere_is_farther():
    features, labels = clouds(600)
    distance = FoodDistance(fit(features, labels)[0])
    food, other = clouds(200, seed=1)[0], np.random.default_rng(2).normal(0, 3, (200, WIDTH))
    assert np.quantile(distance(food), 0.95) < np.quantile(distance(other), 0.05)


def test_few_images_and_units_that_never_move():
    features, labels = clouds(WIDTH)
    features[:, 0] = 0.0
    arrays, shrinkage = fit(features, labels)
    assert np.isfinite(FoodDistance(arrays)(clouds(50, seed=3)[0])).all() and shrinkage > 0.1
    same = np.ones((6, WIDTH), np.float32)
    assert np.isfinite(FoodDistance(fit(same, np.arange(6) % 3)[0])(same)).all()


def test_a_threshold_refuses_no_more_than_it_promises():
    """On average over draws of the held-out images; each is the least that is so."""
    rng = np.random.default_rng(0)
    for n in (60, 300):
        refused = []
        for _ in range(400):
            found = choose_thresholds(rng.exponential(size=n))
            refused.append(
                [np.exp(-found[f"{s:g}"]) if found[f"{s:g}"] else np.nan for s in SHARES]
            )
        for share, mean in zip(SHARES, np.mean(refused, axis=0), strict=True):
            assert np.isnan(mean) or share - 2.1 / n < mean < share + 0.005, (n, share)


def test_a_share_that_needs_more_images_has_no_threshold():
    found = choose_thresholds(np.arange(60.0))
    assert found == {"0.01": None, "0.02": 59.0, "0.05": 57.0, "0.1": 54.0}


def test_rows_are_few_of_each_label_and_the_same_again():
    labels = np.repeat([0, 1, 2], [600, 300, 3])
    rows = rows_to_fit(labels, limit=90, seed=1)
    assert len(rows) <= 91 and (np.diff(rows) > 0).all()
    assert np.bincount(labels[rows]).tolist() == [59, 29, 2]
    assert np.array_equal(rows, rows_to_fit(labels, limit=90, seed=1))
    assert not np.array_equal(rows, rows_to_fit(labels, limit=90, seed=2))
    assert rows_to_fit(labels).tolist() == list(range(len(labels)))


@pytest.mark.parametrize(
    ("counts", "held_out", "words"),
    [
        ([5, 1, 5], 100, "at least 2 training images of each label, one has 1"),
        ([5, 5, 0], 100, "at least 2 training images of each label, one has 0"),
        ([5, 5, 5], 58, f"at least {MIN_HELD_OUT} selection images, there are 58"),
        ([5, 5, 5], 59, None),
    ],
)
def test_too_few_images_are_named(counts, held_out, words):
    found = too_few(np.repeat(np.arange(3), counts), 3, held_out)
    assert found is None if words is None else words in found


def test_the_file_and_its_facts_fit():
    features, labels = clouds(300)
    held_out = clouds(120, seed=1)[0]
    found = settle(features, labels, held_out, "classifier", 5_000)
    assert found.facts["n_train"] == 5_000 and found.facts["n_fitted"] == 300
    assert found.width == WIDTH and found.facts["n_held_out"] == 120
    assert found == settle(features, labels, held_out, "classifier", 5_000)  # to the byte
    arrays = safetensors.numpy.load(found.data)
    distances = FoodDistance(arrays)(held_out)
    assert (distances > found.facts["thresholds"]["0.05"]).sum() == 5


def test_the_section_counts_what_is_refused():
    network = tiny_network()
    features, labels = clouds(300)
    found = settle(features, labels, clouds(60, seed=1)[0], "classifier", 300)
    merge_block(network.model.config, not_food=found.facts)
    threshold = found.facts["thresholds"]["0.1"]
    distances = np.array([threshold] * 90 + [threshold + 1] * 10)
    scored = Scored(np.zeros((100, 3), np.float32), np.zeros(100, int), LABELS, network, distances)
    value = RefusedFood().measure(scored)
    assert [row["promised"] for row in value["shares"]] == [0.02, 0.05, 0.1]  # 0.01 needs 99
    assert value["shares"][-1]["refused"] == 0.1  # the threshold itself is still food
    low, high = value["shares"][-1]["interval"]
    assert low < 0.1 < high
    without = Scored(scored.logits, scored.labels, LABELS, network)
    assert RefusedFood().measure(without) is None
