# SPDX-License-Identifier: Apache-2.0
"""The run folder: when it may be used, what is resumed, and what is written down."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.toys import (
    train,
    write_recipe,
)
from training.common.errors import UserError
from training.common.machine import device_name
from training.config.recipe import parse_recipe
from training.data.loading import load_splits
from training.engine.checkpoints import complete_checkpoints, find_checkpoint
from training.model.config_block import merge_block
from training.model.create import build_network
from training.run import folder as run_module
from training.run.folder import Run, lock_run
from training.run.methods import build_trainer_of


@pytest.fixture
def open_run(tmp_path, tiny_data):
    """open_run(folder, *command line) -> Run; nothing is trained."""
    recipe = write_recipe(tmp_path / "tiny.yaml", dataset=tiny_data)

    def open_run(folder: Path, *overrides: str) -> Run:
        return Run.open(parse_recipe([str(recipe), "--output_dir", str(folder), *overrides]))

    return open_run


@pytest.fixture
def finished(tiny_run, tmp_path) -> Path:
    """A copy of the finished run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "finished")


@pytest.fixture
def unfinished(finished) -> Path:
    """As a run that was killed after its last checkpoint."""
    record = json.loads((finished / "run.json").read_text())
    (finished / "run.json").write_text(json.dumps({**record, "finished": None}))
    shutil.rmtree(finished / "release")
    shutil.rmtree(finished / "model")
    (finished / "evaluation.json").unlink()
    return finished


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


# ---- the folder -------------------------------------------------------------------------------


def test_a_new_folder_is_not_made_by_looking(open_run, tmp_path):
    run = open_run(tmp_path / "new")
    assert (run.is_finished, run.checkpoint, run.folder.exists()) == (False, None, False)
    (tmp_path / "empty").mkdir()
    assert not open_run(tmp_path / "empty").is_finished


def test_another_run_names_the_key_that_differs(open_run, tiny_run):
    with pytest.raises(UserError, match=r"holds another run \(learning_rate was 0.001, is 0.5\)"):
        open_run(tiny_run, "--learning_rate", "0.5")
    with pytest.raises(
        UserError, match=r"\(weight_decay was .*, is 0.3\): choose another --output"
    ):
        open_run(tiny_run, "--weight_decay", "0.3")


def test_keys_that_change_nothing_may_differ(open_run, tiny_run):
    """More memory or cores on the machine that goes on are no other run."""
    assert open_run(
        tiny_run, "--per_device_train_batch_size=4", "--dataloader_num_workers=1"
    ).is_finished
    assert open_run(tiny_run, "--save_total_limit=5").is_finished
    assert open_run(
        tiny_run, "--torch_compile=true", "--gradient_checkpointing=true", "--tf32=false"
    ).is_finished


@pytest.mark.parametrize("name", ["notes.txt", "run.txt", ".hidden"])
def test_something_else_there_is_never_overwritten(open_run, tmp_path, name):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / name).write_text("mine")
    with pytest.raises(UserError, match="already holds something that is not a run"):
        open_run(tmp_path / "there")
    assert (tmp_path / "there" / name).read_text() == "mine"


def test_a_lock_alone_is_of_a_run_that_did_not_get_further(open_run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / ".lock").touch()
    assert not open_run(tmp_path / "there").is_finished


def test_a_file_in_the_way(open_run, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match="already holds something that is not a run"):
        open_run(tmp_path / "there")


def test_a_folder_that_may_not_be_entered(open_run, tmp_path, monkeypatch):
    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match="x cannot be read .Permission denied.: choose another"):
        Run.open(SimpleNamespace(training=SimpleNamespace(output_dir=str(tmp_path / "x"))))


def test_a_folder_that_cannot_be_written_is_refused_before_the_data(open_run, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match=f"^output_dir .*: {tmp_path / 'there'} is no folder: give"):
        open_run(tmp_path / "there" / "run")


def test_a_damaged_run_json_is_one_line(open_run, finished):
    (finished / "run.json").write_text('{"format": 1,')
    with pytest.raises(UserError, match="run.json is not JSON"):
        open_run(finished)


def test_a_finished_run_is_reported_and_left_alone(tiny_run, tiny_data, tmp_path, capsys):
    before = contents(tiny_run)
    recipe = write_recipe(tmp_path / "tiny.yaml", dataset=tiny_data)
    train(recipe, "--output_dir", tiny_run)
    out = capsys.readouterr().out
    assert "was finished on" in out and "nothing was trained now" in out
    assert "test top-1: " in out and "n = 18" in out
    assert contents(tiny_run) == before


def test_a_release_that_is_missing_is_built(finished, tiny_data, tmp_path, capsys):
    """Of a run that was interrupted between its end and its release."""
    before = contents(finished / "release").keys()
    shutil.rmtree(finished / "release")
    recipe = write_recipe(tmp_path / "tiny.yaml", dataset=tiny_data)
    train(recipe, "--output_dir", finished)
    assert "was finished on" in capsys.readouterr().out
    assert len(contents(finished / "release")) == len(before)


def test_a_finished_run_of_other_code_is_refused(open_run, tiny_run, monkeypatch):
    monkeypatch.setattr(run_module, "code_sha256", lambda: "another")
    with pytest.raises(UserError, match="finished run of another version of this code"):
        open_run(tiny_run)


