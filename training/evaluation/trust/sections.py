"""Sections of evaluation.json about how sure a model is: what was promised, and how the test split went.

The promises stand in the block of the model's config. A section is null where it has none: the model
was trained before there were any, or held-out images were too few.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.food_answers import CONFIDENCE
from training.evaluation.classification import NUM_BINS, log_softmax
from training.evaluation.intervals import wilson_interval
from training.evaluation.section import Scored
from training.evaluation.trust.abstention import COVERAGES, measure_sets, risk_coverage
from training.evaluation.trust.calibration import error_if_perfect, measure_calibration
from training.model.config_block import read_block

SHOWN_COVERAGES = ("0.8", "0.9", "0.95")  # of the sets
assert {float(each) for each in SHOWN_COVERAGES} <= set(COVERAGES)


class Calibration:
    """Whether scores mean what they say, before the temperature was folded and after."""

    key = "calibration"

    def measure(self, scored: Scored) -> dict[str, Any] | None:
        """Return temperature, held_out, bins, before, after and ece_if_perfect; null: no temperature.

        before and after hold nll, brier and ece as {"value", "interval"}; the logits before are those
        of the model times its temperature. ece_if_perfect is what a model whose scores mean exactly
        what they say shows on so many images.
        """
        block = _block(scored)
        if (temperature := block.get("temperature")) is None:
            return None
        logits = scored.logits.astype(np.float64)
        return {
            "temperature": temperature,
            "held_out": block["held_out"],
            "bins": NUM_BINS,
            "before": measure_calibration(logits * temperature, scored.labels),
            "after": measure_calibration(logits, scored.labels),
            "ece_if_perfect": error_if_perfect(logits),
        }


class Abstention:
    """How often the model is right when it answers only what it is sure of."""

    key = "abstention"

    def measure(self, scored: Scored) -> dict[str, Any] | None:
        """Return held_out, confidence, targets, risk_coverage and aurc; null: nothing was promised.

        Each target has target, threshold (null: none keeps it), n (answered test images), answered
        (their share), accuracy of them and its interval; null where nothing is answered.
        """
        block = _block(scored)
        if "thresholds" not in block:
            return None
        sure, right = _chances(scored).max(1), scored.logits.argmax(1) == scored.labels
        curve, area = risk_coverage(sure, right)
        return {
            "held_out": block["held_out"],
            "confidence": CONFIDENCE,
            "targets": [
                _answered(float(target), threshold, sure, right)
                for target, threshold in block["thresholds"].items()
            ],
            "risk_coverage": curve,
            "aurc": area,
        }


def _answered(
    target: float, threshold: float | None, sure: np.ndarray, right: np.ndarray
) -> dict[str, Any]:
    """Measure what lies above one threshold; scores are compared as the pipeline compares them."""
    answered = np.zeros(len(sure), bool) if threshold is None else sure >= threshold
    n, hits = int(answered.sum()), int(right[answered].sum())
    return {
        "target": target,
        "threshold": threshold,
        "n": n,
        "answered": n / len(sure),
        "accuracy": hits / n if n else None,
        "interval": list(wilson_interval(hits, n)) if n else None,
    }


class Sets:
    """How often a set of labels holds the right one, and how many it names."""

    key = "sets"

    def measure(self, scored: Scored) -> dict[str, Any] | None:
        """Return held_out and sets, for some coverages; null: there are none.

        Each has promised (the coverage) and what `measure_sets` returns.
        """
        block = _block(scored)
        if not block.get("sets"):
            return None
        chances = _chances(scored)
        return {
            "held_out": block["held_out"],
            "sets": [
                {
                    "promised": float(coverage),
                    **measure_sets(chances, scored.labels, block["sets"][coverage]),
                }
                for coverage in SHOWN_COVERAGES
                if coverage in block["sets"]
            ],
        }


def _block(scored: Scored) -> dict[str, Any]:
    return {} if scored.network is None else read_block(scored.network.model.config)


def _chances(scored: Scored) -> np.ndarray:
    return np.exp(log_softmax(scored.logits.astype(np.float64)))
