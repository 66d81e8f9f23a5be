# SPDX-License-Identifier: Apache-2.0
"""The table of results: a row for each metric that evaluation.json describes."""

from model_card.sections import results
from tests.unit.card_files import DIGEST, facts_of, files


def test_todays_metrics():
    rest = "25,250 | `validation` | `ethz/food101`, revision `0123456789ab` |"
    assert results.metrics(facts_of(files())).splitlines() == [
        "| Metric | Value | Interval | n | Split | Data set |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| Top-1 accuracy | 89.64 % | 89.26 to 90.01 % | {rest}",
        f"| Top-5 accuracy | 98.00 % | 97.82 to 98.17 % | {rest}",
        f"| Macro F1 | 89.60 % | - | {rest}",
        f"| Negative log-likelihood, nats per image | 0.412 | - | {rest}",
        f"| Expected calibration error | 2.31 % | - | {rest}",
    ]


def test_a_metric_that_is_no_share_may_have_an_interval():
    both = files("local")
    nll = both["evaluation"]["metrics"]["nll"]
    nll |= {"name": "Area", "unit": "points", "value": 2.0, "interval": [1.5, 2.25]}
    text = results.metrics(facts_of(both))
    assert "| Area, points | 2.000 | 1.500 to 2.250 | 25,250 |" in text
    assert f"`food10`, content `{DIGEST[:12]}` |" in text
