# SPDX-License-Identifier: Apache-2.0
"""The table of the reported metrics, and what follows from it."""

import subprocess
import sys

import numpy as np

from training.evaluation.classification import classification_metrics
from training.evaluation.metrics import LESS_IS_BETTER, METRICS, SUMMARY, Metric, reported_metrics


def test_every_computed_metric_is_described_and_the_other_way_round():
    assert tuple(classification_metrics(np.eye(3), np.arange(3))) == SUMMARY
    assert len({metric.hub_type for metric in METRICS}) == len(METRICS)


def test_what_should_be_small_goes_by_its_name_in_both_places():
    assert set(LESS_IS_BETTER) == {"nll", "ece", "eval_nll", "eval_ece"}


def test_top_5_of_five_labels_is_not_reported():
    """It is 1 for every model; it is computed all the same, for who selects by it."""
    assert [metric.key for metric in reported_metrics(5)] == ["top1", "macro_f1", "nll", "ece"]
    assert reported_metrics(6) == METRICS
    worst = classification_metrics(np.eye(5), np.roll(np.arange(5), 1))
    assert (worst["top1"], worst["top5"]) == (0, 1)


def test_a_description_says_all_that_a_reader_needs():
    brier = Metric("brier", "Brier score", "share", "brier_score", less_is_better=True)
    assert brier.describe(0.25, (0.2, 0.3)) == {
        "name": "Brier score",
        "value": 0.25,
        "interval": [0.2, 0.3],
        "unit": "share",
        "hub_type": "brier_score",
        "less_is_better": True,
    }
    assert brier.describe(0.25, None)["interval"] is None


def test_the_table_costs_no_heavy_import():
    """Argument classes and `food101 compare` read it."""
    script = (
        "import sys, training.evaluation.metrics, training.evaluation.formats; "
        "print(sorted({'numpy', 'torch', 'datasets', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
