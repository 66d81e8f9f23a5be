# SPDX-License-Identifier: Apache-2.0
"""The run folder: when it may be used, what is resumed, and what is written down."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
    train,
    write_image_folder,
    write_recipe,
)
from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.engine.checkpoints import complete_checkpoints, find_checkpoint
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.run import folder as run_module
from training.run import record
from training.run.folder import Run, lock_run
from training.run.record import code_sha256, command_line, describe_selection


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


def test_a_file_in_the_way(open_run, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match="already holds something that is not a run"):
        open_run(tmp_path / "there")


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
        "example.jpg",
        "log_history.json",
        "model",
        "predictions.csv",
        "release",
        "run.json",
    }
    assert {path.name for path in (tiny_run / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_run_json(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["finished"] >= record["started"]
    assert record["recipe"]["learning_rate"] == 1e-3
    data, training = record["data"], record["training"]
    assert (data["num_train"], data["num_selection"], data["num_test"]) == (36, 12, 18)
    assert (training["world_size"], training["mixed_precision"]) == (1, "no")
    assert (training["total_train_batch_size"], training["steps"]) == (8, 8)
    assert training["images_per_second"] > 0
    assert training["stopped_early"] is False and training["optimization"]["ema_decay"] is None
    assert record["selection"]["n"] == 12 and record["selection"]["best_step"] in (4, 8)
    assert re.fullmatch("[0-9a-f]{64}", record["code_sha256"])


def test_selection_and_history_agree(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    rows = json.loads((tiny_run / "log_history.json").read_text())
    scores = {row["step"]: row["eval_top1"] for row in rows if "eval_top1" in row}
    assert record["selection"]["top1"] == max(scores.values())
    assert scores[record["selection"]["best_step"]] == max(scores.values())


@pytest.mark.parametrize("save_strategy", ["no", "epoch"])
def test_without_loading_the_best_the_last_is_selected(
    trainer_for_selection, monkeypatch, save_strategy
):
    """The record must describe the weights that are kept."""
    trainer = trainer_for_selection(save_strategy=save_strategy, load_best_model_at_end=False)
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    selection = describe_selection(trainer)
    assert selection["best_step"] == trainer.state.global_step == 2
    assert (selection["top1"], selection["best_epoch"]) == (0.5, 2.0)


def test_loading_the_best_is_recorded(trainer_for_selection, monkeypatch):
    trainer = trainer_for_selection()
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    selection = describe_selection(trainer)
    assert (selection["best_step"], selection["top1"], selection["best_epoch"]) == (1, 0.9, 1.0)


def test_a_best_checkpoint_that_is_gone_is_not_recorded(trainer_for_selection, monkeypatch):
    """A resume elsewhere finds the step noted, and its folder gone: the last weights are kept."""
    trainer = trainer_for_selection()
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    trainer.state.best_model_checkpoint = None
    selection = describe_selection(trainer)
    assert (selection["best_step"], selection["top1"]) == (2, 0.5)


@pytest.fixture
def trainer_for_selection(tmp_path):
    """Two epochs of one step each."""

    def trainer_for_selection(**values: object) -> FoodTrainer:
        root = write_image_folder(tmp_path / "dishes", train=4, validation=1)
        splits = load_splits(DataArguments(dataset=str(root), selection_fraction=0.25))
        return build_trainer(tiny_network(), splits, tiny_settings(tmp_path / "run", **values))

    return trainer_for_selection


def test_the_code_sum_is_stable_and_sees_a_change(tmp_path, monkeypatch):
    assert code_sha256() == code_sha256()
    for package in ("training", "inference", "model_card"):
        shutil.copytree(record.package_folder(package), tmp_path / package)
    monkeypatch.setattr(record, "package_folder", lambda package: tmp_path / package)
    before = code_sha256()
    (tmp_path / "training" / "__pycache__" / "x.cpython.pyc").parent.mkdir(exist_ok=True)
    (tmp_path / "training" / "__pycache__" / "x.cpython.pyc").write_bytes(b"x")
    assert code_sha256() == before
    with (tmp_path / "inference" / "food_classification.py").open("a") as file:
        file.write("# changed\n")
    assert code_sha256() != before
    monkeypatch.setattr(record, "package_folder", lambda package: tmp_path / "empty")
    with pytest.raises(RuntimeError, match="no sources of training"):
        code_sha256()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "--seed", "1"], "food101 train sample --seed 1"),
        (["a", "--output_dir", "/data/runs/x/"], "food101 train a --output_dir x"),
        (
            ["/home/me/a.yaml", "--output_dir", "/data/runs/x"],
            "food101 train a.yaml --output_dir x",
        ),
        (["a", "--output_dir=/data/runs/x", "--seed=1"], "food101 train a --output_dir=x --seed=1"),
        (["a", "--dataset", "two words"], "food101 train a --dataset 'two words'"),
    ],
)
def test_the_command_has_no_path_of_this_machine(monkeypatch, words, expected):
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    assert command_line() == expected


def test_a_folder_that_another_process_uses(tmp_path):
    held = lock_run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from training.run.folder import lock_run; "
        "from training.common.errors import UserError\n"
        "try: lock_run(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "in use by another process" in done.stdout, done.stderr
    held.release()
    lock_run(tmp_path).release()
