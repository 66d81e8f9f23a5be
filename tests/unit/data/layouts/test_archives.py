# SPDX-License-Identifier: Apache-2.0
"""Archives are unpacked once for a content, and never write outside."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.unit.data.layouts import made
from tests.unit.data.layouts.made import counts_of, found_counts, photo, photos
from training.common.errors import UserError
from training.data.array_store import cache_folder
from training.data.layouts import archives
from training.data.layouts.archives import unpack


def zip_of(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def tar_of(path: Path, *members: tarfile.TarInfo, data: bytes = b"") -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(data) if member.isfile() else None)
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        unpack([path])
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    folder = cache_folder() / "unpacked"
    assert not list(folder.glob(".*")), "something half unpacked was left"
    return str(error.value)


def link() -> zipfile.ZipInfo:
    made_ = zipfile.ZipInfo("train/a/link.jpg")
    made_.external_attr = (stat.S_IFLNK | 0o777) << 16
    return made_


@pytest.mark.parametrize(
    "name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "..\\out.jpg", "C:/out.jpg"]
)
def test_paths_that_lead_out_are_refused(name, tmp_path):
    assert "leads out of it" in refusal(zip_of(tmp_path / "a.zip", (name, b"x")))
    assert "leads out of it" in refusal(tar_of(tmp_path / "a.tar", info(name)))


def test_links_and_devices_are_refused(tmp_path):
    assert "is a link" in refusal(zip_of(tmp_path / "a.zip", (link(), b"/etc/passwd")))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        assert "is a link" in refusal(tar_of(tmp_path / "a.tar", info("x", kind, "/etc/passwd")))
    assert "is no file" in refusal(tar_of(tmp_path / "a.tar", info("x", tarfile.CHRTYPE)))


def test_what_expands_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    bomb = tmp_path / "a.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", b"\0" * 5_000_000)
    assert "expands to more than 0.0001 GB" in refusal(bomb)
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 10**12)
    monkeypatch.setattr(archives, "RESERVE", 10**18)
    assert "the disk has no room" in refusal(bomb)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_named(name, tmp_path):
    assert "cannot be unpacked" in refusal(made.write(tmp_path / name, b"no archive"))


def test_two_files_of_one_name_are_refused(tmp_path, recwarn):
    path = zip_of(tmp_path / "a.zip", ("a/1.jpg", b"x"), ("a/1.jpg", b"y"))
    assert "holds two files called a/1.jpg" in refusal(path)


def test_it_is_unpacked_once_for_its_content(tmp_path):
    each = photos()
    path = made.zipped(tmp_path / "a.zip", made.folders(tmp_path / "d", each))
    folder = unpack([path])
    assert unpack([path.rename(tmp_path / "b.zip")]) == folder
    before = os.stat(tmp_path / "b.zip")
    other = made.zipped(tmp_path / "b.zip", made.folders(tmp_path / "e", photos(("train",))))
    os.utime(other, (before.st_atime, before.st_mtime))
    assert unpack([other]) != folder
    assert found_counts(other) == counts_of(photos(("train",)))


def test_names_that_are_utf_8_without_saying_so(tmp_path):
    """macOS' Finder forgets the flag."""
    entry = zipfile.ZipInfo("train/x/1.jpg")
    path = zip_of(
        tmp_path / "a.zip",
        *[(f"train/{label}/1.jpg", photo(i)) for i, label in enumerate(("ab", "cd"))],
    )
    del entry
    data = path.read_bytes().replace(b"train/ab/1.jpg", "train/é/1.jpg".encode())
    path.write_bytes(data)
    assert found_counts(path) == {"train": {"é": 1, "cd": 1}}


def test_names_of_another_windows_are_refused_where_they_are_labels(tmp_path):
    """Korean Windows writes cp949 and does not say so: 피자 would be trained as ├╩╣Σ."""
    path = zip_of(tmp_path / "a.zip", ("train/xxxx/1.jpg", photo(1)))
    path.write_bytes(path.read_bytes().replace(b"xxxx", "피자".encode("cp949")))
    assert "is not in UTF-8, so that a label would be misspelt" in refusal(path)


def test_folders_that_windows_wrote(tmp_path):
    entries = [(f"d\\{s}\\x\\", b"") for s in ("train", "test")]
    entries += [(f"d\\{s}\\{n}\\1.jpg", photo(1)) for s in ("train", "test") for n in ("x", "y")]
    path = zip_of(tmp_path / "a.zip", *entries)
    assert found_counts(path) == {s: {"x": 1, "y": 1} for s in ("train", "test")}


@pytest.mark.parametrize("ending", ["zip", "gz", "bz2", "xz"])
@pytest.mark.parametrize("place", [0.5, -6])
def test_damage_inside_is_named(ending, place, tmp_path):
    path = tmp_path / ("a.zip" if ending == "zip" else f"a.tar.{ending}")
    text = b"".join(b"%d, " % (i * i) for i in range(20_000))
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.txt", text)
    else:
        with tarfile.open(path, f"w:{ending}") as tar:
            member = info("x.txt")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    data = bytearray(path.read_bytes())
    for i in range(4):
        data[(len(data) // 2 if place == 0.5 else len(data) + place - 4) + i] ^= 0xFF
    path.write_bytes(data)
    told = refusal(path)
    assert "cannot be unpacked" in told and "free space" not in told


def test_names_that_no_folder_can_hold(tmp_path):
    assert "is too long" in refusal(zip_of(tmp_path / "a.zip", (f"a/{'x' * 300}.jpg", b"x")))
    both = zip_of(tmp_path / "a.zip", ("a", b"x"), ("a/1.jpg", b"x"))
    assert "is a file and a folder" in refusal(both)


def labels_zip(path: Path, numbers: range, above: str = "") -> Path:
    entries = [(f"{above}{n}/{i}.jpg", photo(i + 100 * len(n))) for n in "ab" for i in numbers]
    return zip_of(path, *entries)


def test_parts_of_one_archive_are_one(tmp_path):
    """As Google Takeout gives them: two labels, not two archives."""
    for part, numbers in ((1, range(3)), (2, range(3, 5))):
        path = tmp_path / "d" / f"takeout-20240101T000000Z-00{part}.zip"
        path.parent.mkdir(exist_ok=True)
        labels_zip(path, numbers, "Takeout/Google Photos/")
    assert found_counts(tmp_path / "d") == {"train": {"a": 5, "b": 5}}


def test_archives_are_known_by_their_names_too(tmp_path):
    (tmp_path / "d").mkdir()
    labels_zip(tmp_path / "d" / "train.zip", range(3))
    other = labels_zip(tmp_path / "d" / "val.zip", range(5, 7))
    assert found_counts(tmp_path / "d").keys() == {"train", "validation"}
    other.rename(tmp_path / "d" / "test.zip")
    assert found_counts(tmp_path / "d").keys() == {"train", "test"}
    labels_zip(tmp_path / "d" / "sub.zip", range(9)).rename(tmp_path / "d" / "TEST.zip")
    (tmp_path / "d" / "TEST.zip").rename(tmp_path / "d" / "test.ZIP")
    with pytest.raises(UserError, match="have one name: rename one"):
        found_counts(tmp_path / "d")


def test_captions_beside_images_in_label_folders_are_no_labels(tmp_path):
    each = photos()
    root = made.folders(tmp_path / "d", each)
    for path in list(root.rglob("*.jpg")):
        path.with_suffix(".txt").write_text("0 0.5 0.5 1 1")
    assert found_counts(made.tarred(tmp_path / "a.tar.gz", root)) == counts_of(each)
