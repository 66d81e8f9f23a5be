"""Sections of evaluation.json about single classes: their scores, and which are confused."""

from __future__ import annotations

from typing import Any

import numpy as np

from training.evaluation.classification import class_scores, confusion_counts
from training.evaluation.section import Scored

NUM_PAIRS = 10  # of the confused pairs, the most frequent


class PerClass:
    """Scores of every class, in the order of the class ids."""

    key = "per_class"

    def measure(self, scored: Scored) -> list[dict[str, Any]]:
        """Return one object a class: label, n (test images), recall, precision, f1.

        Scores are from 0 to 1. null: there is nothing to divide by. Recall and F1 need a test image
        of the class, precision an image that the model called so.
        """
        predicted, num_classes = scored.logits.argmax(1), len(scored.label_names)
        scores = {
            key: values.tolist()
            for key, values in class_scores(predicted, scored.labels, num_classes).items()
        }
        answers = np.bincount(predicted, minlength=num_classes)
        return [
            {
                "label": label,
                "n": n,
                "recall": scores["recall"][i] if n else None,
                "precision": scores["precision"][i] if answers[i] else None,
                "f1": scores["f1"][i] if n else None,
            }
            for i, (label, n) in enumerate(zip(scored.label_names, scores["count"], strict=True))
        ]


class MostConfused:
    """The pairs of classes that were confused most often."""

    key = "most_confused"

    def measure(self, scored: Scored) -> list[dict[str, Any]]:
        """List the `NUM_PAIRS` most frequent confusions: label, predicted, n (images)."""
        names = scored.label_names
        wrong = confusion_counts(scored.logits.argmax(1), scored.labels, len(names))
        np.fill_diagonal(wrong, 0)
        # Stable: among equally frequent pairs the order is that of the class ids.
        ranked = np.argsort(-wrong, axis=None, kind="stable")[:NUM_PAIRS]
        pairs = [divmod(int(position), len(names)) for position in ranked]
        return [
            {"label": names[i], "predicted": names[j], "n": int(wrong[i, j])}
            for i, j in pairs
            if wrong[i, j]
        ]
