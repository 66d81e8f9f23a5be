# SPDX-License-Identifier: Apache-2.0
"""The measurement of "not food": its pictures, its scores, and that the page is its record."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from inference.food_distance import FoodDistance
from training.evaluation.trust.not_food import fit

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "not_food.md"
RESULTS = BENCHMARKS / "results" / "not_food.json"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_pictures_come_from_their_seed_and_differ(module):
    drawing = module("no_food")
    assert len(drawing.KINDS) == 7
    for kind in drawing.KINDS:
        first, second = drawing.draw(kind, 0), drawing.draw(kind, 1)
        assert first.shape == (drawing.SIZE, drawing.SIZE, 3) and first.dtype == np.uint8
        assert np.array_equal(first, drawing.draw(kind, 0)) and not np.array_equal(first, second)
        assert first.std() > 1


def test_pairs_begin_with_the_same(module):
    pairs_of = module("not_food_networks").pairs_of
    labels = [f"dish_{i}" for i in range(10)]
    assert pairs_of(labels, 3) == pairs_of(labels[::-1], 15)[:3]
    assert len(set(pairs_of(labels, 45))) == 45


def fitted(module):
    rng = np.random.default_rng(0)
    means = rng.normal(0, 2, (4, 16))
    labels = np.repeat(np.arange(4), 50)
    features = means[labels] + rng.normal(size=(200, 16)) + 3
    weight = means - means.mean(0)
    return module("not_food_scores").Fitted(features, labels, weight, np.zeros(4))


def test_every_score_is_higher_where_it_is_stranger(module):
    scoring, its = module("not_food_scores"), fitted(module)
    far = np.random.default_rng(1).normal(0, 12, (60, 16))
    for name, score in scoring.scores(its).items():
        food = score(its.features, its.logits(its.features))
        if name not in ("max probability", "energy"):  # what is far away may be sure
            assert scoring.auroc(food, score(far, its.logits(far))) > 0.9, name
    sure, torn = np.array([[9.0, 0, 0, 0]]), np.array([[1.0, 1, 0, 0]])
    for name in ("max probability", "energy"):
        score = scoring.scores(its)[name]
        assert score(None, torn)[0] > score(None, sure)[0]


def test_the_one_that_ships_is_the_one_that_is_measured(module):
    scoring, its = module("not_food_scores"), fitted(module)
    ours = FoodDistance(fit(its.features, its.labels)[0])(its.features)
    theirs = scoring.scores(its)["Mahalanobis"](its.features, its.logits(its.features))
    assert np.allclose(ours, theirs, rtol=1e-3)


def test_auroc_and_what_passes(module):
    scoring = module("not_food_scores")
    assert scoring.auroc(np.array([1.0, 2]), np.array([3.0, 2])) == (1 + 0.75) / 2
    assert scoring.passed(np.arange(100.0), np.array([0.0, 94, 95, 200])) == 0.5


@pytest.mark.skipif(not RESULTS.is_file(), reason="nothing is recorded")
def test_the_page_is_the_record_and_names_no_machine(module):
    benchmark = module("not_food")
    text = RESULTS.read_text(encoding="utf-8")
    assert benchmark.MARKS.get(PAGE.read_text(encoding="utf-8")) == benchmark.page_part(
        json.loads(text)["runs"]
    )
    assert '"/' not in text


def test_something_to_measure_is_asked_for(module, capsys):
    with pytest.raises(SystemExit):
        module("not_food").parse([])
    assert "--backbone or --model" in capsys.readouterr().err
