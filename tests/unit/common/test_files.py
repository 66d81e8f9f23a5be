# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, and what is said where one is not."""

import hashlib
import json
import math
import os
from pathlib import Path

import pytest

from training.common import files
from training.common.errors import UserError
from training.common.files import read_json, sha256_file, write_json, write_text


def test_what_is_written_is_read(tmp_path):
    value = {"name": "crème brûlée", "scores": [0.5, None]}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "crème" in text
    assert read_json(tmp_path / "a.json") == value
    write_json(tmp_path / "a.json", [])
    assert read_json(tmp_path / "a.json") == []
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have(tmp_path, number):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert read_json(tmp_path / "a.json") == 1


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def crash(source: Path, target: Path) -> None:
        assert Path(source).read_text() == "new" and Path(source).parent == tmp_path
        assert Path(source).name.startswith(".")  # no glob for results takes it for one
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_missing_file_asks_for_a_finished_run(tmp_path):
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "run.json")
    assert str(error.value) == f"{tmp_path}/run.json is missing: is {tmp_path} a finished run?"


@pytest.mark.parametrize("content", [b"", b'{"format": 1,', b'{"name": "\xff"}'])
def test_a_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="run.json is not JSON .*: restore it") as error:
        read_json(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 5, 1 << 20, (1 << 20) + 1])
def test_the_checksum_is_of_the_whole_file(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_json_keeps_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["b", "a"]
