# SPDX-License-Identifier: Apache-2.0
"""Values as the card writes them."""

import pytest

from model_card import words
from model_card.words import duration, hide_paths, many, percent


def test_values_are_written_for_people():
    assert [many(n, "process") for n in (1, 2.0)] == ["1 process", "2 processes"]
    assert [duration(s) for s in (0.04, 59.96, 3599.6)] == ["0.0 s", "1 min 0 s", "1 h 0 min"]
    assert [percent(s, 100) for s in (1.0, 0.9999)] == ["100.0 %", "99.99 %"]
    assert hide_paths("-d ethz/food101 -o ~/x --a=C:\\Users\\me\\y ./z") == (
        "-d ethz/food101 -o .../x --a=.../y ./z"
    )


def test_tables_keep_their_columns():
    assert words.code("mac `n` | cheese\n") == "`mac 'n' \\| cheese`"
    assert words.plain("a|b *c*\n<i> `d`") == r"a\|b \*c\* \<i\> \`d\`"
    assert words.plain("크렘 브륄레, Crème brûlée (2)") == "크렘 브륄레, Crème brûlée (2)"
    assert words.table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("write", "values", "text"),
    [
        (words.count, (25250,), "25,250"),
        (words.span, ((0.8926, 0.9001), 25250), "89.26 to 90.01 %"),
        (words.span, ((0.8926, 1.0), 300), "89.3 to 100.0 %"),
        (words.points, (0.0231, 25250), "2.31 percentage points"),
        (words.versions, ([("numpy", "2.5.1"), ("torch", "2.13.0")],), "numpy 2.5.1, torch 2.13.0"),
    ],
)
def test_examples(write, values, text):
    assert write(*values) == text
