# SPDX-License-Identifier: Apache-2.0
"""Nothing vanishes: what is counted, and how it is told."""

from pathlib import Path

from datasets import Dataset

from training.data.found import Found, LeftOut, count_kinds, names, plain, relative, say_left_out

GONE = [
    LeftOut("a/1.HEIC", ".HEIC", "not a readable image: x"),
    LeftOut("a/2.HEIC", ".HEIC", "not a readable image: y"),
    LeftOut("b.txt", ".txt", "no image"),
    LeftOut("c", "hidden", "hidden"),
]


def test_everything_is_counted():
    rows = Dataset.from_dict({"image": [None] * 3, "label": ["a"] * 3})
    found = Found("x", {"train": [rows, rows], "test": [rows]}, tuple(GONE), tuple(GONE[:1]))
    assert found.num_rows("train") == 6 and found.num_found() == 9 + 5


def test_kinds_are_counted_together_most_first():
    assert count_kinds(GONE) == {
        ".HEIC, not a readable image": 2, ".txt, no image": 1, "hidden": 1,
    }  # fmt: skip
    assert say_left_out(GONE, 118) == (
        "4 of 118 left out: 2 .HEIC, not a readable image; 1 .txt, no image; 1 hidden; first: "
        "a/1.HEIC, a/2.HEIC, b.txt and 1 more"
    )


def test_paths_are_told_relative_to_the_data_set():
    assert relative("/data/d/a/1.jpg", Path("/data/d")) == "a/1.jpg"
    assert relative("/home/me/1.jpg", Path("/data/d")) == "1.jpg"  # nobody's business
    assert relative("1.jpg", Path("/data/d")) == relative("1.jpg", None) == "1.jpg"


def test_names_and_how_many_more():
    assert names("abcde") == "a, b, c and 2 more" and names("ab") == "a, b" and names([]) == ""


def test_a_name_stays_on_its_line():
    assert plain("a\nb\x1b[31m\u2028c") == "a\\nb\\x1b[31m\\u2028c"
    assert plain("cr\u00e8me \U0001f355 \u05d0") == "cr\u00e8me \U0001f355 \u05d0"
    assert names(["a\nb"]) == "a\\nb"
