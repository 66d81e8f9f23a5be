# SPDX-License-Identifier: Apache-2.0
"""Embedded bytes or a file, rows from an Arrow table, and what a fingerprint is of."""

import hashlib
import os
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from tests.unit.data.tables import arguments
from tests.unit.toys import LABELS, jpeg, write_image_folder
from training.data.loading import load_split
from training.data.splits import encoded_bytes, fingerprint_of, image_source, in_arrow, rows_at

EMBEDDED = {"bytes": b"embedded", "path": "a.jpg"}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"in a file")
    return path


# ---- bytes or path ----------------------------------------------------------------------------


def test_embedded_bytes_go_before_a_path(file):
    """The path is then a name from another machine, where it may mean another file."""
    assert image_source(EMBEDDED) == encoded_bytes(EMBEDDED) == b"embedded"
    assert encoded_bytes({"bytes": b"", "path": str(file)}) == b""


def test_a_file_is_read_where_nothing_is_embedded(file):
    image = {"bytes": None, "path": str(file)}
    assert image_source(image) == str(file) and encoded_bytes(image) == b"in a file"
    file.unlink()
    with pytest.raises(FileNotFoundError, match="a.jpg"):
        encoded_bytes(image)


def test_rows_in_any_order(file):
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=LABELS)})
    images = [EMBEDDED, {"bytes": None, "path": str(file)}, {"bytes": b"third", "path": None}]
    dataset = Dataset.from_dict({"image": images, "label": [2, 0, 1]}, features=features)
    rows = list(rows_at(in_arrow(dataset), [2, 0, 1, 0]))
    assert rows == [(b"third", 1), (b"embedded", 2), (str(file), 0), (b"embedded", 2)]


# ---- the fingerprint --------------------------------------------------------------------------


def test_the_fingerprint_is_a_sha256_that_anyone_can_compute():
    assert (
        fingerprint_of(["a", "b"], [1, 0], ["0f", "1e"])
        == hashlib.sha256(b"b 0f\na 1e\n").hexdigest()
    )
    with pytest.raises(ValueError):
        fingerprint_of(["a"], [0, 0], ["0f"])


def test_order_counts_and_numbers_of_labels_do_not():
    one = fingerprint_of(["a", "b"], [0, 1], ["0f", "1e"])
    assert one == fingerprint_of(["b", "a"], [1, 0], ["0f", "1e"])
    assert one != fingerprint_of(["a", "b"], [1, 0], ["1e", "0f"])
    assert one != fingerprint_of(["a", "b"], [1, 0], ["0f", "1e"])


def fingerprint(root: Path) -> str:
    return load_split(arguments(root), "validation")[1].fingerprint


def test_the_fingerprint_is_of_content_and_labels(tmp_path):
    root = write_image_folder(tmp_path / "a")
    before = fingerprint(root)
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    assert fingerprint(root) == before
    assert fingerprint(write_image_folder(tmp_path / "b")) == before  # elsewhere, the same data
    changed = root / "validation" / "pizza" / "0.jpg"
    changed.write_bytes(jpeg(77))
    content = fingerprint(root)
    assert content != before
    other = write_image_folder(tmp_path / "c", labels=["cheese_plate", "cheesecake", "pizzas"])
    for new, old in zip(
        sorted((other / "validation").rglob("*.jpg")),
        sorted((tmp_path / "b" / "validation").rglob("*.jpg")),
        strict=True,
    ):
        new.write_bytes(old.read_bytes())
    assert fingerprint(other) != before  # the same pictures under another name
