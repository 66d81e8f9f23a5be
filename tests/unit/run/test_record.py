# SPDX-License-Identifier: Apache-2.0
"""What run.json says."""

import json
import re
import shutil

import pytest

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
    write_image_folder,
)
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.run import record
from training.run.record import code_sha256, command_line, describe_selection


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
