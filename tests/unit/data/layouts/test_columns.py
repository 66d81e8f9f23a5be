# SPDX-License-Identifier: Apache-2.0
"""Which column holds images, which labels; a doubt is a question, never a guess."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from tests.unit.data.layouts.made import photo, write
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.layouts.columns import as_piece, resolver

NAMES = ["a", "b"]


def piece(rows: dict, features: dict, folders: tuple = (), **keys: str) -> Dataset:
    dataset = Dataset.from_dict(rows, features=Features(features))
    return as_piece(dataset, DataArguments("x", **keys), "t", resolver(folders))


CELLS = [{"bytes": photo(i), "path": None} for i in range(2)]


def test_a_column_by_type_and_one_by_name():
    found = piece(
        {"jpeg": CELLS, "fold": [1, 2], "dish": ["x", "y"]},
        {"jpeg": Image(), "fold": Value("int64"), "dish": Value("string")},
    )
    assert found.features == Features({"image": Image(decode=False), "label": Value("string")})
    assert found["label"] == ["x", "y"] and found[0]["image"]["bytes"] == photo(0)


def test_the_one_with_names_is_the_label():
    features = {"image": Image(), "dish": ClassLabel(names=NAMES), "note": Value("string")}
    assert piece({"image": CELLS, "dish": [1, 0], "note": ["", ""]}, features)["label"] == [1, 0]


def test_paths_of_files_that_are_there(tmp_path):
    for i in range(2):
        write(tmp_path / "img" / f"{i}.jpg", photo(i))
    for cells in (["0.jpg", "1.jpg"], ["0", "1"], [str(tmp_path / "img" / "0.jpg"), "1.jpg"]):
        rows = {"id": cells, "x": [3.5, 4.5], "dish": ["a", "b"]}
        features = {"id": Value("string"), "x": Value("float64"), "dish": Value("string")}
        found = piece(rows, features, (tmp_path, tmp_path / "img"))
        paths = [row["path"] for row in found["image"]]
        assert paths == [str(tmp_path / "img" / f"{i}.jpg") for i in range(2)]


def test_a_file_that_is_not_there_keeps_its_name(tmp_path):
    write(tmp_path / "0.jpg", photo(0))
    found = piece(
        {"image": ["0.jpg", "gone.jpg"], "label": ["a", "b"]},
        {"image": Value("string"), "label": Value("string")},
        (tmp_path,),
    )
    assert found[1]["image"] == {"bytes": None, "path": "gone.jpg"}


@pytest.mark.parametrize(
    ("columns", "keys", "words"),
    [
        ({"front": Image(), "side": Image(), "label": Value("string")}, {},
         "t has several columns that may hold images: set image_column to one of front, side"),
        ({"image": Image(), "x": Value("string"), "y2": Value("string")}, {},
         "t has several columns that may hold labels: set label_column to one of x, y2"),
        ({"image": Image()}, {}, "no column label in t: it has image; set label_column"),
        ({"words": Value("string"), "label": Value("string")}, {},
         "no column of t holds images or paths of files that are there"),
        ({"image": Image(), "label": Value("string")}, {"image_column": "pic"},
         "no column pic in t: it has image, label; set image_column"),
        ({"image": Image(), "label": Value("string")}, {"image_column": "label"},
         "column label of t holds no images: set image_column to one of image"),
    ],
)  # fmt: skip
def test_a_doubt_is_a_question(columns, keys, words):
    cell = {"string": ["p", "q"]}
    rows = {name: cell.get(getattr(f, "dtype", ""), CELLS) for name, f in columns.items()}
    with pytest.raises(UserError) as error:
        piece(rows, columns, **keys)
    assert str(error.value).startswith(words)


def test_a_path_does_not_leave_an_archive(tmp_path):
    write(tmp_path / "secret.jpg", photo(0))
    (tmp_path / "in").mkdir()
    assert resolver([tmp_path / "in"])("../secret.jpg")
    assert resolver([tmp_path / "in"], inside=(tmp_path / "in").resolve())("../secret.jpg") is None
    assert resolver([tmp_path])("x" * 5000) is None and resolver([tmp_path])("a\0b") is None


def test_rows_of_files_among_rows_of_bytes(tmp_path):
    write(tmp_path / "in" / "0.jpg", photo(0))
    cells = [{"bytes": photo(1), "path": "1.jpg"}, {"bytes": None, "path": "in/0.jpg"},
             {"bytes": None, "path": "/etc/hostname"}, None]  # fmt: skip
    features = {"image": Image(), "label": Value("string")}
    for chosen in ([0, 1, 2, 3], [2, 1], [1]):
        rows = {"image": [cells[i] for i in chosen], "label": [str(i) for i in chosen]}
        dataset = Dataset.from_dict(rows, features=Features(features))
        inside = resolver([tmp_path], inside=tmp_path.resolve())
        found = as_piece(dataset, DataArguments("x"), "t", inside)
        expected = [
            cells[0],
            {"bytes": None, "path": str(tmp_path / "in" / "0.jpg")},
            {"bytes": None, "path": "etc/hostname"},
            cells[3],
        ]
        assert list(found["image"]) == [expected[i] for i in chosen]
        assert found["label"] == rows["label"]
