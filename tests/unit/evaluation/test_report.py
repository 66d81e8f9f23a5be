# SPDX-License-Identifier: Apache-2.0
"""evaluation.json and predictions.csv: what is written of a scored split."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from tests.unit.card_files import EVALUATION
from training.data.splits import Source, Split
from training.evaluation.intervals import wilson_interval
from training.evaluation.metrics import SUMMARY
from training.evaluation.predictions import read_predictions
from training.evaluation.report import (
    SECTIONS,
    describe_data,
    describe_metrics,
    measure,
    write_evaluation,
)
from training.evaluation.section import Scored

NAMES = ["cheesecake", "cheese_plate", "mac, cheese"]


def test_a_run_leaves_a_report_of_the_known_keys(tiny_run):
    report = json.loads((tiny_run / "evaluation.json").read_text())
    assert list(report) == list(EVALUATION) and report["format"] == 2
    assert tuple(report["metrics"]) == tuple(key for key in SUMMARY if key != "top5")  # 3 labels
    for key, metric in report["metrics"].items():
        expected = EVALUATION["metrics"][key]
        told = {k: v for k, v in metric.items() if k not in ("value", "interval")}
        assert told == {k: v for k, v in expected.items() if k in told} and len(told) == 4
        assert (metric["interval"] is None) == (expected["interval"] is None)
    top1, n = report["metrics"]["top1"], report["n"]
    assert top1["interval"] == list(wilson_interval(round(top1["value"] * n), n))


def test_proportions_have_an_interval_and_other_shares_do_not():
    values = {"top1": 0.5, "top5": 1.0, "macro_f1": 0.5, "nll": 2.0, "ece": 0.1}
    found = describe_metrics(values, 10, num_labels=6)
    assert [metric["value"] for metric in found.values()] == list(values.values())
    assert found["top1"]["interval"] == list(wilson_interval(5, 10))
    assert found["top5"]["interval"] == list(wilson_interval(10, 10))
    assert [found[key]["interval"] for key in ("macro_f1", "nll", "ece")] == [None] * 3


@pytest.mark.parametrize("num_labels", [2, 5, 6])
def test_top_5_is_reported_where_it_can_be_wrong(num_labels):
    logits = np.eye(num_labels, dtype=np.float32)
    names = [f"label {i}" for i in range(num_labels)]
    found = measure(Scored(logits, np.arange(num_labels), names, None), ())["metrics"]
    assert ("top5" in found) == (num_labels == 6)
    assert [key for key in found if key != "top5"] == ["top1", "macro_f1", "nll", "ece"]


def test_logits_that_are_not_finite_make_no_report():
    logits = np.array([[np.nan, 0.0]], dtype=np.float32)
    with pytest.raises(ValueError, match="1 images have logits that are not finite"):
        measure(Scored(logits, np.array([0]), ["a", "b"], None), SECTIONS)


def test_the_data_are_told():
    split = Split("test", Dataset.from_dict({"label": [0] * 7}), ["a"], "f" * 64, (), left_out=2)
    assert describe_data(Source("dishes", "local", None), split) == {
        "dataset": "dishes",
        "source": "local",
        "dataset_revision": None,
        "dataset_fingerprint": "f" * 64,
        "split": "test",
        "cut": None,
        "n": 7,
        "left_out": 2,
    }


def test_a_label_with_a_comma_comes_back(tmp_path):
    split = SimpleNamespace(dataset={"label": [2, 0]}, label_names=NAMES)
    write_evaluation(tmp_path, {"n": 2}, split, np.array([[0.0, 0, 1], [0, 2, 0]]))
    rows = read_predictions(tmp_path)
    assert [(row["label"], row["predicted"]) for row in rows] == [
        ("mac, cheese", "mac, cheese"),
        ("cheesecake", "cheese_plate"),
    ]
    # The softmax of the highest logit, to six digits.
    assert rows[1]["score"] == f"{np.exp(2) / (np.exp(2) + 2):.6f}"
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"n": 2}


def test_a_number_that_is_none_is_not_written(tmp_path):
    split = SimpleNamespace(dataset={"label": [0]}, label_names=NAMES)
    with pytest.raises(ValueError, match="JSON"):
        write_evaluation(tmp_path, {"n": float("nan")}, split, np.zeros((1, 3)))
    assert not (tmp_path / "evaluation.json").exists()
