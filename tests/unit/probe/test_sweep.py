# SPDX-License-Identifier: Apache-2.0
"""The choice of the strength: out-of-fold scores, a grid that widens and becomes finer."""

import numpy as np
import pytest

from training.evaluation.classification import classification_metrics
from training.probe import sweep
from training.probe.folds import ALWAYS_TRAINED, split_into_folds
from training.probe.logistic import Problem
from training.probe.sweep import CrossValidation, best_exponent, choose_strength, fit_on_main


@pytest.fixture(scope="module")
def toy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (37, 6), labels and folds; the third class has one photograph."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 18 + [1] * 18 + [2])
    features = rng.normal(labels[:, None], 1.0, (37, 6)).astype(np.float32)
    return features, labels, split_into_folds(labels, [f"{i:03d}" for i in range(37)], 0)


def test_every_image_is_scored_by_a_head_that_has_not_seen_it(toy):
    features, labels, folds = toy
    found = CrossValidation(features, labels, folds, 3).logits_of([0.0, -2.0])
    rows = np.flatnonzero(folds != ALWAYS_TRAINED)
    assert list(rows) == list(range(36)) and found[0.0].shape == (36, 3)
    for exponent in (0.0, -2.0):
        for fold in range(folds.max() + 1):
            head = Problem(features[folds != fold], labels[folds != fold], 3).fit(10**exponent)
            expected = head.scores(features[folds == fold])
            np.testing.assert_allclose(found[exponent][folds[rows] == fold], expected, atol=1e-3)


def test_a_held_out_image_has_no_part_in_its_own_score(toy):
    features, labels, folds = toy
    changed = features.copy()
    changed[0] += 1e3  # a part in the mean and deviation would be seen
    before, after = (
        CrossValidation(each, labels, folds, 3).logits_of([0.0])[0.0]
        for each in (features, changed)
    )
    same = folds[:36] == folds[0]
    same[0] = False
    np.testing.assert_allclose(before[same], after[same], atol=1e-9)


class Known:
    """A validation whose nll is lowest at one exponent."""

    def __init__(self, best: float) -> None:
        self.best, self.asked = best, []
        self.labels, self.rows = np.zeros(4, int), np.arange(4)

    def logits_of(self, exponents: list[float]) -> dict[float, np.ndarray]:
        self.asked += exponents
        away = {each: 1 / (1 + abs(each - self.best)) for each in exponents}
        return {each: np.array([[value, 0.0]] * 4) for each, value in away.items()}


def test_the_grid_becomes_finer_around_the_best(caplog):
    known = Known(-1.3)
    found = choose_strength(known, "nll")
    assert known.asked == [*sweep.COARSE, -1.5, -0.5, -1.75, -1.25]
    assert found.strength == 10**-1.25 and not found.at_end and not caplog.messages
    assert list(found.scores) == sorted(found.scores) and len(found.scores) == len(known.asked)
    assert (found.logits == known.logits_of([-1.25])[-1.25]).all()
    expected = classification_metrics(found.logits, np.zeros(4, int))
    assert found.scores[found.strength] == expected


@pytest.mark.parametrize(("best", "further"), [(-6.0, [-4, -5, -6, -7]), (3.0, [2, 3, 4])])
def test_a_best_strength_at_the_edge_widens_the_grid(best, further, caplog):
    known = Known(best)
    found = choose_strength(known, "nll")
    assert (
        known.asked[5 : 5 + len(further)] == further
        and found.strength == 10**best
        and not found.at_end
    )
    assert len(caplog.messages) == len(further)
    assert "is at the edge of the grid: the grid is widened to" in caplog.messages[0]


@pytest.mark.parametrize("best", [-20.0, 20.0])
def test_the_widening_has_an_end_that_is_said(best, caplog):
    known = Known(best)
    found = choose_strength(known, "nll")
    end = sweep.LOWEST if best < 0 else sweep.HIGHEST
    assert found.strength == 10**end and found.at_end
    assert "nothing beyond it is tried" in caplog.messages[-1]
    assert all(sweep.LOWEST <= each <= sweep.HIGHEST for each in known.asked)


def test_of_equals_the_lower_nll_then_the_stronger():
    rows = {-2.0: (0.8, 0.7), -1.0: (0.8, 0.6), 0.0: (0.8, 0.6), 1.0: (0.7, 0.5)}
    scores = {each: dict(zip(("top1", "nll"), row, strict=True)) for each, row in rows.items()}
    assert best_exponent(scores, "top1") == 0.0
    assert best_exponent(scores, "nll") == best_exponent(scores, "loss") == 1.0


def test_the_main_process_fits_for_all(toy):
    features, labels, _ = toy
    problem = Problem(features, labels, 3)
    ours, theirs = fit_on_main(problem, 0.1), problem.fit(0.1)
    assert (ours.weight == theirs.weight).all() and ours.steps == theirs.steps
