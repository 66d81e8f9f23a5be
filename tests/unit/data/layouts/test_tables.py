# SPDX-License-Identifier: Apache-2.0
"""Tables of paths and labels: delimiters, headers, encodings, and cells that look like something else."""

import json

import pytest

from tests.unit.data.layouts import made
from tests.unit.data.layouts.made import (
    LABELS,
    counts_of,
    found_counts,
    photos,
    rows_of,
    write,
    write_csv,
)
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.layouts.tables import read_text_table
from training.data.sources import load_source


def test_a_dish_called_nan_is_a_dish(tmp_path):
    rows = [
        (path, label)
        for (_, path, _), label in zip(
            rows_of(tmp_path, photos()), ["nan", "None", "NA", "null"] * 9, strict=False
        )
    ]
    path = write_csv(tmp_path / "labels.csv", ("file", "label"), rows)
    assert found_counts(path)["train"].keys() == {"nan", "None", "NA", "null"}


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
    ],
)  # fmt: skip
def test_what_is_no_table(name, data, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        read_text_table(write(tmp_path / name, data))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_byte_order_mark_and_windows_paths(tmp_path):
    rows = rows_of(tmp_path, photos(("train",)))
    text = "path,label\r\n" + "".join(f"images\\{p[7:]},{label}\r\n" for _, p, label in rows)
    path = write(tmp_path / "t.csv", b"\xef\xbb\xbf" + text.encode())
    assert found_counts(path) == counts_of(photos(("train",)))


def test_json_of_records_and_of_path_to_label(tmp_path):
    rows = rows_of(tmp_path, photos(("train",)))
    records = [{"image": path, "label": label} for _, path, label in rows]
    mapping = {path: label for _, path, label in rows}
    for content in (records, mapping):
        path = write(tmp_path / "t.json", json.dumps(content).encode())
        assert found_counts(path) == counts_of(photos(("train",)))


def test_images_in_no_row_and_rows_without_a_file(tmp_path):
    root = made.csv_by_split(tmp_path / "d", photos())
    write(root / "images" / "extra.jpg", made.photo(1))
    (root / "images" / "0000.jpg").unlink()
    _, found = load_source(DataArguments(dataset=str(root)))
    assert [(e.path, e.reason) for e in found.left_out] == [
        ("images/extra.jpg", "in no row of the table")
    ]
    assert (
        found.splits["train"][0][0]["image"]["path"] == "images/0000.jpg"
    )  # the check finds it gone


def test_a_competition(tmp_path):
    """train.csv with labels, test.csv without, ids without extensions, a sample submission."""
    root, rows = tmp_path / "d", []
    for i, label in enumerate(LABELS * 3):
        write(root / "train" / f"a{i}.jpg", made.photo(i))
        rows.append((f"a{i}", label))
    for i in range(2):
        write(root / "test" / f"b{i}.jpg", made.photo(90 + i))
    write_csv(root / "train.csv", ("id", "label"), rows)
    write_csv(root / "test.csv", ("id",), [("b0",), ("b1",)])
    write_csv(root / "sample_submission.csv", ("id", "label"), [("b0", "x"), ("b1", "x")])
    _, found = load_source(DataArguments(dataset=str(root)))
    assert {s: found.num_rows(s) for s in found.splits} == {"train": 9, "test": 2}
    assert found.splits["test"][0]["label"] == [None, None]
    assert [e.path for e in found.left_out] == ["sample_submission.csv"]


def test_several_tables_are_a_question(tmp_path):
    rows = [row[1:] for row in rows_of(tmp_path / "d", photos())]
    for name in ("one.csv", "two.csv"):
        write_csv(tmp_path / "d" / name, ("path", "label"), rows)
    with pytest.raises(UserError, match="several tables may hold the labels: .*one.csv, two.csv"):
        found_counts(tmp_path / "d")


def test_two_columns_that_may_be_labels_are_a_question_not_a_folder(tmp_path):
    rows = [(p, label, "x") for _, p, label in rows_of(tmp_path / "d", photos())]
    write_csv(tmp_path / "d" / "t.csv", ("path", "this", "that"), rows)
    with pytest.raises(UserError, match="several columns that may hold labels: .*this, that"):
        found_counts(tmp_path / "d")
    assert found_counts(tmp_path / "d", label_column="that") == {"train": {"x": 21}}
