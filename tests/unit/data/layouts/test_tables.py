# SPDX-License-Identifier: Apache-2.0
"""Tables of paths and labels: delimiters, headers, encodings, and cells that look like something else."""

import json
from pathlib import Path

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


def refusal(path: Path, **keys: object) -> str:
    with pytest.raises(UserError) as error:
        found_counts(path, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_table_without_header_may_begin_with_the_label(tmp_path):
    rows = [(label, path) for _, path, label in rows_of(tmp_path / "d", photos(("train",)))]
    path = write_csv(tmp_path / "d" / "t.csv", None, rows)
    assert found_counts(path) == counts_of(photos(("train",)))


def test_numbers_may_name_files(tmp_path):
    for i in range(6):
        write(tmp_path / "d" / "images" / f"{i}.jpg", made.photo(i))
    rows = [(i, "ab"[i % 2]) for i in range(6)]
    write_csv(tmp_path / "d" / "labels.csv", ("id", "label"), rows)
    assert found_counts(tmp_path / "d") == {"train": {"a": 3, "b": 3}}


def test_a_name_in_two_folders_is_a_question(tmp_path):
    """The rows of test would be given the images of train."""
    root = tmp_path / "d"
    for i, place in enumerate(("train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.jpg")):
        write(root / place, made.photo(i))
    rows = [(f"{i}.jpg", split, "ab"[i - 1]) for split in ("train", "test") for i in (1, 2)]
    write_csv(root / "labels.csv", ("file", "split", "label"), rows)
    assert "1.jpg lies in test/ and train/: write the folder into the table" in refusal(root)


def test_a_cell_that_names_no_split_is_refused(tmp_path):
    rows = [
        (p, s if i else "", label) for i, (s, p, label) in enumerate(rows_of(tmp_path, photos()))
    ]
    path = write_csv(tmp_path / "t.csv", ("file", "split", "label"), rows)
    assert "column split of t.csv holds '' beside the names of splits" in refusal(path)
    rows = [(p, i % 3, label) for i, (p, _, label) in enumerate(rows)]  # of something else
    path = write_csv(tmp_path / "t.csv", ("file", "set", "label"), rows)
    assert sum(found_counts(path)["train"].values()) == 21


def test_every_image_is_counted_once_however_its_path_is_written(tmp_path):
    each = photos(("train",))
    rows = rows_of(tmp_path / "real", each)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "images").symlink_to(tmp_path / "real" / "images")
    ways = ("./images/../{}", "{} ", "images\\{0[7]}{0[8]}{0[9]}{0[10]}.jpg")
    cells = [(ways[i % 3].format(p), label) for i, (_, p, label) in enumerate(rows)]
    cells.append(("~nobody/1.jpg", LABELS[0]))
    write_csv(tmp_path / "d" / "t.csv", ("path", "label"), cells)
    _, found = load_source(DataArguments(dataset=str(tmp_path / "d")))
    assert found.num_rows("train") == 16 and not found.left_out
    assert found.splits["train"][0][-1]["image"]["path"] == "~nobody/1.jpg"


def metadata_beside(root: Path, *columns: str, cell: object = "x") -> Path:
    made.label_folders(root, photos(("train",)))
    files = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*.jpg"))]
    write_csv(
        root / "metadata.csv", ("file_name", *columns), [(f, *[cell] * len(columns)) for f in files]
    )
    return root


@pytest.mark.parametrize("columns", [["photographer"], ["width", "height"], []])
def test_metadata_without_labels_leaves_them_to_the_folders(columns, tmp_path):
    root = metadata_beside(tmp_path / "d", *columns, cell=7)
    assert found_counts(root) == counts_of(photos(("train",)))
    assert found_counts(metadata_beside(tmp_path / "e", "label")) == {"train": {"x": 15}}


def test_metadata_whose_files_are_gone_is_not_passed_over(tmp_path):
    root = made.label_folders(tmp_path / "d", photos(("train",)))
    write_csv(root / "metadata.csv", ("file_name", "label"), [("gone.jpg", "a")])
    assert "no column of metadata.csv holds images or paths of files that are there" in refusal(
        root
    )
    write(root / "metadata.csv", b'file_name,label\n"x')
    assert "metadata.csv cannot be read as a table" in refusal(root)


