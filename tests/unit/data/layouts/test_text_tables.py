# SPDX-License-Identifier: Apache-2.0
"""Tables of text: no cell is lost, none is guessed, and what is wrong is named."""

import json

import pytest

from tests.unit.data.layouts.made import photo, write, write_csv
from training.common.errors import UserError
from training.data.layouts.text_tables import is_text_table, read_text_table


def test_numbers_are_numbers_and_007_is_a_name(tmp_path):
    def dtypes(*cells: str) -> str:
        path = write_csv(tmp_path / "t.csv", ("a", "label"), [("x", cell) for cell in cells])
        return read_text_table(path).features["label"].dtype.removeprefix("large_")

    assert dtypes("0", "10", "") == "int64"
    assert dtypes("007", "1") == dtypes("1", "one") == dtypes("", "") == "string"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("t.csv", "path,label\nx.jpg,cr\xe8me\n".encode("latin-1"), "is not UTF-8 \\(byte 19\\): save it"),
        ("t.csv", b"", "cannot be read as a table|has no row"),
        ("t.csv", b"path,label\n", "has no row"),
        ("t.json", b"{", "cannot be read as a table"),
        ("t.json", b"[1, 2]", "cannot be read as a table: it is no list of"),
        ("t.jsonl", b'{"a": 1}\nx', "cannot be read as a table"),
        ("t.csv", b'a,b\n"x,y\n', "cannot be read as a table"),
        ("t.csv", b"path,label\na.jpg,mac, cheese\n", "line 2 has 3 cells and there are 2 columns: quote"),
        ("t.csv", b"path,label,label\na,b,c\n", "two columns are called label"),
        ("_classes.csv", b"filename,a,b\n1.jpg,1,1\n", "gives an image several labels"),
        ("_classes.csv", b"filename,a,b\n1.jpg,1,x\n", "or has a cell that is not 0 or 1"),
    ],
)  # fmt: skip
def test_what_is_no_table(name, data, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        read_text_table(write(tmp_path / name, data))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_delimiter_too_much_and_a_cell_too_little(tmp_path):
    path = write(tmp_path / "t.csv", b"path,label\na,pizza,\n\nb\n")
    assert list(read_text_table(path)) == [
        {"path": "a", "label": "pizza"}, {"path": "b", "label": None},
    ]  # fmt: skip
    assert read_text_table(write(tmp_path / "n.csv", b"a,n\nx,1\ny\n"))["n"] == [1, None]


def test_a_title_is_no_file(tmp_path):
    for name in ("image.jpg", "a.jpg"):
        write(tmp_path / name, photo(1))
    path = write_csv(tmp_path / "t.csv", ("image", "label"), [("a.jpg", "x")])
    assert read_text_table(path)[:] == {"image": ["a.jpg"], "label": ["x"]}


def test_a_separator_of_lines_inside_a_text(tmp_path):
    rows = [{"path": "a", "label": "x\u2028y"}]
    path = write(tmp_path / "t.jsonl", json.dumps(rows[0], ensure_ascii=False).encode())
    assert list(read_text_table(path)) == rows and is_text_table("a/T.NDJSON")


def test_a_column_for_each_label(tmp_path):
    """As Roboflow exports it, with spaces behind the commas."""
    text = b"filename, pizza, sushi\n1.jpg,1, 0\n2.jpg, 0,1\n3.jpg,0,0\n"
    path = write(tmp_path / "_classes.csv", text)
    assert read_text_table(path)["label"] == ["pizza", "sushi", None]
