# SPDX-License-Identifier: Apache-2.0
"""The blocks about how sure a model is."""

import pytest

from model_card.checks import MissingFactError
from model_card.sections.trust import Abstention, Calibration, Sets

HELD_OUT = {"n": 375, "source": "selection"}


def measured(nll: float, ece: float) -> dict:
    values = {"nll": nll, "brier": 0.4, "ece": ece}
    return {k: {"value": v, "interval": [v - 0.01, v + 0.01]} for k, v in values.items()}


def calibration(**more) -> dict:
    return {
        "temperature": 2.27, "held_out": HELD_OUT, "bins": 15, "before": measured(1.175, 0.166),
        "after": measured(0.859, 0.054), "ece_if_perfect": 0.052, **more,
    }  # fmt: skip


def test_calibration_before_and_after():
    block = Calibration()
    text = block.markdown(block.check(calibration()), n=375)
    assert "divided by the temperature 2.270, fitted on 375 selection images" in text
    assert "chose the checkpoint as well" in text
    assert (
        "| Negative log-likelihood, nats | 1.175 (1.165 to 1.185) | 0.859 (0.849 to 0.869) |"
        in (text)
    )
    assert "shows 0.052 on so many images" in text


def test_out_of_fold_scores_are_called_so():
    block = Calibration()
    value = calibration(held_out={"n": 300, "source": "out of fold"})
    text = block.markdown(block.check(value), n=375)
    assert "fitted on the out-of-fold scores of 300 images" in text and "optimistic" not in text


def test_promised_and_measured_stand_side_by_side():
    rows = [
        {"target": 0.9, "threshold": 0.71, "n": 300, "answered": 0.8, "accuracy": 0.95,
         "interval": [0.92, 0.97]},
        {"target": 0.95, "threshold": 0.999, "n": 0, "answered": 0.0, "accuracy": None,
         "interval": None},
        {"target": 0.99, "threshold": None, "n": 0, "answered": 0.0, "accuracy": None,
         "interval": None},
    ]  # fmt: skip
    value = {"held_out": HELD_OUT, "confidence": 0.95, "aurc": 0.04, "targets": rows}
    block = Abstention()
    text = block.markdown(block.check(value), n=375)
    assert "| 90 % | 0.710 | 80.0 % | 95.0 % (92.0 to 97.0 %) | 300 |" in text
    assert "| 95 % | 0.999 | 0.0 % |  | 0 |" in text
    assert "| 99 % | none keeps it |  |  |  |" in text
    assert "holds with 95 % confidence" in text


def test_sets():
    row = {"promised": 0.9, "coverage": 0.912, "mean_size": 2.131, "empty": 0.0,
           "worst_label_coverage": 0.8}  # fmt: skip
    block = Sets()
    text = block.markdown(block.check({"held_out": HELD_OUT, "sets": [row]}), n=375)
    assert "| 90 % | 91.2 % | 2.13 | 0.0 % | 80.0 % |" in text


@pytest.mark.parametrize(
    ("block", "value", "lacking"),
    [
        (Calibration(), {k: v for k, v in calibration().items() if k != "bins"}, "bins"),
        (Abstention(), {"held_out": HELD_OUT, "confidence": 0.95, "aurc": 0.1}, "targets"),
        (Sets(), {"held_out": HELD_OUT, "sets": [{"promised": 0.9}]}, "coverage"),
    ],
)
def test_a_missing_value_is_named(block, value, lacking):
    with pytest.raises(MissingFactError, match=lacking):
        block.check(value)
