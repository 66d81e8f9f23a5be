# SPDX-License-Identifier: Apache-2.0
"""A comparison as tables of text."""

from training.compare.runs import compare_runs
from training.compare.text import render, table


def test_the_text(pair):
    report = compare_runs(list(pair))
    text = render(report)
    low, high = (f"{100 * bound:+.2f}" for bound in report["pairs"][0]["interval"])
    lines = [line for line in text.splitlines() if line.startswith(pair[1])]
    assert "80.00%" in lines[0] and "85,876,325" in lines[0]
    assert lines[1].split()[1:] == ["+5.00", low, "to", high, "3", "4", "1.0000"]
    assert "images/s" not in text and "Newcombe" in text


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(["run", "n"], [["a", "1,000"], ["long name", "2"]]) == [
        "run            n",
        "a          1,000",
        "long name      2",
    ]


def test_speed_has_columns_and_a_line_of_its_own(pair):
    report = compare_runs(list(pair))
    spread = {"median": 1234.5, "min": 1000.0, "max": 2000.0}
    ratio = {"median": 1.5, "min": 1.25, "max": 2.0}
    report["speed"] = {
        "device": "cpu",
        "threads": 2,
        "precision": "float32",
        "batch_size": 8,
        "rounds": 3,
        "images_per_second": [{"name": name, **spread} for name in pair],
        "times_the_first": [{"name": name, **ratio} for name in pair],
    }
    text = render(report)
    (row,) = [line for line in text.splitlines() if line.startswith(pair[1]) and "ViT" in line]
    assert row.split()[-6:] == ["ViT", "1,234.5", "1.50", "(1.25", "to", "2.00)"]
    assert "float32, cpu, 2 threads, batch 8, medians of 3 rounds in turn" in text


def test_a_small_p_value_is_not_written_as_nothing(pair):
    report = compare_runs(list(pair))
    report["pairs"][0]["mcnemar_p"] = 1e-9
    assert "below 0.0001" in render(report)
