# SPDX-License-Identifier: Apache-2.0
"""The optimum of a logistic regression, and the float32 layer that it becomes: scikit-learn is the witness."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.probe.logistic import Problem, steady


@pytest.fixture(autouse=True)
def quick():
    with steady():
        yield


def clouds(num_labels: int, width: int = 12, each: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds whose features have unlike means and spreads, float32."""
    rng = np.random.default_rng(num_labels)
    labels = np.tile(np.arange(num_labels), each)
    centres = rng.normal(0, 1, (num_labels, width))
    plain = centres[labels] + rng.normal(0, 1.5, (len(labels), width))
    return (plain * rng.uniform(0.1, 9, width) + rng.normal(0, 20, width)).astype(
        np.float32
    ), labels


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("num_labels", [2, 3, 7])
def test_probabilities_are_those_of_a_scikit_learn_pipeline(num_labels, strength):
    features, labels = clouds(num_labels)
    fitted = Problem(features, labels, num_labels).fit(strength)
    # Of two classes scikit-learn penalises the one row of their difference, which counts twice.
    c = (2 if num_labels == 2 else 1) / (strength * len(labels))
    witness = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=9999))
    expected = witness.fit(features.astype(np.float64), labels).predict_proba(features)
    found = torch.softmax(torch.from_numpy(fitted.scores(features)), 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_two_labels_are_the_optimum_of_a_softmax():
    """Against torch: mean cross-entropy and strength / 2 times the squares of both rows."""
    features, labels = clouds(2)
    problem = Problem(features, labels, 2)
    fitted = problem.fit(0.1)
    inputs, targets = torch.from_numpy(problem.inputs), torch.from_numpy(labels)
    weight = torch.zeros(2, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, targets)
        (value := value + 0.05 * weight.square().sum()).backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose(fitted.weight, weight.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(fitted.bias, bias.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("num_labels", [2, 5])
def test_the_folded_layer_scores_as_the_solution(num_labels, with_bias):
    """float32 and plain features against float64 and standardised ones: 1e-4 of a logit."""
    features, labels = clouds(num_labels)
    fitted = Problem(features, labels, num_labels, with_bias).fit(0.01)
    weight, bias = (torch.from_numpy(each) for each in fitted.folded())
    assert weight.dtype == bias.dtype == torch.float32 and bias.any() == with_bias
    scores = torch.nn.functional.linear(torch.from_numpy(features), weight, bias).numpy()
    np.testing.assert_allclose(scores, fitted.scores(features), atol=1e-4)
    assert (scores.argmax(1) == fitted.scores(features).argmax(1)).all()


def test_a_warm_start_ends_at_the_same_optimum_sooner():
    features, labels = clouds(5)
    problem = Problem(features, labels, 5)
    alone, near = problem.fit(0.01), problem.fit(0.0105)
    warm = problem.fit(0.01, near)
    np.testing.assert_allclose(warm.weight, alone.weight, atol=1e-5)
    assert warm.steps < alone.steps
    for num_labels in (2, 5):
        problem = Problem(*clouds(num_labels), num_labels)
        there = problem.fit(0.1)
        assert problem.fit(0.1, there).steps <= 2  # it begins where it should


def test_features_that_do_not_vary_count_nothing():
    features, labels = clouds(3)
    features[:, 0], features[:, 1] = 7.0, 3e4
    features[::2, 1] = np.nextafter(np.float32(3e4), np.float32(4e4))  # float32's last bit
    fitted = Problem(features, labels, 3).fit(0.1)
    weight, bias = fitted.folded()
    assert np.isfinite(weight).all() and np.isfinite(bias).all() and not weight[:, :2].any()


def test_features_all_alike_give_the_shares_of_the_labels():
    labels = np.array([0, 0, 0, 1, 1, 2])
    fitted = Problem(np.ones((6, 4), np.float32), labels, 3).fit(0.1)
    shares = torch.softmax(torch.from_numpy(fitted.scores(np.ones((1, 4)))), 1)[0]
    np.testing.assert_allclose(shares, [3 / 6, 2 / 6, 1 / 6], atol=1e-5)


def test_the_strength_is_counted_an_image():
    features, labels = clouds(3)
    once = Problem(features, labels, 3).fit(0.1)
    twice = Problem(np.concatenate([features] * 2), np.concatenate([labels] * 2), 3).fit(0.1)
    np.testing.assert_allclose(once.weight, twice.weight, atol=1e-5)


def test_a_class_without_an_image_is_an_error():
    features, labels = clouds(3)
    with pytest.raises(ValueError, match="3 of 4 classes have images"):
        Problem(features, labels, 4)


def test_a_fit_that_does_not_come_to_its_end_says_so(monkeypatch, caplog):
    monkeypatch.setattr("training.probe.logistic.MAX_STEPS", 2)
    Problem(*clouds(5), 5).fit(0.01)
    assert "strength 0.01 ended after 2 steps with a gradient of" in caplog.text
