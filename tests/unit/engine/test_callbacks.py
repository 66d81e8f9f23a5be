# SPDX-License-Identifier: Apache-2.0
"""The callbacks: the sampler's epoch, a finite loss, early stopping, the lines of the log."""

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from training.common.errors import UserError
from training.engine.callbacks import (
    EpochCallback,
    ExtensionCallback,
    FiniteLossCallback,
    LogCallback,
    clock,
    finite,
)
from training.engine.trainer import FoodTrainer

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


@pytest.mark.parametrize(("step", "epoch"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)])
def test_the_sampler_is_told_its_epoch(trainer_for, step, epoch):
    """One process would get it from accelerate as well; several ranks after a resume would not."""
    trainer = trainer_for()
    (callback,) = [c for c in trainer.callback_handler.callbacks if isinstance(c, EpochCallback)]
    trainer.state.global_step = step
    callback.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.sampler.epoch == epoch


def test_a_loss_that_is_not_finite_stops_with_its_step(trainer_for, monkeypatch):
    trainer = trainer_for(num_train_epochs=3, learning_rate=0.02)
    compute_loss, steps = trainer.compute_loss, []

    def broken(*args: object, **kwargs: object) -> torch.Tensor:
        steps.append(1)
        return compute_loss(*args, **kwargs) * (math.nan if len(steps) >= 3 else 1.0)

    monkeypatch.setattr(trainer, "compute_loss", broken)
    monkeypatch.setattr(trainer, "evaluate", lambda *a, **k: {"eval_top1": 0.5})
    with pytest.raises(UserError, match=r"not finite at step 3: lower learning_rate \(0.02\)"):
        trainer.train()
    saved = sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
    assert saved == ["checkpoint-2"]  # the one before it, and none of NaN


def test_weights_that_are_nan_stop_at_the_first_step(trainer_for):
    trainer = trainer_for(**NO_CHECKPOINTS, logging_steps=1)
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = math.nan
    with pytest.raises(UserError, match="not finite at step 1"):
        trainer.train()


def test_a_loss_that_is_not_finite_is_seen_without_logs_or_checkpoints(trainer_for):
    trainer = trainer_for(**NO_CHECKPOINTS)
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = math.nan
    with pytest.raises(UserError, match="not finite at step 1"):
        trainer.train()


def stops(trainer: FoodTrainer, scores: list[float], monkeypatch, **kwargs: object) -> int:
    """The step at which training ended when the epochs score so; two steps an epoch."""
    top1 = iter(scores)
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1), "nll": 1.0})
    trainer.train(**kwargs)
    return trainer.state.global_step


def test_training_stops_after_scorings_that_were_not_better(trainer_for, monkeypatch):
    scores = [0.5, 0.7, 0.6, 0.7, 0.9, 0.9]
    stopped = trainer_for(num_train_epochs=6, early_stopping_patience=2)
    assert stops(stopped, scores, monkeypatch) == 8  # the fourth epoch
    assert (stopped.state.best_global_step, stopped.state.max_steps) == (4, 12)


def test_a_resumed_run_goes_on_counting(trainer_for, monkeypatch):
    values = {"num_train_epochs": 6, "early_stopping_patience": 2, "save_total_limit": 9}
    whole = trainer_for("whole", **values)
    assert stops(whole, [0.5, 0.4, 0.3], monkeypatch) == 6
    resumed = trainer_for("resumed", **values)
    checkpoint = str(Path(whole.args.output_dir) / "checkpoint-4")
    assert stops(resumed, [0.3, 0.2], monkeypatch, resume_from_checkpoint=checkpoint) == 6


def test_a_run_that_had_stopped_stays_stopped(trainer_for, monkeypatch):
    """Killed after its last checkpoint, in the evaluation say: a resume must not train on."""
    values = {"num_train_epochs": 6, "early_stopping_patience": 2, "save_total_limit": 9}
    whole = trainer_for("whole", **values, ema_decay=0.9)
    assert stops(whole, [0.5, 0.4, 0.3], monkeypatch) == 6
    resumed = trainer_for("resumed", **values, ema_decay=0.9)
    checkpoint = str(Path(whole.args.output_dir) / "checkpoint-6")
    assert stops(resumed, [0.9], monkeypatch, resume_from_checkpoint=checkpoint) == 6
    assert resumed.state.best_global_step == whole.state.best_global_step == 2
    for one, two in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_log_is_json_beside_the_run(trainer_for, tmp_path):
    trainer = trainer_for(num_train_epochs=1, logging_steps=1, save_strategy="no",
                          load_best_model_at_end=False)  # fmt: skip
    trainer.train()
    rows = json.loads((tmp_path / "run" / "log_history.json").read_text())
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert any("eval_top1" in row for row in rows)
    assert rows == trainer.state.log_history


