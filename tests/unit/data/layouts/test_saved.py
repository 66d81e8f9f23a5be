# SPDX-License-Identifier: Apache-2.0
"""What `save_to_disk` wrote, and folders whose README says where the splits are."""

import pytest

from tests.unit.data.layouts.made import (
    LABELS,
    counts_of,
    found_counts,
    parquet,
    photos,
    saved,
    write,
)
from training.common.errors import UserError
from training.data.layouts.saved import has_configs, is_saved


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
