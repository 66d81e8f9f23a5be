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
