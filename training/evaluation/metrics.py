"""The reported metrics: the one table of their keys, names, units and Hub types.

evaluation.json repeats these descriptions beside each value, so that whoever reads it (the card, the
console, `food101 evaluate`) iterates over what it says instead of naming metrics. How the values
are computed is in `classification`. This module imports no library, so that argument classes and
readers of evaluation.json stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One metric, as evaluation.json, the card and the Hub describe it."""

    key: str  # in evaluation.json, and after "eval_" in Trainer's log
    name: str
    unit: str  # "share": a number from 0 to 1; else words, such as "nats per image"
    hub_type: str  # metric type in the model-index of the card's front matter
    less_is_better: bool = False
    is_proportion: bool = False  # a count of images divided by all: it has a Wilson interval
    min_labels: int = 1  # with fewer labels it is the same for every model, and is not reported

    def describe(self, value: float, interval: Sequence[float] | None) -> dict[str, Any]:
        """Return the entry of evaluation.json: name, value, interval, unit, hub_type, less_is_better.

        Args:
            value: in the metric's unit.
            interval: (low, high) in the same unit; None where none is known.
        """
        return {
            "name": self.name,
            "value": value,
            "interval": None if interval is None else list(interval),
            "unit": self.unit,
            "hub_type": self.hub_type,
            "less_is_better": self.less_is_better,
        }


# In the order in which they are shown.
METRICS = (
    Metric("top1", "Top-1 accuracy", "share", "accuracy", is_proportion=True),
    Metric("top5", "Top-5 accuracy", "share", "top_5_accuracy", is_proportion=True, min_labels=6),
    Metric("macro_f1", "Macro F1", "share", "f1"),
    Metric("nll", "Negative log-likelihood", "nats per image", "nll", less_is_better=True),
    Metric("ece", "Expected calibration error", "share", "ece", less_is_better=True),
)

# What is computed of every scoring; a metric that is not reported may still be in Trainer's log.
SUMMARY = tuple(metric.key for metric in METRICS)

# transformers knows that a loss should be small, and takes every other metric for an accuracy.
LESS_IS_BETTER = tuple(
    prefix + metric.key for prefix in ("", "eval_") for metric in METRICS if metric.less_is_better
)


def reported_metrics(num_labels: int) -> tuple[Metric, ...]:
    """List the metrics that tell models with so many labels apart; evaluation.json has these only.

    Of five labels every one is among the five best: their top-5 accuracy is always 1.
    """
    return tuple(metric for metric in METRICS if num_labels >= metric.min_labels)
