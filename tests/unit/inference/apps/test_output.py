# SPDX-License-Identifier: Apache-2.0
"""Answers as lines, as CSV and as JSON."""

import csv
import io
import json
import os

import pytest

from inference.apps.output import Csv, Json, Lines, as_text, one_line
from inference.apps.predict import Answer

ROWS = [
    {"label": "mac, cheese", "name": "Mac, cheese", "score": 0.75},
    {"label": "pizza", "name": "Pizza", "score": 0.25},
]
ANSWERS = [
    Answer("a\nb.jpg", ROWS),
    Answer("bad.jpg", [], "no image"),
    Answer(os.fsdecode(b"caf\xe9.jpg"), ROWS[:1]),
]


@pytest.fixture
def printed(capsys):
    def printed(writer, answers=ANSWERS) -> str:
        for answer in answers:
            writer.add(answer)
        writer.end()
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return printed


def test_lines(printed):
    assert printed(Lines()).splitlines() == [
        r"a\nb.jpg: Mac, cheese 75.0%, Pizza 25.0%",
        r"caf\udce9.jpg: Mac, cheese 75.0%",
    ]


def test_rows(printed):
    rows = list(csv.reader(io.StringIO(printed(Csv()))))
    assert rows == [
        ["image", "rank", "label", "name", "score"],
        ["a\nb.jpg", "1", "mac, cheese", "Mac, cheese", "0.75"],
        ["a\nb.jpg", "2", "pizza", "Pizza", "0.25"],
        [r"caf\udce9.jpg", "1", "mac, cheese", "Mac, cheese", "0.75"],
    ]
    assert printed(Csv(), ANSWERS[1:2]) == ""


def test_what_may_be_no_food(printed):
    more = {"answered": None, "set": None, "not_food": True}
    answers = [
        Answer("cat.jpg", ROWS, more=more),
        Answer("pie.jpg", ROWS, more={**more, "not_food": False}),
    ]
    assert [line.split("%")[0] for line in printed(Lines(), answers).splitlines()] == [
        "cat.jpg: may be no food; Mac, cheese 75.0",
        "pie.jpg: Mac, cheese 75.0",
    ]
    rows = list(csv.reader(io.StringIO(printed(Csv(), answers))))
    assert (
        rows[0][-1] == "not_food" and [row[-1] for row in rows[1:]] == ["true"] * 2 + ["false"] * 2
    )
    first, _ = json.loads(printed(Json(), answers))
    assert first == {"image": "cat.jpg", "labels": ROWS, **more}


def test_one_array(printed):
    out = printed(Json())
    assert out.count("\n") == 1 and json.loads(out) == [
        {"image": "a\nb.jpg", "labels": ROWS},
        {"image": "bad.jpg", "error": "no image"},
        {"image": r"caf\udce9.jpg", "labels": ROWS[:1]},
    ]
    assert printed(Json(), []) == "[]\n"


def test_lines_and_rows_are_printed_at_once(capsys):
    for writer in (Lines(), Csv()):
        writer.add(ANSWERS[0])
        assert "Pizza" in capsys.readouterr().out


def test_paths_as_text():
    assert as_text("größe.jpg") == one_line("größe.jpg") == "größe.jpg"
    assert one_line("a\rb") == r"a\rb"
    assert len(one_line("data:" + "x" * 10_000)) == 123


NOT_SURE = {"answered": False, "set": ROWS, "not_food": None}
SURE = {"answered": True, "set": [], "not_food": None}
DECIDED = [
    Answer("a.jpg", ROWS, more=NOT_SURE),
    Answer("b.jpg", ROWS[:1], more=SURE),
    ANSWERS[1],
    Answer("c.jpg", ROWS[:1], more={"answered": None, "set": ROWS[1:], "not_food": None}),
]


def test_decisions_in_lines(printed):
    assert printed(Lines(), DECIDED).splitlines() == [
        "a.jpg: not sure",
        "  perhaps: Mac, cheese 75.0%, Pizza 25.0%",
        "  one of: Mac, cheese, Pizza",
        "b.jpg: Mac, cheese 75.0%",
        "  one of: (no dish is likely enough)",
        "c.jpg: Mac, cheese 75.0%",
        "  one of: Pizza",
    ]


def test_decisions_in_json(printed):
    rows = json.loads(printed(Json(), DECIDED))
    assert rows[0] == {"image": "a.jpg", "labels": ROWS, **NOT_SURE}
    assert rows[1] == {"image": "b.jpg", "labels": ROWS[:1], **SURE}
    assert rows[2] == {"image": "bad.jpg", "error": "no image"}


def test_decisions_in_rows(printed):
    rows = list(csv.DictReader(io.StringIO(printed(Csv(), DECIDED[:3]))))
    assert list(rows[0]) == ["image", "rank", "label", "name", "score", "answered", "set"]
    said = [(row["image"], row["answered"], json.loads(row["set"])) for row in rows]
    labels = ["mac, cheese", "pizza"]
    assert said == [("a.jpg", "false", labels), ("a.jpg", "false", labels), ("b.jpg", "true", [])]


@pytest.mark.parametrize(
    "asked",
    [
        {"answered": True}, {"set": ROWS[:1]}, {"not_food": False},
        {"set": [], "not_food": True}, {"answered": False, "set": ROWS, "not_food": True},
    ],
)  # fmt: skip
def test_columns_are_what_was_asked_for_and_agree_with_json(printed, asked):
    answers = [
        ANSWERS[1],  # has none of it, and stands first
        Answer("a.jpg", ROWS, more={"answered": None, "set": None, "not_food": None, **asked}),
    ]
    rows = list(csv.DictReader(io.StringIO(printed(Csv(), answers))))
    assert list(rows[0])[5:] == list(asked) and len(rows) == 2
    _, whole = json.loads(printed(Json(), answers))
    for row in rows:
        for key in asked:
            said = whole[key]
            wanted = said if isinstance(said, bool) else [each["label"] for each in said]
            assert json.loads(row[key]) == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_set_is_json_in_any_encoding(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    monkeypatch.setattr("sys.stdout", out)
    row = {"label": '크렘, "brûlée"', "name": "Crème brûlée", "score": 1.0}
    Csv().add(Answer("a.jpg", [row], more={"answered": None, "set": [row], "not_food": None}))
    out.flush()
    text = out.buffer.getvalue().decode(encoding)
    (found,) = csv.DictReader(io.StringIO(text))
    assert json.loads(found["set"]) == [row["label"]]


KOREAN = [Answer("뷔페.jpg", [{"label": "creme_brulee", "name": "크렘 브륄레", "score": 1.0}])]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp949"])
def test_a_terminal_without_the_letters(monkeypatch, encoding):
    """What it does not have is escaped, and JSON stays JSON."""
    printed = []
    for writer in (Lines, Csv, Json):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
        monkeypatch.setattr("sys.stdout", out)
        write = writer()
        write.add(KOREAN[0])
        write.end()
        out.flush()
        printed.append(out.buffer.getvalue().decode(encoding))
    lines, rows, array = printed
    assert json.loads(array)[0]["labels"][0]["name"] == "크렘 브륄레"
    has_them = encoding in ("utf-8", "cp949")
    assert ("크렘 브륄레 100.0%" in lines) == ("크렘 브륄레" in rows) == has_them
    assert ("\\ud06c" in lines) == ("\\ud06c" in rows) == (not has_them)
