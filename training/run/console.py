"""Print for the person who started a run: its outcome, or a mistake in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

import datasets
from accelerate import PartialState
from transformers import logging as transformers_logging

from inference.food_answers import readable_name
from training.common.errors import UserError
from training.common.signals import Interrupted
from training.engine.checkpoints import is_begun
from training.evaluation.formats import read_evaluation
from training.evaluation.predictions import read_predictions
from training.run.folder import Run


def report(run: Run) -> None:
    """Print the outcome of a finished run in a few lines, on the main process."""
    if not PartialState().is_main_process:
        return
    result = read_evaluation(run.folder)
    top1 = result["metrics"]["top1"]
    low, high = top1["interval"]
    if run.is_finished:
        say(f"{run.folder} was finished on {run.record['finished']}; nothing was trained now.")
    say(
        f"test top-1: {top1['value']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {result['n']:,})"
    )
    first = read_predictions(run.folder)[0]
    label, predicted, score = first["label"], first["predicted"], first["score"]
    say(
        f"one test image, {run.folder / 'example.jpg'}: {readable_name(predicted)} ({float(score):.0%}), "
        f"labelled {readable_name(label)}"
    )
    say(
        f"run: {run.folder}   card: {run.folder / 'release' / 'README.md'}   release: {run.folder / 'release'}"
    )
    if result["source"] == "sample":
        say(
            "the real Food-101 run: accelerate launch --config_file accelerate_config.yaml "
            "-m training.train vit_base_food101"
        )


def say(text: str) -> None:
    """Print one line at once, even where standard output is a file."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def way_on_of(run: Run) -> Iterator[None]:
    """Let an interrupt inside the `with` say how this run goes on: from a checkpoint, or anew."""
    try:
        yield
    except Interrupted as interrupt:
        interrupt.way_on = way_on(run)
        raise


def way_on(run: Run) -> str:
    """Say how a run that was interrupted goes on, by what its folder holds now."""
    if is_begun(run.folder):
        return "continue with the same command and --resume_from_checkpoint last"
    if run.recipe.training.resume_from_checkpoint is not None:
        return "the same command begins again, from the same checkpoint"
    return "there is no checkpoint yet, the same command starts anew"


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a UserError into one line and exit code 2; any other error keeps its traceback.

    It also sets how much libraries log, on every process.

    >>> with exit_on_user_error():
    ...     main()
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()  # a bar for every checkpoint says nothing
    if os.environ.get("LOCAL_RANK", "0") != "0":
        transformers_logging.set_verbosity_error()
        datasets.disable_progress_bars()
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
