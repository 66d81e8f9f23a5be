# SPDX-License-Identifier: Apache-2.0
"""Every layout that people have, by the numbers: images, labels, splits. Nothing vanishes."""

import os
import shutil
from pathlib import Path

import pytest

from tests.unit.data.layouts import made
from tests.unit.data.layouts.made import LABELS, counts_of, found_counts, photos
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.layouts.local import is_glob
from training.data.sources import load_source

TWO, THREE, ONE = ("train", "test"), ("train", "validation", "test"), ("train",)

WORDS = [
    {"train": "train", "test": "test"},
    {"train": "Train", "test": "Test"},
    {"train": "TRAINING", "test": "TESTING"},
    {"train": "training", "test": "testing"},
    {"train": "train", "test": "eval"},
    {"train": "Training", "test": "Evaluation"},
    {"train": "train", "validation": "validation"},
    {"train": "Train", "validation": "Validation"},
    {"train": "train", "validation": "val"},
    {"train": "TRAIN", "validation": "VAL"},
    {"train": "training", "validation": "valid"},
    {"train": "train", "validation": "dev"},
    {"train": "train", "validation": "val", "test": "test"},
    {"train": "Train", "validation": "Valid", "test": "Test"},
    {"train": "train"},
    {"train": "Training"},
]

FORMATS = {
    "JPEG": [".jpg", ".jpeg", ".JPG", ".jfif", ".jpe", ""],
    "PNG": [".png", ".PNG", ".jpg"],  # content decides, not the name
    "WEBP": [".webp"],
    "AVIF": [".avif"],
    "GIF": [".gif"],
    "BMP": [".bmp"],
    "TIFF": [".tif", ".tiff"],
    "PPM": [".ppm"],
    "MPO": [".mpo", ".jpg"],
}

# name -> (splits, how to write it)
LAYOUTS = {
    "deeper folders": (TWO, made.deeper),
    "wrapping folders": (TWO, made.wrapped),
    "links": (TWO, made.linked),
    "labels, then splits": (TWO, made.labels_above),
    "one folder of labels": (ONE, made.label_folders),
    "one folder of labels, wrapped": (
        ONE,
        lambda r, p: made.label_folders(r / "in" / "in", p).parents[1],
    ),
    "Food-101 txt": (TWO, made.food101_folder),
    "Food-101 json": (TWO, lambda r, p: made.food101_folder(r, p, "json")),
    "Food-101 wrapped": (TWO, lambda r, p: made.food101_folder(r, p, "txt", "food-101")),
    "csv a split": (TWO, made.csv_by_split),
    "csv a split, other names": (TWO, lambda r, p: made.csv_by_split(r, p, ("img", "Class"))),
    "csv, semicolons": (TWO, lambda r, p: made.csv_by_split(r, p, ("img", "Class"), ";")),
    "csv, no header": (TWO, lambda r, p: made.csv_by_split(r, p, None)),
    "tsv": (TWO, lambda r, p: made.csv_by_split(r, p, ("path", "label"), "\t")),
    "csv with a split column": (THREE, made.csv_with_split),
    "metadata.csv": (TWO, made.metadata),
    "metadata.csv, other columns": (TWO, lambda r, p: made.metadata(r, p, "csv", ("file", "dish"))),
    "metadata.jsonl": (TWO, lambda r, p: made.metadata(r, p, "jsonl")),
    "parquet": (TWO, made.parquet),
    "parquet, three splits": (THREE, made.parquet),
    "parquet, several files": (TWO, lambda r, p: made.parquet(r, p, shards=3)),
    "parquet in data/": (TWO, lambda r, p: made.parquet(r / "data", p).parent),
    "parquet of bytes": (TWO, lambda r, p: made.parquet(r, p, "bytes", ("jpeg", "dish"))),
    "parquet of bytes, several files": (TWO, lambda r, p: made.parquet(r, p, "bytes", shards=3)),
    "parquet of structs": (TWO, lambda r, p: made.parquet(r, p, "struct", ("photo", "class"))),
    "parquet of paths": (TWO, lambda r, p: made.parquet(r, p, "path", ("where", "what"))),
    "a saved DatasetDict": (TWO, made.saved),
    "a saved DatasetDict of three": (THREE, made.saved),
    "a saved Dataset": (ONE, made.saved),
    "a saved DatasetDict, wrapped": (TWO, lambda r, p: made.saved(r / "in", p).parent),
    "WebDataset cls": (TWO, made.webdataset),
    "WebDataset txt": (TWO, lambda r, p: made.webdataset(r, p, "txt")),
    "WebDataset json": (TWO, lambda r, p: made.webdataset(r, p, "json")),
    "a glob of tars": (TWO, lambda r, p: made.webdataset(r, p) / "*.tar"),
    "a glob of parquet": (TWO, lambda r, p: made.parquet(r, p, shards=2) / "*.parquet"),
    "one parquet file": (ONE, lambda r, p: made.parquet(r, p) / "train-00000-of-00001.parquet"),
    "one csv file": (ONE, lambda r, p: made.csv_by_split(r, p) / "train.csv"),
}
ZIPPED = {
    "folders": (TWO, made.folders),
    "one folder of labels": (ONE, made.label_folders),
    "Food-101": (TWO, lambda r, p: made.food101_folder(r, p, "txt", "food-101")),
    "csv": (TWO, made.csv_by_split),
    "parquet": (TWO, made.parquet),
    "saved": (TWO, made.saved),
    "WebDataset": (TWO, made.webdataset),
}


