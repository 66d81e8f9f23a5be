"""One `evaluate.Metric`, used by training and by `food101 evaluate`; nothing is downloaded.

Everything is a sum over images divided once by a count, in float64.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

NUM_BINS = 15  # equal-width confidence bins, as in Guo et al. 2017 (arXiv:1706.04599)

SUMMARY = ("top1", "top5", "macro_f1", "nll", "ece")


class FoodMetrics(evaluate.Metric):
    """top1, top5, macro_f1, nll (nats), ece; per class recall, precision, f1 and count.

    predictions: logits, float (num_images, num_classes); references: int (num_images,).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, calibration and per-class scores of a single-label classifier.",
            citation="",
            inputs_description="logits (num_images, num_classes) and class ids (num_images,)",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list, references: list) -> dict[str, Any]:
        return classification_metrics(np.asarray(predictions), np.asarray(references))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """All metrics of (num_images, num_classes) logits.

    Ties count against the model: an image is right only if no other class scores as high.

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
    ids = np.arange(num_classes)
    precision, recall, f1, count = precision_recall_fscore_support(
        labels, predicted, labels=ids, zero_division=0.0
    )
    return {
        "top1": float((rank == 1).mean()),
        "top5": float((rank <= 5).mean()),
        "macro_f1": float(f1[count > 0].mean()),  # a class without images has no F1
        "nll": float(-log_probs[np.arange(num_images), labels].mean()),
        "ece": expected_calibration_error(confidence, predicted == labels),
        "recall": recall.tolist(),
        "precision": precision.tolist(),
        "f1": f1.tolist(),
        "count": count.tolist(),
        "confusion": confusion_matrix(labels, predicted, labels=ids).tolist(),
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(num_images, num_classes) -> the same shape, in nats."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean |accuracy - confidence| over `NUM_BINS` bins, weighted by their counts."""
    bins = np.clip((confidence * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


# transformers knows that a loss should be small, and takes every other metric for an accuracy.
LESS_IS_BETTER = ("nll", "ece", "eval_nll", "eval_ece")