def test_albums_of_google_photos(tmp_path):
    root = made.label_folders(tmp_path / "d" / "Takeout" / "Google Photos", photos(("train",)))
    for label in LABELS:
        write(root / label / "metadata.json", b'{"title": "x", "date": {"timestamp": "1"}}')
        write(root / label / "0.jpg.supplemental-metadata.json", b'{"title": "0.jpg"}')
    assert found_counts(tmp_path / "d") == counts_of(photos(("train",)))


def test_a_table_beside_label_folders_that_says_otherwise_is_a_question(tmp_path):
    """Images in part1/ and part2/, and their labels in a table: the parts are no labels."""
    root = tmp_path / "d"
    rows = [(f"part{i % 2}/{i}.jpg", "abc"[i % 3]) for i in range(12)]
    for i, (name, _) in enumerate(rows):
        write(root / name, made.photo(i))
    write_csv(root / "labels.csv", ("path", "label"), rows)
    assert "labels.csv has other labels than the folders that the images lie in" in refusal(root)
    assert found_counts(root / "labels.csv") == {"train": {"a": 4, "b": 4, "c": 4}}
    same = [(name, int(name[4]), i) for i, (name, _) in enumerate(rows)]  # numbers for the folders
    write_csv(root / "labels.csv", ("path", "label", "category"), same)
    assert found_counts(root) == {"train": {"part0": 6, "part1": 6}}
    write(root / "labels.csv", b"caf\xe9")
    _, found = load_source(DataArguments(dataset=str(root)))
    assert "labels.csv is not UTF-8" in found.notes[0]


def test_tables_in_the_folders_of_splits(tmp_path):
    each, root = photos(), tmp_path / "d"
    for split, by in each.items():
        rows = [(data, label) for label, files in by.items() for data in files]
        for i, (data, _) in enumerate(rows):
            write(root / split / f"{i}.jpg", data)
        cells = [(f"{i}.jpg", label) for i, (_, label) in enumerate(rows)]
        write_csv(root / split / "labels.csv", ("filename", "label"), cells)
    assert found_counts(root) == counts_of(each)


def test_a_table_beside_that_of_test_only_is_a_question(tmp_path):
    root = made.csv_by_split(tmp_path / "d", photos())
    (root / "train.csv").rename(root / "all.csv")
    assert "all.csv may be what is trained on, beside test.csv: rename it to train.csv" in refusal(
        root
    )


def test_files_of_splits_with_names_of_their_own(tmp_path):
    root, each = tmp_path / "d", photos()
    made.parquet(root, each)
    for old, new in (("train", "full"), ("test", "extra_small")):
        (root / f"{old}-00000-of-00001.parquet").rename(root / f"{new}-00000-of-00001.parquet")
    _, found = load_source(DataArguments(dataset=str(root)))
    assert {split: found.num_rows(split) for split in found.splits} == {
        "full": 15,
        "extra_small": 6,
    }


def test_an_archive_names_no_file_outside_of_it(tmp_path):
    secret = write(tmp_path / "secret.jpg", made.photo(1))
    root = tmp_path / "d"
    inner = write(root / "in.jpg", made.photo(2)).name
    rows = [(inner, "a"), (inner, "b"), (secret, "a")]
    write_csv(root / "labels.csv", ("path", "label"), rows)
    _, found = load_source(DataArguments(dataset=str(made.zipped(tmp_path / "d.zip", root))))
    path = found.splits["train"][0][2]["image"]["path"]
    assert not Path(path).is_absolute() and found.splits["train"][0][0]["image"]["path"][0] == "/"


def test_a_glob_of_tables_in_several_folders(tmp_path):
    made.parquet(tmp_path / "d", photos())
    for split in ("train", "test"):
        folder = tmp_path / "d" / f"the {split}"
        folder.mkdir()
        (tmp_path / "d" / f"{split}-00000-of-00001.parquet").rename(folder / f"{split}.parquet")
    assert found_counts(tmp_path / "d" / "*" / "*.parquet") == counts_of(photos())


def test_parquet_files_that_may_be_splits_are_a_question(tmp_path):
    root = made.parquet(tmp_path / "d", photos())
    for split in ("train", "test"):
        (root / f"{split}-00000-of-00001.parquet").rename(root / f"food_{split}.parquet")
    assert "food_train and food_test may be splits or labels" in refusal(root)
