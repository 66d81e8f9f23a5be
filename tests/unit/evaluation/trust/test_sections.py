# SPDX-License-Identifier: Apache-2.0
"""What evaluation.json says of promises: beside them, how the test images went."""

import numpy as np
import pytest

from tests.unit.evaluation.trust.test_promises import answers
from tests.unit.toys import LABELS, tiny_network
from training.evaluation.section import Scored
from training.evaluation.trust.calibration import measure_calibration
from training.evaluation.trust.promises import settle
from training.evaluation.trust.sections import Abstention, Calibration, Sets
from training.model.config_block import merge_block

SECTIONS = (Calibration(), Abstention(), Sets())


@pytest.fixture(scope="module")
def scored() -> Scored:
    """Test images scored by a model whose block was settled on others."""
    network = tiny_network()
    values = settle(answers(1500, seed=1), True)
    merge_block(network.model.config, **values)
    test = answers(1000, seed=2)
    divided = test.divided(values["temperature"])
    return Scored(divided.logits, test.labels, LABELS, network)


def test_calibration_before_and_after(scored):
    found = Calibration().measure(scored)
    assert found["before"] == measure_calibration(
        scored.logits.astype(np.float64) * found["temperature"], scored.labels
    )
    assert found["before"]["nll"]["value"] > found["after"]["nll"]["value"] + 0.1
    assert found["after"]["ece"]["value"] < found["ece_if_perfect"] + 0.03
    assert found["held_out"] == {"n": 1500, "source": "selection"} and found["bins"] == 15


def test_what_is_answered_is_right_as_often_as_promised(scored):
    found = Abstention().measure(scored)
    assert [row["target"] for row in found["targets"]] == [0.8, 0.85, 0.9, 0.95, 0.98, 0.99]
    kept = [row for row in found["targets"] if row["threshold"] is not None]
    assert kept[0]["answered"] == 1 or kept[0]["answered"] > kept[-1]["answered"]
    for row in kept:
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
        assert row["interval"][1] >= row["target"] and row["n"] == round(row["answered"] * 1000)
    assert found["risk_coverage"][-1][0] == 1 and 0 < found["aurc"] < 0.5


def test_nothing_is_answered_where_no_threshold_keeps_it(scored):
    network = tiny_network()
    merge_block(
        network.model.config, held_out={"n": 9, "source": "selection"}, thresholds={"0.95": None}
    )
    (row,) = Abstention().measure(Scored(scored.logits, scored.labels, LABELS, network))["targets"]
    assert row["n"] == 0 and row["accuracy"] is None and row["interval"] is None


def test_sets_hold_the_label_about_as_often_as_promised(scored):
    found = Sets().measure(scored)["sets"]
    assert [row["promised"] for row in found] == [0.8, 0.9, 0.95]
    for row in found:
        assert row["coverage"] == pytest.approx(row["promised"], abs=0.04)
        assert 1 <= row["mean_size"] <= 3 and row["worst_label_coverage"] <= row["coverage"]


def test_a_model_without_promises_has_none(scored):
    for network in (None, tiny_network()):
        plain = Scored(scored.logits, scored.labels, LABELS, network)
        assert [section.measure(plain) for section in SECTIONS] == [None] * 3
