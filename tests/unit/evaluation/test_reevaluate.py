# SPDX-License-Identifier: Apache-2.0
"""Scoring a finished model again: on which data, and what an older run says of them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.card_files import EVALUATION, files, format_1
from training.common.errors import UserError
from training.evaluation import reevaluate
from training.evaluation.reevaluate import evaluate_again, read_reported

COLUMNS = {"image_column": "photo", "label_column": "dish", "undecodable_images": "skip"}


def write_release(folder: Path, kind: str = "hub", **evaluation: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    both = files(kind)
    both["run"]["recipe"] |= {"dataset": both["run"]["data"]["dataset"], **COLUMNS}
    both["evaluation"] |= evaluation
    for name, content in both.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_what_a_release_says_of_its_data(tmp_path):
    folder = write_release(tmp_path / "release")
    reported = read_reported("r", folder, None)
    assert reported == {**EVALUATION, "path": None, "columns": COLUMNS, "learned": ["train"]}


def test_the_files_of_a_run_are_beside_its_model(tmp_path):
    run = write_release(tmp_path / "run")
    (run / "model").mkdir()
    assert read_reported("run", run / "model", None)["split"] == "validation"
    (run / "evaluation.json").unlink()
    assert read_reported("run", run / "model", None) is None


def test_local_data_have_a_path_while_they_are_there(tmp_path):
    folder = write_release(tmp_path / "run", "local")
    record = json.loads((folder / "run.json").read_text())
    for path, expected in ((str(tmp_path), str(tmp_path)), (str(tmp_path / "gone"), None)):
        record["recipe"]["dataset"] = path
        (folder / "run.json").write_text(json.dumps(record))
        assert read_reported("run", folder, None)["path"] == expected


def test_the_first_format_is_upgraded_and_an_unknown_one_refused(tmp_path):
    folder = write_release(tmp_path / "release")
    (folder / "evaluation.json").write_text(json.dumps(format_1()))
    assert read_reported("r", folder, None)["metrics"] == EVALUATION["metrics"]
    write_release(folder, format=3)
    with pytest.raises(UserError, match=r"evaluation.json is not of this format"):
        read_reported("r", folder, None)


def test_a_model_of_the_hub_is_asked_for_both_files(tmp_path, monkeypatch):
    folder = write_release(tmp_path / "release")
    asked = []

    def download(repo_id: str, name: str, revision: str | None) -> str:
        asked.append((repo_id, name, revision))
        return str(folder / name)

    monkeypatch.setattr(reevaluate, "hf_hub_download", download)
    assert read_reported("user/food", None, "v1")["n"] == 25250
    assert asked == [("user/food", name, "v1") for name in ("evaluation.json", "run.json")]


def test_data_that_nobody_names_are_asked_for(tmp_path):
    shutil.copy(write_release(tmp_path / "r", "local") / "run.json", tmp_path)
    for folder, said in (
        (tmp_path, "does not say what it was"),
        (tmp_path / "r", "local data foo"),
    ):
        (folder / "config.json").write_text("{}")
        with pytest.raises(UserError, match=f"{said}.*: give --dataset"):
            evaluate_again(str(folder))


def test_an_older_run_is_scored_again_by_its_record(tiny_run, tmp_path):
    """Split, batch size, seed and columns come from its evaluation.json, which stays as it is."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run / "model", run / "model")
    shutil.copy(tiny_run / "run.json", run)
    today = json.loads((tiny_run / "evaluation.json").read_text())
    old = format_1(today)
    (run / "evaluation.json").write_text(json.dumps(old))
    again = evaluate_again(str(run))
    passing = ("created", "seconds", "images_per_second")
    assert {k: v for k, v in again.items() if k not in passing} == (
        {k: v for k, v in today.items() if k not in passing}
    )
    assert json.loads((run / "evaluation.json").read_text()) == old


@pytest.mark.parametrize(
    ("split", "cross_validation", "learned"),
    [
        (None, None, ["train"]),
        ("dev", None, ["train"]),
        ("dev", {"folds": 5, "images": 300}, ["train", "dev"]),
        (None, {"folds": 5, "images": 300}, ["train"]),  # a slice of train
    ],
)
def test_which_splits_were_learned_from(split, cross_validation, learned):
    run = {
        "data": {"train_split": "train", "selection_split": split},
        "selection": {"cross_validation": cross_validation},
    }
    assert reevaluate.learned_splits(run) == learned
    assert reevaluate.learned_splits({"data": {"train_split": "train"}}) == ["train"]  # older


def test_scoring_what_was_learned_from_is_warned_of(tmp_path, monkeypatch, caplog):
    from types import SimpleNamespace

    folder = write_release(tmp_path / "release")
    images = SimpleNamespace(name="train", cut=None)
    monkeypatch.setattr(reevaluate, "model_folder", lambda _: folder)
    monkeypatch.setattr(reevaluate, "label_names_from", lambda *_: [])
    monkeypatch.setattr(reevaluate, "load_split", lambda *_: (None, images))
    monkeypatch.setattr(reevaluate, "evaluate_model", lambda *_, **__: ({}, None))
    monkeypatch.setattr(reevaluate, "num_decoders", lambda _: 0)
    evaluate_again(str(folder), split="train")
    assert "split train: " in caplog.text and "has learned from these images" in caplog.text
    caplog.clear()
    images.name = "validation"
    evaluate_again(str(folder))
    assert not caplog.messages
