# SPDX-License-Identifier: Apache-2.0
"""Metrics by hand, against scikit-learn, and where they must refuse."""

import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from training.evaluation.classification import (
    NUM_BINS,
    FoodMetrics,
    class_scores,
    classification_metrics,
    confusion_counts,
    expected_calibration_error,
    log_softmax,
)


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 500)
    logits = rng.normal(0, 1, (500, 12)) + 1.5 * np.eye(12)[labels]
    return logits.astype(np.float32), labels


def test_a_worked_example():
    # Probabilities of three classes; the logarithms are logits of exactly these.
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])
    labels = np.array([0, 1, 2, 0])
    got = classification_metrics(np.log(probabilities), labels)
    assert got["top1"] == 3 / 4
    assert got["nll"] == pytest.approx(-math.log(0.7 * 0.3 * 0.8 * 0.6) / 4)
    predicted = probabilities.argmax(1)
    assert confusion_counts(predicted, labels, 3).tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 1]]
    of_class = class_scores(predicted, labels, 3)
    assert of_class["recall"].tolist() == [1.0, 0.0, 1.0]
    assert of_class["precision"].tolist() == [2 / 3, 0.0, 1.0]
    assert of_class["count"].tolist() == [2, 1, 1]
    assert of_class["f1"] == pytest.approx([0.8, 0.0, 1.0])
    assert got["macro_f1"] == pytest.approx(0.6)
    # One image a bin: |1-.7|, |0-.5|, |1-.8|, |1-.6|.
    assert got["ece"] == pytest.approx((0.3 + 0.5 + 0.2 + 0.4) / 4)


def test_scikit_learn_agrees(scored):
    logits, labels = scored
    got, ids = classification_metrics(logits, labels), np.arange(12)
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    predicted = logits.argmax(1)
    for k in (1, 5):
        expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=k, labels=ids)
        assert got[f"top{k}"] == pytest.approx(expected, abs=1e-12)
    assert got["nll"] == pytest.approx(
        sklearn_metrics.log_loss(labels, probabilities, labels=ids), abs=1e-12
    )
    assert got["macro_f1"] == pytest.approx(
        sklearn_metrics.f1_score(labels, predicted, average="macro"), abs=1e-12
    )
    assert class_scores(predicted, labels, 12)["recall"] == pytest.approx(
        sklearn_metrics.recall_score(labels, predicted, average=None)
    )


def test_ece_by_hand():
    # 0.91 and 0.92 share the 14th of 15 bins (0.867 to 0.933): |1 + 0 - 0.91 - 0.92| = 0.83.
    confidence, correct = np.array([0.91, 0.92, 0.5, 1.0]), np.array([True, False, True, True])
    assert expected_calibration_error(confidence, correct) == pytest.approx((0.83 + 0.5 + 0) / 4)
    assert NUM_BINS == 15


def test_ece_agrees_with_a_plain_loop(scored):
    logits, labels = scored
    probabilities = np.exp(log_softmax(logits.astype(np.float64)))
    confidence, correct = probabilities.max(1), logits.argmax(1) == labels
    expected = 0.0
    for i in range(NUM_BINS):
        inside = (confidence >= i / NUM_BINS) & (confidence < (i + 1) / NUM_BINS)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert classification_metrics(logits, labels)["ece"] == pytest.approx(expected)


def test_ties_count_against_the_model():
    constant = classification_metrics(np.zeros((10, 10)), np.arange(10))
    assert constant["top1"] == 0 and constant["top5"] == 0
    two = classification_metrics(np.array([[2.0, 2.0, 1.0]]), np.array([0]))
    assert two["top1"] == 0 and two["top5"] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = np.zeros((4, 3))
    logits[1, 2] = logits[3, 0] = bad
    with pytest.raises(ValueError, match="2 images have logits that are not finite"):
        classification_metrics(logits, np.zeros(4, int))


def test_fewer_than_five_classes():
    got = classification_metrics(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0]))
    assert (got["top1"], got["top5"]) == (0.5, 1.0)


def test_huge_logits_do_not_overflow():
    got = classification_metrics(np.array([[1e4, 0.0], [0.0, -1e4]]), np.array([0, 1]))
    assert got["nll"] == pytest.approx(5e3)


def test_a_class_without_images_is_counted_as_none():
    labels = np.array([0, 0, 1])
    got = class_scores(labels, labels, 3)
    assert got["count"].tolist() == [2, 1, 0] and got["f1"].tolist() == [1, 1, 0]
    assert (
        classification_metrics(np.eye(3)[labels], labels)["macro_f1"] == 1
    )  # of those with images


def test_the_metric_is_the_function(scored):
    logits, labels = scored
    expected = classification_metrics(logits, labels)
    assert FoodMetrics().compute(predictions=logits, references=labels) == expected
    metric = FoodMetrics()
    for start in range(0, 500, 64):
        batch = slice(start, start + 64)
        metric.add_batch(predictions=logits[batch], references=labels[batch])
    assert metric.compute() == expected
    assert all(isinstance(value, float) for value in expected.values())
    # It can be used again, as Trainer does at every evaluation.
    assert metric.compute(predictions=logits[:10], references=labels[:10]) == (
        classification_metrics(logits[:10], labels[:10])
    )


def test_images_are_counted_in_whole_numbers_where_no_answer_is_right():
    counts = class_scores(np.array([1, 0, 0]), np.array([0, 1, 1]), 3)["count"]
    assert counts.tolist() == [1, 2, 0] and counts.dtype.kind == "i"