@pytest.mark.parametrize("words", WORDS, ids=lambda words: "-".join(words.values()))
def test_words_for_splits_in_any_case(words, tmp_path):
    each = photos(tuple(words))
    assert found_counts(made.folders(tmp_path / "data", each, words)) == counts_of(each)


@pytest.mark.parametrize(
    ("kind", "ending"), [(kind, ending) for kind, endings in FORMATS.items() for ending in endings]
)
def test_whatever_pillow_reads(kind, ending, tmp_path):
    each = photos(TWO, kind)
    assert found_counts(made.folders(tmp_path / "d", each, ending=ending)) == counts_of(each)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(name, tmp_path):
    splits, lay_out = LAYOUTS[name]
    each = photos(splits)
    path = lay_out(tmp_path / "data", each)
    assert found_counts(path) == counts_of(each)


@pytest.mark.parametrize("name", ZIPPED)
@pytest.mark.parametrize("pack", [made.zipped, made.tarred], ids=["zip", "tar"])
def test_an_archive_of_any_of_these(pack, name, tmp_path):
    splits, lay_out = ZIPPED[name]
    each = photos(splits)
    folder = lay_out(tmp_path / "data", each)
    path = pack(tmp_path / f"photos.{'zip' if pack is made.zipped else 'tar.gz'}", folder)
    shutil.rmtree(folder)
    assert found_counts(path) == counts_of(each)


@pytest.mark.parametrize("name", LAYOUTS)
def test_loaded_and_left_out_are_what_was_found(name, tmp_path):
    """Strange files beside, in and below everything: each is a row, or is named."""
    splits, lay_out = LAYOUTS[name]
    path = lay_out(tmp_path / "data", photos(splits))
    root = path if path.is_dir() else None
    if root is None or "saved" in name:
        return  # a file was named, or what `datasets` wrote
    strange = [root / "notes.txt", root / ".DS_Store", root / "Thumbs.db"]
    for file in strange:
        file.write_bytes(b"x")
    _, found = load_source(DataArguments(dataset=str(path)))
    rows = sum(found.num_rows(split) for split in found.splits)
    told = {each.path for each in found.left_out}
    assert {file.name for file in strange} <= told
    assert found.num_found() == rows + len(found.left_out) + len(found.faults)
    if found.root == root.resolve() and "tars" not in name and not _tables(root):
        files = {p.relative_to(root).as_posix() for p in _every_file(root)}
        assert len(files) == found.num_found()


def _tables(root: Path) -> bool:
    return any(
        p.suffix in (".csv", ".tsv", ".jsonl", ".parquet", ".tar", ".json") for p in root.rglob("*")
    )


def _every_file(root: Path) -> list[Path]:
    """Files, links followed; a circle is one thing."""
    seen = []
    for path in sorted(root.iterdir()):
        if path.name == "up":
            seen.append(path)
        elif path.is_dir():
            seen += _every_file(path)
        else:
            seen.append(path)
    return seen


# ---- what is refused ----------------------------------------------------------------------------


