# SPDX-License-Identifier: Apache-2.0
"""The benchmark of calibration and abstention: its halves, and what its tables say."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def trust(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("trust")


@pytest.fixture(scope="module")
def calibrated() -> tuple[np.ndarray, np.ndarray]:
    """Chances of 600 images that mean what they say."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(4, 0.25), 600)
    return chances, (rng.random((600, 1)) < chances.cumsum(1)).argmax(1)


def test_the_bound_keeps_its_promise_and_the_rate_does_not(trust, calibrated):
    found = trust.try_halves(*calibrated)
    rows = {(row["target"], row["chosen_by"]): row for row in found["targets"]}
    assert list(rows) == [(0.9, "bound"), (0.9, "rate"), (0.95, "bound"), (0.95, "rate")]
    assert rows[0.9, "bound"]["below_target"] < rows[0.9, "rate"]["below_target"]
    assert rows[0.9, "bound"]["answered"] < rows[0.9, "rate"]["answered"]
    assert found["sets"]["coverage"] == pytest.approx(0.9, abs=0.03)


def test_a_threshold_that_is_never_found_is_said(trust):
    chances, labels = np.full((100, 2), 0.5), np.arange(100) % 2
    row = trust.try_halves(chances, labels)["targets"][0]
    assert row["found"] == 0 and row["answered"] is None and row["accuracy"] is None


def test_the_tables(trust, calibrated):
    measured = {
        "nll": {"value": 1.2}, "brier": {"value": 0.5}, "ece": {"value": 0.1},
    }  # fmt: skip
    calibration = {
        "temperature": 2.0, "held_out": {"n": 300, "source": "selection"}, "before": measured,
        "after": measured, "ece_if_perfect": 0.05,
    }  # fmt: skip
    halves = trust.try_halves(*calibrated)
    row = {"name": "probe", "top1": 0.5, "n": 600, "calibration": calibration, "halves": halves}
    text = trust.tables([row, {**row, "name": "other", "calibration": None}])
    assert "| probe | 50.0%, 600 | 2.00, 300 selection | 1.200 -> 1.200 |" in text
    assert "| other | 50.0%, 600 | none |" in text
    assert text.count("Clopper-Pearson") == 4 and text.count("\n\n") == 2


def test_a_page_without_a_place_is_refused(trust, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("")
    assert trust.main(["--table", "--write", str(page)]) == 2
    assert "the page needs the lines" in capsys.readouterr().out


def test_the_page_holds_what_the_script_prints(trust):
    page = (BENCHMARKS.parent / "docs" / "trust.md").read_text(encoding="utf-8")
    assert trust.MARKS.get(page) == trust.tables(trust.recorded(trust.RESULTS)), (
        "run `python benchmarks/trust.py --table --write docs/trust.md` and read the prose again"
    )


def test_recorded_networks_name_no_machine(trust):
    text = trust.RESULTS.read_text(encoding="utf-8")
    assert not re.search(r'"(/|[A-Z]:\\)', text) and trust.recorded(trust.RESULTS)