# ---- resuming ---------------------------------------------------------------------------------


def test_an_unfinished_run_says_how_to_go_on(open_run, unfinished):
    with pytest.raises(
        UserError, match="unfinished run: continue it with --resume_from_checkpoint"
    ):
        open_run(unfinished)
    run = open_run(unfinished, "--resume_from_checkpoint", "last")
    assert run.checkpoint == str(complete_checkpoints(unfinished)[-1])
    assert not run.is_finished


def test_incomplete_checkpoints_are_ignored(open_run, unfinished):
    steps = [int(path.name.split("-")[1]) for path in complete_checkpoints(unfinished)]
    assert steps == [4, 8]
    (unfinished / "checkpoint-8" / "complete").unlink()
    assert find_checkpoint(unfinished, "last") == str(unfinished / "checkpoint-4")
    (unfinished / "checkpoint-4" / "complete").unlink()
    assert not open_run(unfinished).is_finished  # nothing to lose: it starts again
    with pytest.raises(UserError, match="resume_from_checkpoint last: .* no complete checkpoint"):
        open_run(unfinished, "--resume_from_checkpoint", "last")


def test_last_without_a_checkpoint(open_run, tmp_path):
    with pytest.raises(UserError, match="no complete checkpoint; start without it"):
        open_run(tmp_path / "new", "--resume_from_checkpoint", "last")


def test_a_path_that_is_no_checkpoint(open_run, tmp_path):
    with pytest.raises(
        UserError, match="resume_from_checkpoint .*nowhere is not a complete checkpoint"
    ):
        open_run(tmp_path / "new", "--resume_from_checkpoint", str(tmp_path / "nowhere"))


def test_a_half_written_checkpoint_is_not_resumed_by_its_path(open_run, unfinished):
    checkpoint = unfinished / "checkpoint-8"
    assert open_run(unfinished, "--resume_from_checkpoint", str(checkpoint)).checkpoint
    (checkpoint / "complete").unlink()
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        open_run(unfinished, "--resume_from_checkpoint", str(checkpoint))


# ---- what is written down ---------------------------------------------------------------------


def test_the_folder_of_a_run(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        ".lock",
        "checkpoint-4",
        "checkpoint-8",
        "evaluation.json",
        "images.csv",
        "example.jpg",
        "log_history.json",
        "model",
        "predictions.csv",
        "release",
        "run.json",
        "selection.npz",
    }
    assert {path.name for path in (tiny_run / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_a_run_that_starts_is_written_down_as_unfinished_and_said(open_run, tmp_path, caplog):
    run = open_run(tmp_path / "new", "--per_device_train_batch_size", "4")
    splits = load_splits(run.recipe.data)
    network = build_network(run.recipe.model, splits.label_names, seed=0)
    trainer = build_trainer_of(run.recipe, network, splits)
    caplog.clear()
    with caplog.at_level(logging.INFO, "training"):
        run.start(trainer, network, splits)
    assert caplog.messages == [
        "36 images to train on, 12 to select, 18 to test; batch 8 = 4 x 1 processes x 2 accumulated, "
        f"scored by 64; {device_name()}, precision no, sdpa attention, no workers; new head for 3 labels"
    ]
    record = json.loads((tmp_path / "new" / "run.json").read_text())
    assert record == json.loads(json.dumps(run.record)) and record["finished"] is None
    assert record["recipe_name"] == "tiny" and record["recipe"]["learning_rate"] == 1e-3
    assert run.lock.is_locked
    run.lock.release()


def test_labels_without_a_name_are_counted_once(open_run, tmp_path, caplog):
    run = open_run(tmp_path / "run")
    splits = load_splits(run.recipe.data)
    network = build_network(run.recipe.model, splits.label_names, 0)
    merge_block(network.model.config, names={"en": {"pizza": "Pizza"}})
    trainer = build_trainer_of(run.recipe, network, splits)
    caplog.clear()
    with caplog.at_level(logging.INFO, "training"):
        run.start(trainer, network, splits)
    (line,) = (each for each in caplog.messages if each.startswith("names: "))
    assert "2 of 3 in en: they are shown as they read" in line


def test_a_folder_that_another_process_uses(tmp_path):
    code = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another process: wait for it, or choose"):
            lock_run(tmp_path)
        other.stdin.close()
        other.wait(timeout=60)
    lock_run(tmp_path).release()


# ---- stages -----------------------------------------------------------------------------------


def test_a_stage_is_measured_and_said(open_run, tmp_path, caplog):
    run = open_run(tmp_path / "new")
    with caplog.at_level(logging.INFO, "training"):
        with run.stage("data"):
            assert run.seconds == {}
        with pytest.raises(KeyboardInterrupt), run.stage("train"):
            raise KeyboardInterrupt
    assert run.seconds.keys() == {"data"} and 0 <= run.seconds["data"] < 5
    (said,) = caplog.messages
    assert said.startswith("data: ")


def test_the_main_process_does_what_is_done_once(open_run, tmp_path):
    done = []
    open_run(tmp_path / "new").on_main(lambda *words: done.append(words), "a", 1)
    assert done == [("a", 1)]
