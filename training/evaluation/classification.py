"""Compute the metrics of a classifier from its logits; nothing is downloaded.

Everything is a sum over images divided once by a count, in float64. `FoodMetrics` is the same
computation as an `evaluate.Metric`, used by training and by `food101 evaluate`.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

NUM_BINS = 15  # equal-width confidence bins, as in Guo et al. 2017 (arXiv:1706.04599)


class FoodMetrics(evaluate.Metric):
    """`classification_metrics` as an `evaluate.Metric`.

    predictions: logits, float (num_images, num_classes); references: int (num_images,).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, F1 and calibration of a single-label classifier.",
            citation="",
            inputs_description="logits (num_images, num_classes) and class ids (num_images,)",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return classification_metrics(np.asarray(predictions), np.asarray(references))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute top1, top5, macro_f1, nll (nats per image) and ece, the keys of `metrics.METRICS`.

    Ties count against the model: an image is right only if no other class scores as high.

    Args:
        logits: (num_images, num_classes).
        labels: class ids, (num_images,).

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError(
            f"{int((~np.isfinite(logits)).any(1).sum())} images have logits that are not finite"
        )
    logits = logits.astype(np.float64)
    num_images, num_classes = logits.shape
    log_probs = log_softmax(logits)
    of_label = logits[np.arange(num_images), labels][:, None]
    rank = (logits >= of_label).sum(1)  # 1 is best
    predicted = logits.argmax(1)
    confidence = np.exp(log_probs.max(1))
    scores = class_scores(predicted, labels, num_classes)
    return {
        "top1": float((rank == 1).mean()),
        "top5": float((rank <= 5).mean()),
        "macro_f1": float(scores["f1"][scores["count"] > 0].mean()),  # no images, no F1
        "nll": float(-log_probs[np.arange(num_images), labels].mean()),
        "ece": expected_calibration_error(confidence, predicted == labels),
    }


def class_scores(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
    """Compute precision, recall, f1 and count (test images) of each class, (num_classes,) each.

    A score is 0 where there is nothing to divide by.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(num_classes), zero_division=0.0
    )
    # Not scikit-learn's own count: it is a float where no answer at all is right.
    count = np.bincount(labels, minlength=num_classes)
    return {"precision": precision, "recall": recall, "f1": f1, "count": count}


def confusion_counts(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the images of each (label, predicted) pair of class ids, (num_classes, num_classes)."""
    return confusion_matrix(labels, predicted, labels=np.arange(num_classes))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits (num_images, num_classes) into log-probabilities of the same shape, in nats."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Average |accuracy - confidence| over `NUM_BINS` bins, weighted by their counts.

    Args:
        confidence: probability of the predicted class, (num_images,).
        correct: whether that class is the label, bool (num_images,).
    """
    bins = np.clip((confidence * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
