# SPDX-License-Identifier: Apache-2.0
"""Which images can be decoded, what they are, and that only content counts."""

import hashlib
import os
import sqlite3

import pytest
from datasets import Dataset, Features, Image

from tests.unit.toys import jpeg
from training.data import scan
from training.data.scan import Look, Verdicts, look_at, scan_images

EMPTY = hashlib.sha256(b"").hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def embedded(data: bytes | None) -> dict:
    return {"bytes": data, "path": None}


def rows(*images: dict | None) -> Dataset:
    features = Features({"image": Image(decode=False)})
    return Dataset.from_dict({"image": list(images)}, features=features)


def test_an_image_in_a_file_and_one_embedded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    expected = Look(sha256(jpeg(0)), "", len(jpeg(0)), (40, 36))
    assert look_at({"bytes": None, "path": str(tmp_path / "a.jpg")}) == expected
    assert look_at(embedded(jpeg(0))) == look_at({"bytes": jpeg(0), "path": "b.jpg"}) == expected


@pytest.mark.parametrize(
    "image", [None, {"bytes": None, "path": None}, {"bytes": None, "path": ""}]
)
def test_a_row_without_an_image(image):
    assert look_at(image) == Look(EMPTY, "the row has no image", 0)


def test_a_file_that_is_gone(tmp_path):
    found = look_at({"bytes": None, "path": str(tmp_path / "gone.jpg")})
    assert found == Look(EMPTY, "cannot be read: No such file or directory", 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "0 bytes"), (b"a text", "not a readable image"), (jpeg(0)[:-200], "truncated")],
)
def test_what_cannot_be_decoded_has_a_checksum_and_a_reason(data, reason):
    found = look_at(embedded(data))
    assert found.sha256 == sha256(data) and reason in found.error and "\n" not in found.error


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """Everything that is decoded from here on."""
    seen, real = [], scan.decode_image
    monkeypatch.setattr(scan, "decode_image", lambda data: seen.append(data) or real(data))
    return seen


@pytest.fixture
def place(tmp_path, monkeypatch) -> object:
    monkeypatch.setattr(scan, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "verdicts.sqlite"


def test_rows_in_their_order_and_nothing_decoded_twice(place, decoded):
    dataset = rows(embedded(jpeg(0)), embedded(b"x"), embedded(jpeg(2)), None)
    first = scan_images(dataset, "train")
    assert [look.sha256 for look in first] == [
        sha256(jpeg(0)),
        sha256(b"x"),
        sha256(jpeg(2)),
        EMPTY,
    ]
    assert [bool(look.error) for look in first] == [False, True, False, True]
    again = scan_images(dataset, "train")
    assert len(decoded) == 3
    assert [(a.sha256, a.error) for a in again] == [(b.sha256, b.error) for b in first]


def test_another_file_with_the_same_name_size_and_time_is_looked_at_again(place, decoded, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(0))
    os.utime(path, (1, 1))
    dataset = rows({"bytes": None, "path": str(path)})
    assert scan_images(dataset, "train")[0].error == ""
    path.write_bytes(b"x" * len(jpeg(0)))
    os.utime(path, (1, 1))
    (look,) = scan_images(dataset, "train")
    assert look.sha256 == sha256(path.read_bytes()) and "not a readable image" in look.error
    assert len(decoded) == 2


def test_another_decoder_looks_again(place, decoded, monkeypatch):
    dataset = rows(embedded(jpeg(0)))
    scan_images(dataset, "train")
    monkeypatch.setattr(scan, "version", lambda _: "another Pillow")
    scan_images(dataset, "train")
    assert len(decoded) == 2
    with sqlite3.connect(place) as file:
        assert file.execute("SELECT count(*) FROM verdicts").fetchone() == (2,)


def test_a_decoder_that_was_installed_since_looks_again(place, decoded, monkeypatch):
    dataset = rows(embedded(b"a photograph of a phone"))
    scan_images(dataset, "train")
    monkeypatch.setattr(scan.food_images, "pi_heif", object())
    monkeypatch.setattr(scan, "version", lambda name: f"{name} 1")
    scan_images(dataset, "train")
    assert len(decoded) == 2


def test_a_file_that_cannot_be_read_is_not_remembered(place, tmp_path):
    path = tmp_path / "late.jpg"
    dataset = rows({"bytes": None, "path": str(path)})
    assert scan_images(dataset, "train")[0].error
    path.write_bytes(jpeg(0))
    assert scan_images(dataset, "train")[0].error == ""


@pytest.mark.parametrize("damage", [b"no database", None])
def test_without_its_memory_it_decodes(damage, place, decoded, caplog):
    """A damaged file, and a folder in the place of the file."""
    place.parent.mkdir()
    place.mkdir() if damage is None else place.write_bytes(damage)
    dataset = rows(embedded(jpeg(0)))
    for _ in range(2):
        assert scan_images(dataset, "train")[0].error == ""
    assert len(decoded) == 2 and "every image is decoded at each start" in caplog.text


def test_many_images_are_looked_at_in_workers(place, monkeypatch):
    monkeypatch.setattr(scan, "num_decoders", lambda _: 2)
    dataset = rows(*(embedded(jpeg(i)) for i in range(150)))
    found = scan_images(dataset, "train")
    assert [look.sha256 for look in found] == [sha256(jpeg(i)) for i in range(150)]


def test_verdicts_of_nothing(tmp_path):
    verdicts = Verdicts(tmp_path / "none" / "v.sqlite")
    verdicts.add({})
    assert verdicts.read() == {} and not (tmp_path / "none").exists()


def test_the_working_folder_is_not_searched(tmp_path, monkeypatch):
    """A row whose file was not found in the data set; another file has its name here."""
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    monkeypatch.chdir(tmp_path)
    gone = Look(EMPTY, "cannot be read: No such file or directory", 0)
    assert look_at({"bytes": None, "path": "a.jpg"}) == gone
    assert look_at({"bytes": None, "path": "/a\0b"}) == Look(
        EMPTY, "cannot be read: embedded null byte", 0
    )