def test_what_json_cannot_say_becomes_null():
    assert finite({"a": math.nan, "b": math.inf, "c": 1.5, "d": 2}) == (
        {"a": None, "b": None, "c": 1.5, "d": 2}
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text


# ---- the lines of the log ------------------------------------------------------------------------


@pytest.fixture
def clock_at(monkeypatch):
    """clock_at(seconds) sets the clock."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


def state(step: int, is_main: bool = True) -> TrainerState:
    return TrainerState(
        global_step=step, max_steps=100, epoch=step / 10, is_world_process_zero=is_main
    )


def test_a_training_line_has_the_speed_without_the_first_step(clock_at, tmp_path, caplog):
    callback, logs = LogCallback(), {"loss": 2.34567, "learning_rate": 3e-4}
    args = SimpleNamespace(output_dir=str(tmp_path), total_train_batch_size=64)
    caplog.set_level("INFO")
    callback.on_train_begin(args, state(0), None)
    clock_at(30)
    callback.on_step_end(args, state(1), None)
    callback.on_log(args, state(1), None, logs)
    clock_at(35)
    callback.on_step_end(args, state(11), None)
    callback.on_log(args, state(11), None, logs)
    assert caplog.messages == [
        "step 1/100, epoch 0.10: loss 2.346, lr 3.00e-04, the first step took 30.0 s",
        "step 11/100, epoch 1.10: loss 2.346, lr 3.00e-04, 128 images/s, 0:44 left",
    ]


def test_a_line_of_a_scoring_names_the_head_of_a_probe(tmp_path, caplog):
    callback, args = LogCallback(), SimpleNamespace(output_dir=str(tmp_path))
    caplog.set_level("INFO")
    scores = {"eval_top1": 0.875, "eval_loss": 0.5}
    callback.on_log(args, state(10), None, scores)
    callback.on_log(args, state(10), None, {**scores, "eval_probe_learning_rate": 0.1})
    callback.on_log(args, state(10), None, {"train_runtime": 3.0})
    callback.on_log(args, state(10, is_main=False), None, scores)
    line = "epoch 1.00: selection top-1 87.50%, loss 0.500"
    assert caplog.messages == [line, f"{line}, with the head of learning rate 0.1"]


def test_a_long_scoring_says_how_far_it_has_come_every_ten_seconds(clock_at, caplog):
    callback, loader = LogCallback(), range(9)
    caplog.set_level("INFO")
    for is_main in (True, False):
        for seconds in (0, 6, 12, 18, 24):  # 10 s after the first batch, and after each line
            clock_at(seconds)
            callback.on_prediction_step(None, state(1, is_main), None, eval_dataloader=loader)
        callback.on_evaluate(None, state(1, is_main), None)
    for seconds in (90, 101):  # another scoring, with a clock and a count of its own
        clock_at(seconds)
        callback.on_prediction_step(None, state(1), None, eval_dataloader=loader)
    assert caplog.messages == [f"scoring the selection slice: batch {n}/9" for n in (3, 5, 2)]


# ---- who is asked and told ------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [None, "should_log", "should_save", "should_evaluate"])
def test_the_loss_is_asked_for_only_where_the_device_is_waited_for(wanted):
    asked, control = [], TrainerControl()
    callback = FiniteLossCallback(lambda: asked.append(1) or 7, ("learning_rate", 0.3))
    if wanted is None:
        callback.on_step_end(None, None, control)
        assert asked == []
        return
    setattr(control, wanted, True)
    with pytest.raises(UserError, match=r"not finite at step 7: lower learning_rate \(0.3\)"):
        callback.on_step_end(None, None, control)


def test_extensions_are_told_the_number_of_the_step_that_ends(caplog):
    told = []
    extension = SimpleNamespace(after_step=told.append)
    ExtensionCallback([extension, extension]).on_optimizer_step(None, state(4), None)
    assert told == [5, 5]
