# SPDX-License-Identifier: Apache-2.0
"""Which images can be decoded, what they are, and that nobody looks twice."""

import hashlib

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from tests.unit.toys import LABELS, jpeg
from training.data import scan
from training.data.scan import check_images, scan_images

EMPTY = hashlib.sha256(b"").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(image: dict | None) -> tuple[str, str, str]:
    found = check_images({"image": [image]}, version=1)
    return found["sha256"][0], found["error"][0], found["path"][0]


def test_an_image_in_a_file_and_one_embedded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    path = str(tmp_path / "a.jpg")
    assert check({"bytes": None, "path": path}) == (sha256(jpeg(0)), "", path)
    assert check({"bytes": jpeg(1), "path": None}) == (sha256(jpeg(1)), "", "")
    assert check({"bytes": jpeg(1), "path": "b.jpg"}) == (sha256(jpeg(1)), "", "b.jpg")


@pytest.mark.parametrize(
    "image", [None, {"bytes": None, "path": None}, {"bytes": None, "path": ""}]
)
def test_a_row_without_an_image(image):
    assert check(image) == (EMPTY, "the row has no image", "")


def test_a_file_that_is_gone(tmp_path):
    path = str(tmp_path / "gone.jpg")
    sha, error, where = check({"bytes": None, "path": path})
    assert (sha, where) == (EMPTY, path) and "No such file" in error


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "0 bytes"), (b"a text", "not a readable image"), (jpeg(0)[:-200], "truncated")],
)
def test_what_cannot_be_decoded_has_a_checksum_and_a_reason(data, reason):
    sha, error, _ = check({"bytes": data, "path": None})
    assert sha == sha256(data) and reason in error and "\n" not in error


def test_rows_of_a_batch_stay_apart():
    rows = [{"bytes": data, "path": None} for data in (jpeg(0), b"x", jpeg(2))]
    found = check_images({"image": rows}, version=1)
    assert found["sha256"] == [sha256(row["bytes"]) for row in rows]
    assert [bool(error) for error in found["error"]] == [False, True, False]


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Dataset:
    """Two images, on disk: only of such data does datasets keep results."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=LABELS)})
    rows = {"image": [{"bytes": jpeg(i), "path": None} for i in range(2)], "label": [0, 1]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "data")
    return datasets.load_from_disk(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """Everything that is decoded from here on."""
    seen, real = [], scan.decode_image
    monkeypatch.setattr(scan, "decode_image", lambda data: seen.append(data) or real(data))
    return seen


def test_the_second_time_nothing_is_decoded(dataset, decoded, monkeypatch):
    first = scan_images(dataset, "train")
    assert first == {
        "sha256": [sha256(jpeg(i)) for i in range(2)],
        "error": ["", ""],
        "path": ["", ""],
    }
    assert scan_images(dataset, "train") == first and len(decoded) == 2
    monkeypatch.setattr(scan, "_SCAN_VERSION", 99)  # as after a change of the decoder
    assert scan_images(dataset, "train") == first and len(decoded) == 4


def test_progress_bars_are_as_before(dataset, monkeypatch):
    switched = []
    monkeypatch.setattr(scan.datasets, "enable_progress_bars", lambda: switched.append("on"))
    for disabled, expected in ((True, []), (False, ["on"])):
        monkeypatch.setattr(scan.datasets, "are_progress_bars_disabled", lambda off=disabled: off)
        scan_images(dataset, "train")
        assert switched == expected
