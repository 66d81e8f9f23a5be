# SPDX-License-Identifier: Apache-2.0
"""evaluation.json of the first version is read as if it had been written today."""

import json

import pytest

from tests.unit.card_files import EVALUATION, METRICS_1, format_1
from training.common.errors import UserError
from training.evaluation.formats import FORMAT, in_format_2, read_evaluation


def test_format_1_becomes_format_2():
    old = format_1()
    assert {key: old[key] for key in METRICS_1} == METRICS_1
    before = json.dumps(old)
    upgraded = in_format_2(old)
    assert upgraded == EVALUATION and FORMAT == upgraded["format"] == 2
    assert list(upgraded) == list(EVALUATION)  # a report in the same order
    assert list(upgraded["metrics"]) == list(EVALUATION["metrics"])
    assert json.dumps(old) == before


def test_format_2_stays_as_it_is():
    assert in_format_2(EVALUATION) is EVALUATION


def test_a_gap_in_format_1_stays_a_gap():
    old = format_1()
    del old["intervals"]["top1"], old["metrics"]["nll"]
    metrics = in_format_2(old)["metrics"]
    assert "interval" not in metrics["top1"] and "nll" not in metrics
    assert metrics["macro_f1"]["interval"] is None  # it never had one
    del old["metrics"], old["intervals"]
    assert in_format_2(old)["metrics"] == {}


def test_the_file_is_not_rewritten(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(format_1()))
    before = path.read_bytes()
    assert read_evaluation(tmp_path) == EVALUATION
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [{**EVALUATION, "format": 3}, {}, [], "text", None])
def test_another_format_is_refused(tmp_path, content):
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_evaluation(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'evaluation.json'} is not of this format: release or train it again"
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"evaluation.json is missing: is .* a finished run?"):
        read_evaluation(tmp_path)