def refusal(path: object, **keys: object) -> str:
    with pytest.raises(UserError) as error:
        found_counts(path, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_split_or_a_label(tmp_path):
    """train/ beside other labels, with folders of its own, may be a toy train or a split."""
    for name in ("train/steam", "train/diesel", "bus", "plane"):
        made.write(tmp_path / "d" / name / "1.jpg", made.photo(1))
    assert "train/ has folders of its own and lies beside bus/, plane/" in refusal(tmp_path / "d")


def test_a_label_called_train(tmp_path):
    for name in ("train", "bus", "plane"):
        made.write(tmp_path / "d" / name / "1.jpg", made.photo(1))
    assert found_counts(tmp_path / "d") == {"train": {"train": 1, "bus": 1, "plane": 1}}


def test_two_folders_for_one_split(tmp_path):
    each = photos(("train",))
    made.folders(tmp_path / "d", each)
    made.folders(tmp_path / "d", each, {"train": "Training"})
    assert "Training/ and train/ both mean the split train" in refusal(tmp_path / "d")


def test_images_without_label_folders(tmp_path):
    made.write(tmp_path / "d" / "1.jpg", made.photo(1))
    assert "1 images lie in d/ itself, without a folder for each label" in refusal(tmp_path / "d")
    made.write(tmp_path / "e" / "train" / "1.jpg", made.photo(1))
    assert "train/ has no folder for each label" in refusal(tmp_path / "e")


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty/ has no image (no file at all)" in refusal(tmp_path / "empty")
    made.folders(tmp_path / "photos", photos())
    assert refusal(tmp_path / "photo").endswith(f"; did you mean {tmp_path}/photos?")
    assert "fits no file" in refusal(tmp_path / "photos" / "*.parquet")
    made.write(tmp_path / "notes.docx", b"x")
    assert "notes.docx is a .docx file" in refusal(tmp_path / "notes.docx")


def test_a_name_with_brackets_is_a_folder(tmp_path):
    each = photos()
    path = made.folders(tmp_path / "photos [2024]*?", each)
    assert not is_glob(str(path)) and is_glob(str(tmp_path / "*.csv"))
    assert found_counts(path) == counts_of(each)


def test_test_images_without_labels_are_no_test(tmp_path):
    each = photos(("train", "validation"))
    root = made.folders(tmp_path / "d", each)
    for i in range(3):
        made.write(root / "test" / f"{i}.jpg", made.photo(100 + i))
    _, found = load_source(DataArguments(dataset=str(root)))
    assert found.num_rows("test") == 3 and set(found.splits["test"][0]["label"]) == {None}


def test_a_table_beside_label_folders_is_not_asked(tmp_path):
    each = photos(("train",))
    root = made.label_folders(tmp_path / "d", each)
    made.write_csv(root / "prices.csv", ("dish", "price"), [("pizza", 7)])
    assert found_counts(root) == counts_of(each)
    _, found = load_source(DataArguments(dataset=str(root)))
    assert [each.path for each in found.left_out] == ["prices.csv"]


def test_labels_are_told_by_name(tmp_path):
    assert sorted(found_counts(made.label_folders(tmp_path / "d", photos(ONE)))["train"]) == LABELS


def test_strange_paths_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    made.write(tmp_path / "train", b"x")
    assert "pipe is no file and no folder" in refusal(tmp_path / "pipe")
    assert "train is a file without extension: give a folder" in refusal(tmp_path / "train")
    assert "does not exist" in refusal("~nobody here/data") and "does not exist" in refusal("")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    made.label_folders(odd, photos(ONE))
    assert "has a name that is not UTF-8: rename it" in refusal(odd)


def test_a_path_in_any_spelling(tmp_path, monkeypatch):
    each = photos(ONE)
    made.label_folders(tmp_path / "d", each)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("d/", "./d", "d/../d/", "~/d"):
        assert found_counts(path) == counts_of(each)


def test_a_folder_that_nobody_may_read_is_one_line(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    made.label_folders(tmp_path / "d", photos(ONE))
    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(tmp_path / "d").endswith("d cannot be read: Permission denied")


def test_a_file_without_a_row_is_told(tmp_path):
    root = made.parquet(tmp_path / "d", photos(("train",)), shards=2)
    made.write_parquet(root / "train-00002-of-00003.parquet", [], "bytes", ("image", "label"))
    assert found_counts(root) == counts_of(photos(("train",)))
    made.write_parquet(root / "test.parquet", [], "bytes", ("image", "label"))
    assert "test.parquet has no row: remove it" in refusal(root)


def test_what_lies_beside_a_wrapping_folder_is_named(tmp_path):
    each = photos()
    made.folders(tmp_path / "d" / "in" / "data", each)
    beside = ("logo.png", "prices.csv", "in/notes.txt", "in/one.jpg")
    for name in beside:
        made.write(tmp_path / "d" / name, b"a,b\n1,2\n")
    assert found_counts(tmp_path / "d") == counts_of(each)
    _, found = load_source(DataArguments(dataset=str(tmp_path / "d")))
    assert {each.path for each in found.left_out} == set(beside)
    assert found.num_found() == 21 + 4
