"""Callbacks that listen to Trainer: epochs, a finite loss, extensions, early stopping, progress lines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from training.common.errors import UserError
from training.common.files import write_json
from training.common.progress import Progress
from training.engine.extension import Extension
from training.engine.training_arguments import FineTuningArguments
from training.input.batch import EpochSampler

logger = logging.getLogger(__name__)


class EpochCallback(TrainerCallback):
    """Tells the sampler its epoch; accelerate does not reach it after a resume on several ranks."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        """Tell the sampler which epoch the next optimizer step is in."""
        self.sampler.set_epoch(state.global_step // self.sampler.steps_per_epoch)


class FiniteLossCallback(TrainerCallback):
    """Stops at a loss that is not finite, before a checkpoint of the damaged weights is written.

    Args:
        first_bad_step: asks all processes for the first step whose loss was not finite, -1 for none;
            the call waits for the device.
        rate: name and value of the learning rate, for the message.
    """

    def __init__(self, first_bad_step: Callable[[], int], rate: tuple[str, Any]) -> None:
        self.first_bad_step, self.rate = first_bad_step, rate

    def _check(self) -> None:
        if (step := self.first_bad_step()) >= 0:
            key, value = self.rate
            raise UserError(
                f"the training loss was not finite at step {step}: lower {key} "
                f"({value}), lengthen warmup_steps, or use bf16 or no mixed "
                "precision instead of fp16; the checkpoints before it are kept"
            )

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Check for a non-finite loss, only at steps that log, save or score.

        Raises:
            UserError: the loss of an earlier step was not finite.
        """
        if control.should_log or control.should_save or control.should_evaluate:
            self._check()

    on_epoch_end = on_step_end

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Check the loss of the last steps.

        Raises:
            UserError: the loss of one of them was not finite.
        """
        self._check()


class ExtensionCallback(TrainerCallback):
    """Tells the extensions that an optimizer step was taken."""

    def __init__(self, extensions: Sequence[Extension]) -> None:
        self.extensions = extensions

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        """Call each extension's `after_step`; Trainer counts the step only afterwards."""
        for extension in self.extensions:
            extension.after_step(state.global_step + 1)


class EarlyStopping(EarlyStoppingCallback):
    """Stops as transformers' early stopping does; a resumed run counts on from what its checkpoint had."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Count the scorings since the best one; stop at once if the resumed run had stopped."""
        super().on_train_begin(args, state, control, **kwargs)
        scored = {row["step"] for row in state.log_history if "eval_top1" in row}
        best = state.best_global_step or 0
        self.early_stopping_patience_counter = sum(step > best for step in scored)
        stays = self.early_stopping_patience_counter >= self.early_stopping_patience
        control.should_training_stop = stays  # a run that had stopped and was killed afterwards


class LogCallback(TrainerCallback):
    """Logs progress lines with images/s and time left; writes log_history.json into the run folder."""

    def __init__(self) -> None:
        self.started = 0.0
        self.first_step: int | None = None  # until the first step has been taken
        self.warm_up = 0.0  # seconds
        self.scored = 0  # batches of the scoring at hand
        self.scoring: Progress | None = None  # until its first batch is scored

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the clock."""
        self.started, self.first_step = time.monotonic(), None

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Restart the speed timer after the first step, which starts workers and compiles."""
        if self.first_step is None:  # it starts workers and compiles: no measure of speed
            self.warm_up = time.monotonic() - self.started
            self.started, self.first_step = time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Write log_history.json, and log a line of what was trained or scored."""
        if not state.is_world_process_zero:
            return
        write_json(
            Path(args.output_dir) / "log_history.json", [finite(row) for row in state.log_history]
        )
        if "loss" in (logs or {}):
            logger.info(self._train_line(args, state, logs))
        elif "eval_top1" in (logs or {}):
            n = "selection top-1 {:.2%}, loss {:.3f}".format(logs["eval_top1"], logs["eval_loss"])
            if "eval_probe_learning_rate" in logs:
                n += f", with the head of learning rate {logs['eval_probe_learning_rate']:g}"
            logger.info("epoch %.2f: %s", state.epoch or 0, n)

    def _train_line(self, args: FineTuningArguments, state: Any, logs: dict[str, float]) -> str:
        return (
            f"step {state.global_step}/{state.max_steps}, epoch {state.epoch:.2f}: loss {logs['loss']:.3f}, "
            f"lr {logs['learning_rate']:.2e}, {self._speed(args, state)}"
        )

    def _speed(self, args: FineTuningArguments, state: Any) -> str:
        done, seconds = state.global_step - self.first_step, time.monotonic() - self.started
        if not done:
            return f"the first step took {self.warm_up:.1f} s"
        left = seconds / done * (state.max_steps - state.global_step)
        return f"{done * args.total_train_batch_size / seconds:.0f} images/s, {clock(left)} left"

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs) -> None:
        """Log a line now and then while the selection slice is scored."""
        self.scored += 1
        if self.scoring is None:
            self.scoring = Progress(len(eval_dataloader))
        if self.scoring.is_due(self.scored) and state.is_world_process_zero:
            logger.info(
                "scoring the selection slice: batch %d/%d", self.scored, len(eval_dataloader)
            )

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        """Reset the batch counter and the timer of the evaluation that has just ended."""
        self.scored, self.scoring = 0, None


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """Replace the numbers of a log row that are NaN or infinite by None, for JSON has none of them.

    fp16 logs an infinite gradient norm whenever its loss scale is lowered.
    """
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def clock(seconds: float) -> str:
    """Write a duration as minutes:seconds, or from an hour on as hours:minutes:seconds.

    >>> clock(3661)
    "1:01:01"
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
