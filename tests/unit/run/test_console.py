# SPDX-License-Identifier: Apache-2.0
"""What a run says at its end, and how a mistake ends it."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from tests.unit.card_files import files, format_1
from training.common.errors import UserError
from training.common.signals import Interrupted
from training.run import console
from training.run.console import exit_on_user_error, report, way_on_of


@pytest.fixture
def run(tmp_path) -> SimpleNamespace:
    """A folder with what `report` reads."""
    (tmp_path / "evaluation.json").write_text(json.dumps(files("sample")["evaluation"]))
    row = "position,label,predicted,score\n0,cheese_plate,cheesecake,0.934\n"
    (tmp_path / "predictions.csv").write_text(row)
    record = {"finished": "2026-11-22T21:12:10Z"}
    return SimpleNamespace(folder=tmp_path, is_finished=False, record=record)


def test_the_outcome_in_a_few_lines(run, capsys):
    report(run)
    folder = run.folder
    assert capsys.readouterr().out.splitlines() == [
        "test top-1: 89.64% (95 % interval 89.26% to 90.01%, n = 25,250)",
        f"one test image, {folder / 'example.jpg'}: Cheesecake (93%), labelled Cheese plate",
        f"run: {folder}   card: {folder / 'release' / 'README.md'}   release: {folder / 'release'}",
        "the real Food-101 run: accelerate launch --config_file accelerate_config.yaml "
        "-m training.train vit_base_food101",
    ]


def test_a_finished_run_says_so_first_in_either_format(run, capsys):
    run.is_finished = True
    report(run)
    said = capsys.readouterr().out
    assert said.startswith(
        f"{run.folder} was finished on 2026-11-22T21:12:10Z; nothing was trained now.\ntest top-1: "
    )
    path: Path = run.folder / "evaluation.json"
    path.write_text(json.dumps(format_1(json.loads(path.read_text()))))
    report(run)
    assert capsys.readouterr().out == said


def test_the_way_to_the_real_run_is_shown_to_who_ran_the_sample(run, capsys):
    (run.folder / "evaluation.json").write_text(json.dumps(files("hub")["evaluation"]))
    report(run)
    assert "the real Food-101 run" not in capsys.readouterr().out


@pytest.fixture
def quiet(monkeypatch):
    """What the entry point sets for its process stays as it is here, where tests share one."""
    monkeypatch.setattr(logging, "basicConfig", lambda **values: None)
    monkeypatch.setattr(console, "transformers_logging", mock.Mock())
    monkeypatch.setattr(console, "datasets", mock.Mock())
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def test_a_persons_mistake_is_one_line_and_exit_code_2(quiet, capsys):
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError("learning_rate is -1: give a positive number")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: learning_rate is -1: give a positive number\n"
    console.transformers_logging.disable_progress_bar.assert_called_once_with()
    console.transformers_logging.set_verbosity_error.assert_not_called()


def test_only_the_first_rank_says_it(quiet, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError("anything")
    assert ended.value.code == 2 and capsys.readouterr().err == ""
    console.transformers_logging.set_verbosity_error.assert_called_once_with()
    console.datasets.disable_progress_bars.assert_called_once_with()


def test_a_defect_keeps_its_traceback(quiet):
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        _ = 1 / 0


@pytest.mark.parametrize(
    ("wanted", "file", "said"),
    [
        (None, None, "there is no checkpoint yet, the same command starts anew"),
        (None, "checkpoint-4/model.safetensors", "there is no checkpoint yet, the same command"),
        (None, "checkpoint-4/complete", "continue with the same command and --resume_from_che"),
        ("last", "checkpoint-4/complete", "continue with the same command and --resume_from_che"),
        (None, "probe/checkpoint-4/complete", "continue with the same command and --resume_from"),
        (None, "probe/probe.json", "continue with the same command and --resume_from_checkpoint"),
        ("other/checkpoint-4", None, "the same command begins again, from the same checkpoint"),
    ],
)
def test_an_interrupt_names_the_way_on(tmp_path, wanted, file, said):
    training = SimpleNamespace(resume_from_checkpoint=wanted)
    run = SimpleNamespace(folder=tmp_path, recipe=SimpleNamespace(training=training))
    if file is not None:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    with pytest.raises(Interrupted) as interrupt, way_on_of(run):
        raise Interrupted(15)
    assert interrupt.value.way_on.startswith(said)
    with pytest.raises(KeyboardInterrupt), way_on_of(run):
        raise KeyboardInterrupt
