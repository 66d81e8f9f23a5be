# SPDX-License-Identifier: Apache-2.0
"""What `save_to_disk` wrote, and folders whose README says where the splits are."""

import os
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from tests.unit.data.layouts.made import (
    LABELS,
    counts_of,
    folders,
    found_counts,
    parquet,
    photos,
    saved,
    write,
)
from training.common.errors import UserError
from training.data.arguments import DataArguments
from training.data.layouts.saved import has_configs, is_saved
from training.data.sources import load_source


def test_splits_that_number_their_classes_differently(tmp_path):
    each = photos(("train", "validation"))
    root = saved(tmp_path / "d", each, {"validation": LABELS[::-1]})
    assert found_counts(root) == counts_of(each)


def test_nothing_is_written_into_the_folder(tmp_path):
    root = saved(tmp_path / "d", photos())
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    found_counts(root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_damaged_one_is_named(tmp_path):
    root = saved(tmp_path / "d", photos())
    next((root / "train").glob("*.arrow")).unlink()
    assert is_saved(root)
    with pytest.raises(UserError, match="^dataset .*d cannot be read: "):
        found_counts(root)


CONFIGS = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: "a/*.parquet"}
  - {split: test, path: "b/*.parquet"}
---
# Photographs
"""


def test_a_readme_says_where_the_splits_are(tmp_path):
    each = photos()
    parquet(tmp_path / "raw", each)
    for split, folder in (("train", "a"), ("test", "b")):
        file = tmp_path / "raw" / f"{split}-00000-of-00001.parquet"
        write(tmp_path / "d" / folder / "part.parquet", file.read_bytes())
    write(tmp_path / "d" / "README.md", b"# Only words: configs: none")
    assert not has_configs(tmp_path / "d")
    write(tmp_path / "d" / "README.md", CONFIGS.encode())
    assert has_configs(tmp_path / "d")
    assert found_counts(tmp_path / "d") == counts_of(each)


def snapshot(root: Path, orders: dict[str, list[str]], readme: str) -> Path:
    """A repository of the Hub: data/SPLIT-00000-of-00001.parquet, each with label names of its own."""
    for split, by in photos().items():
        names = orders.get(split, LABELS)
        features = Features({"image": datasets.Image(), "label": ClassLabel(names=names)})
        rows = [(data, label) for label, files in by.items() for data in files]
        columns = {
            "image": [{"bytes": data, "path": None} for data, _ in rows],
            "label": [label for _, label in rows],
        }
        (root / "data").mkdir(parents=True, exist_ok=True)
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(path)
    write(root / "README.md", readme.encode())
    return root


INFO = "---\ndataset_info:\n  dataset_size: 5\n---\n"
PATHS = CONFIGS.replace("a/", "data/train").replace("b/", "data/test")


@pytest.mark.parametrize("readme", [INFO, PATHS])
def test_splits_of_a_snapshot_that_number_their_classes_differently(readme, tmp_path):
    root = snapshot(tmp_path / "d", {"test": LABELS[::-1]}, readme)
    assert found_counts(root) == counts_of(photos())


def test_content_decides_in_a_snapshot(tmp_path):
    root = snapshot(tmp_path / "d", {}, PATHS)
    assert found_counts(root) == counts_of(photos())
    file = root / "data" / "test-00000-of-00001.parquet"
    before = os.stat(file)
    snapshot(root, {"test": LABELS[::-1]}, PATHS)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found_counts(root) == counts_of(photos())


def test_a_label_with_the_word_of_a_split_keeps_its_images(tmp_path):
    """datasets finds train in bullet_train, and would train on the test images of that dish."""
    root = folders(tmp_path / "d", photos())
    write(root / "README.md", INFO.encode())
    assert found_counts(root) == counts_of(photos())
    explicit = PATHS.replace("data/train*.parquet", "train/**").replace(
        "data/test*.parquet", "test/**"
    )
    write(root / "README.md", explicit.encode())
    assert found_counts(root) == counts_of(photos())
    write(root / "README.md", b"---\nconfigs:\n- config_name: default\n  data_dir: train\n---\n")
    with pytest.raises(UserError, match="it gives no data_files for each split; mend it, or move"):
        found_counts(root)


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        ("---\nconfigs: [\n---\n", "cannot be read by its README.md: while parsing"),
        (
            "---\nconfigs:\n- config_name: one\n  data_files: data/train*\n"
            "- config_name: two\n  data_files: data/test*\n---\n",
            "it has several configs \\('one', 'two'\\): give the path of one's folder, or a glob",
        ),
    ],
)
def test_a_readme_that_cannot_be_followed_is_told(readme, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        found_counts(snapshot(tmp_path / "d", {}, readme))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("below", ["", "in/"])
def test_what_lies_beside_is_named(below, tmp_path):
    root = saved(tmp_path / "d" / below, photos())
    for name in ("README.md", "extra/1.jpg", "train/cache-1.arrow"):
        write(root / name, b"x")
    write(tmp_path / "d" / "notes.txt", b"x")
    _, found = load_source(DataArguments(dataset=str(tmp_path / "d")))
    assert {each.path for each in found.left_out} == {
        "notes.txt", f"{below}README.md", f"{below}extra/1.jpg", f"{below}train/cache-1.arrow",
    }  # fmt: skip


def test_what_lies_beside_a_snapshot_is_named(tmp_path):
    root = snapshot(tmp_path / "d", {}, PATHS)
    write(root / "extra.txt", b"x")
    _, found = load_source(DataArguments(dataset=str(root)))
    assert {each.path for each in found.left_out} == {"README.md", "extra.txt"}


def test_a_column_of_splits_in_one_split_is_refused(tmp_path):
    """Its test rows were trained on."""
    rows = {"image": [None] * 4, "label": ["a", "b"] * 2, "split": ["train", "test"] * 2}
    features = Features(
        {"image": datasets.Image(), "label": Value("string"), "split": Value("string")}
    )
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    with pytest.raises(UserError, match="column split of d names the splits test, train: write"):
        found_counts(tmp_path / "d")
