# SPDX-License-Identifier: Apache-2.0
"""Releases that a test may change: one that was really built, and a toy that loads no model."""

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.card_files import files
from training.hub import release
from training.hub.contents import MANIFEST, card_text, make_manifest


@pytest.fixture
def released(tiny_run, tmp_path) -> Path:
    """A copy of the release that a test may change."""
    return shutil.copytree(tiny_run / "release", tmp_path / "release")


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


@pytest.fixture
def without_loading(monkeypatch):
    """Leave out the loading back, for tests of what comes before and after it."""
    monkeypatch.setattr(release, "load_back", lambda folder, run: None)


@pytest.fixture
def toy(tmp_path) -> Path:
    """A release folder of small files that is whole as far as card and manifest go."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, content in files().items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "config.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "food_classification.py").write_text("# as it was when this was released\n")
    (folder / "predictions.csv").write_text("position,label,predicted,score\n")
    (folder / "README.md").write_text(card_text(folder), encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(make_manifest(folder)))
    return folder
