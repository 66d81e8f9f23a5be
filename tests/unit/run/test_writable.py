# SPDX-License-Identifier: Apache-2.0
"""Whether a run folder can be written, as root too."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from training.common.errors import UserError
from training.run.writable import check_writable


def test_a_folder_that_can_be_written_is_not_made(tmp_path):
    check_writable(tmp_path)
    check_writable(tmp_path / "runs" / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "there").write_text("mine")
    for folder in (tmp_path / "there", tmp_path / "there" / "runs" / "new"):
        with pytest.raises(UserError) as error:
            check_writable(folder)
        assert str(error.value).startswith(f"output_dir {folder}")
        assert "choose another --output_dir" in str(error.value)
    assert (tmp_path / "there").read_text() == "mine"


def test_a_file_system_that_is_read_only(tmp_path, monkeypatch):
    def refuse(dir: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError) as error:
        check_writable(tmp_path / "runs")
    assert str(error.value) == (
        f"output_dir {tmp_path / 'runs'} cannot be written ({tmp_path}: Read-only file system): choose "
        "another --output_dir"
    )


@pytest.mark.skipif(os.name != "posix" or not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_folder_where_nobody_may_write():
    with pytest.raises(UserError, match="^output_dir /proc/self/runs cannot be written"):
        check_writable(Path("/proc/self/runs"))
