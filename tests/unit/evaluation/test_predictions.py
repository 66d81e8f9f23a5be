# SPDX-License-Identifier: Apache-2.0
"""Reading predictions.csv, and what is no such table."""

import pytest

from training.common.errors import UserError
from training.evaluation.predictions import read_predictions


def test_rows_in_their_order(tmp_path):
    text = 'position,label,predicted,score\n0,"mac, cheese",pizza,0.5\n1,pizza,pizza,0.9\n'
    (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
    assert read_predictions(tmp_path) == [
        {"position": "0", "label": "mac, cheese", "predicted": "pizza", "score": "0.5"},
        {"position": "1", "label": "pizza", "predicted": "pizza", "score": "0.9"},
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a table"),
        (b"position,label\n0,pizza\n", "is not a table"),
        (b"label,predicted,score\npizza,pizza\n", "is not a table"),  # a row that is cut off
        (b"label,predicted,score\npizza,pizza,1,2\n", "is not a table"),  # one with a cell too many
        (b'label,predicted,score\n0,"a\n', "is not CSV"),
        (b"label,predicted,score\n\xff,a,1\n", "is not CSV"),  # no UTF-8
    ],
)
def test_a_damaged_table_is_named(tmp_path, content, said):
    (tmp_path / "predictions.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"predictions.csv {said}") as error:
        read_predictions(tmp_path)
    assert "\n" not in str(error.value) and "restore it, or train again" in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"predictions.csv is missing: is .* a finished run?"):
        read_predictions(tmp_path)
