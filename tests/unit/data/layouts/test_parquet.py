# SPDX-License-Identifier: Apache-2.0
"""Parquet by content: each file keeps its own names, and another file in its place is read again."""

import os

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features

from tests.unit.data.layouts.made import LABELS, found_counts, photo, write
from training.common.errors import UserError
from training.data.array_store import cache_folder
from training.data.layouts import parquet
from training.data.layouts.parquet import open_parquet, own_label_names


def table(path, names, labels, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features({"image": datasets.Image(), "label": ClassLabel(names=names)})
    cells = [{"bytes": photo(first + i), "path": None} for i in range(len(labels))]
    Dataset.from_dict({"image": cells, "label": labels}, features=features).to_parquet(path)
    return path


@pytest.mark.parametrize("files", [("train", "validation"), ("train", "test")])
def test_labels_go_by_name_between_splits(files, tmp_path):
    """datasets casts the second file to the first one's names, and swaps them without a word."""
    table(tmp_path / "d" / f"{files[0]}.parquet", LABELS, LABELS * 2)
    table(tmp_path / "d" / f"{files[1]}.parquet", LABELS[::-1], [LABELS[0]] * 4)
    assert found_counts(tmp_path / "d")[files[1]] == {LABELS[0]: 4}


def test_labels_go_by_name_between_files_of_a_split(tmp_path):
    table(tmp_path / "d" / "train-0.parquet", LABELS, [LABELS[0]] * 3)
    table(tmp_path / "d" / "train-1.parquet", LABELS[::-1], [LABELS[0]] * 2 + [LABELS[1]])
    table(tmp_path / "d" / "train-2.parquet", LABELS[1:], [LABELS[2]])
    assert found_counts(tmp_path / "d") == {"train": {LABELS[0]: 5, LABELS[1]: 1, LABELS[2]: 1}}


def test_another_file_with_the_same_size_and_time_is_read_again(tmp_path):
    """datasets knows a file by its time (datasets#2956)."""
    path = table(tmp_path / "d" / "train.parquet", LABELS, [LABELS[0]] * 2)
    os.utime(path, (1, 1))
    before = open_parquet(tmp_path / "d", ["train.parquet"])[0][1]["label"][:]
    table(path, LABELS, [LABELS[1]] * 2)
    os.utime(path, (1, 1))
    after = open_parquet(tmp_path / "d", ["train.parquet"])[0][1]["label"][:]
    assert (before, after) == ([0, 0], [1, 1])


def test_what_is_no_parquet_is_named(tmp_path):
    write(tmp_path / "a.parquet", b"x")
    with pytest.raises(UserError, match="a.parquet cannot be read"):
        open_parquet(tmp_path, ["a.parquet"])


def test_names_of_a_file(tmp_path):
    path = table(tmp_path / "a.parquet", LABELS, [LABELS[0]])
    assert own_label_names(path, "label") == LABELS
    assert own_label_names(path, "image") is own_label_names(path, "other") is None


def test_one_row_group_is_copied_in_parts(tmp_path, monkeypatch):
    """pandas writes one, however large: it would have to fit into memory."""
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2000)
    path = table(tmp_path / "d" / "train.parquet", LABELS, LABELS * 20)
    assert pq.read_metadata(path).num_row_groups == 1
    rows = open_parquet(tmp_path / "d", ["train.parquet"])[0][1]
    assert rows["label"][:] == [0, 1, 2] * 20 and rows.data.column("label").num_chunks > 5


def test_categories_of_pandas(tmp_path):
    labels = ["b", "a", "b", None]
    images = [photo(i) for i in range(4)]
    frame = pd.DataFrame({"image": images, "label": pd.Categorical(labels)})
    frame.to_parquet(tmp_path / "t.parquet")
    assert open_parquet(tmp_path, ["t.parquet"])[0][1]["label"][:] == labels


def test_a_damaged_page_or_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = table(tmp_path / "d" / "a.parquet", LABELS, LABELS * 20)
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.parquet cannot be read: ") as error:
        open_parquet(tmp_path / "d", ["a.parquet"])
    assert "\n" not in str(error.value)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    table(path, LABELS, LABELS * 20, first=500)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device; free space, or choose another"):
        open_parquet(tmp_path / "d", ["a.parquet"])
    assert not list((cache_folder() / "parquet").glob(".*"))
