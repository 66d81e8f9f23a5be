"""Open a run's folder if it may be used, and write into it stage by stage.

run.json            resolved recipe, versions, world size, precision, revisions, seeds, durations
log_history.json    every logged number; runs/ holds the same for TensorBoard
checkpoint-N/       what a resume needs
probe.json          what a linear probe chose, and head.safetensors, the head (tune: linear_probe);
                    out_of_fold.safetensors, where a cross-validation chose
probe/              the same and its checkpoints, of a probe before another phase (tune: probe_then_...)
model/              the selected weights, config and image processor; scores are calibrated; with not_food
                    not_food.safetensors, see `training.evaluation.trust.not_food`
selection.npz       its scores of held-out images, see `training.evaluation.trust.held_out`
images.csv          split, label, SHA-256 and path of every image; left_out.csv what is not used
evaluation.json     the report on the test split; predictions.csv beside it
example.jpg         one test image
release/            what `food101 push` uploads
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock

from training.common.errors import UserError
from training.common.files import read_json, write_json
from training.common.locks import lock_folder
from training.common.machine import now, versions
from training.common.paths import check_writable, refuse_missing
from training.config.keys import FREE_KEYS, default_values, is_same_value
from training.config.recipe import Recipe
from training.data.splits import Splits, encoded_bytes
from training.engine.callbacks import clock
from training.engine.checkpoints import find_checkpoints, is_begun, probe_result
from training.engine.trainer import BaseTrainer
from training.evaluation.report import evaluate_model, write_evaluation
from training.model.config_block import read_block
from training.model.names import fallback_line
from training.model.network import Network
from training.run.images import refuse_changed, run_of, write_images
from training.run.record import (
    batch_line,
    code_sha256,
    command_line,
    describe_data,
    describe_model,
    describe_selection,
    describe_training,
    step_line,
    trained_line,
    warn_of_small_images,
)

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """An output folder that was opened for a recipe."""

    recipe: Recipe
    folder: Path
    checkpoint: str | None  # folder that training resumes from; None starts
    record: dict[str, Any]  # the content of run.json; {} until `start` writes it
    is_finished: bool = False  # whether an earlier process finished the run
    # Folder that a first phase resumes from; None starts it.
    probe_checkpoint: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # stage -> how long it took
    lock: FileLock | None = None  # held by the main process until it ends; None on other processes

    @classmethod
    def open(cls, recipe: Recipe) -> Run:
        """Look whether the folder may be used; nothing is written yet.

        Raises:
            UserError: the folder holds something that is no run, a run of another recipe, a finished run
                of another version of this code, or an unfinished one that is not to be resumed; there
                is nothing to resume from; the folder cannot be written; or the model to start from is a path
                where there is nothing.
        """
        folder = Path(recipe.training.output_dir)
        try:
            record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
        except PermissionError as error:  # also of a folder on the way that may not be entered
            raise UserError(
                f"output_dir {folder} cannot be read ({error.strerror}): choose another --output_dir"
            ) from error
        _refuse_other(folder, record, recipe)
        if record.get("finished"):
            _refuse_other_code(folder, record)
            return cls(recipe, folder, None, record, is_finished=True)
        wanted = recipe.training.resume_from_checkpoint
        checkpoint, probe = find_checkpoints(folder, wanted, recipe.method.tune)
        if wanted is None and is_begun(folder):
            raise UserError(
                f"{folder} holds an unfinished run: continue it with --resume_from_checkpoint last, "
                "or choose another --output_dir"
            )
        if recipe.model.model is not None:
            refuse_missing(recipe.model.model, "a folder with config.json")
        if PartialState().is_main_process:
            check_writable(folder, option="output_dir", folder=True)
        # Nobody writes before everybody has looked.
        PartialState().wait_for_everyone()
        return cls(recipe, folder, checkpoint, record={}, probe_checkpoint=probe)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure how long a stage takes, for run.json and a line on the main process.

        >>> with run.stage("data"):
        ...     splits = load_splits(recipe.data)
        """
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        if PartialState().is_main_process:
            logger.info("%s: %s", name, clock(self.seconds[name]))

    def start(self, trainer: BaseTrainer, network: Network, splits: Splits) -> None:
        """Lock the folder, write run.json as of an unfinished run and print what is about to be trained.

        Raises:
            UserError: another process holds the folder, or the run was begun with other images.
        """
        if checkpoint := self.checkpoint or self.probe_checkpoint:
            refuse_changed(run_of(checkpoint), splits)
        self.record = {
            "format": 1,
            "recipe_name": self.recipe.name,
            "recipe": self.recipe.values,
            "command": command_line(),
            "started": now(),
            "finished": None,
            "model": describe_model(self.recipe, network),
            "data": describe_data(self.recipe, splits),
            "training": describe_training(self.recipe, trainer),
            "versions": versions(),
            "code_sha256": code_sha256(),
        }
        t, d = self.record["training"], self.record["data"]
        if PartialState().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = lock_run(self.folder)
            write_images(self.folder, splits)
            write_json(self.folder / "run.json", self.record)
            logger.info(
                f"{d['num_train']} images to train on, {d['num_selection']} to select, {d['num_test']} to test; "
                f"{batch_line(t)}; {t['device']}, precision "
                f"{t['mixed_precision']}, {step_line(t)}; "
                f"{network.head} head for {len(splits.label_names)} labels"
                f"{trained_line(t, self.record['model']['num_parameters'])}"
            )
            names = read_block(network.model.config).get("names", {})
            if line := fallback_line(names, len(splits.label_names)):
                logger.info(line)
            warn_of_small_images(splits, network)

    def save_model(self, trainer: BaseTrainer) -> None:
        """Write the selected weights to model/: under a temporary name first, so that it is whole."""
        temporary, final = self.folder / ".model", self.folder / "model"
        trainer.save_model(str(temporary))
        if PartialState().is_main_process:
            (temporary / "training_args.bin").unlink(
                missing_ok=True
            )  # a pickle; run.json says it all
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
        PartialState().wait_for_everyone()

    def evaluate(self, splits: Splits) -> None:
        """Score model/ on the test split; write evaluation.json, predictions.csv and example.jpg."""
        args = self.recipe.training
        report_, logits = evaluate_model(
            self.folder / "model",
            splits.source,
            splits.test,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            seed=args.seed,
            cache_gb=self.recipe.data.eval_cache_gb,
        )
        if PartialState().is_main_process:
            write_evaluation(self.folder, report_, splits.test, logits)
            example = encoded_bytes(splits.test.dataset[0]["image"])
            (self.folder / "example.jpg").write_bytes(example)

    def on_main(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function(*args)` on the main process while the other processes wait."""
        if PartialState().is_main_process:
            function(*args)
        PartialState().wait_for_everyone()

    def finish(self, trainer: BaseTrainer) -> None:
        """Complete run.json: which weights were selected, how long each stage took, and the end."""
        self.record["selection"] = describe_selection(trainer)
        history = trainer.state.log_history
        rates = [
            row["train_samples_per_second"] for row in history if "train_samples_per_second" in row
        ]
        self.record["training"] |= {
            "steps": trainer.state.global_step,
            # 0: a resume that had no step left; none at all where no features went by in batches
            "images_per_second": (rates[-1] or None) if rates else None,
            "stopped_early": trainer.state.global_step < trainer.state.max_steps,
            "probe": probe_result(self.folder),
            **trainer.facts(),
        }
        self.record["seconds"] = {**self.seconds, "total": round(sum(self.seconds.values()), 2)}
        self.record["finished"] = now()
        if PartialState().is_main_process:
            write_json(self.folder / "run.json", self.record)


def _refuse_other(folder: Path, record: dict[str, Any], recipe: Recipe) -> None:
    if not record:
        # A process that was killed as it started leaves the lock, and nothing else.
        others = folder.is_dir() and {path.name for path in folder.iterdir()} - {".lock"}
        if folder.is_file() or others:
            raise UserError(
                f"output_dir {folder} already holds something that is not a run: choose another --output_dir"
            )
        return
    # An older record lacks the keys that came later; those of transformers are there if named.
    defaults = default_values()
    before, after = defaults | record.get("recipe", {}), defaults | recipe.values
    for key in sorted({*before, *after} - FREE_KEYS):
        if not is_same_value(key, before.get(key), after.get(key)):
            raise UserError(
                f"output_dir {folder} holds another run ({key} was {before.get(key)}, is {after.get(key)}): "
                "choose another --output_dir"
            )


def _refuse_other_code(folder: Path, record: dict[str, Any]) -> None:
    if record.get("code_sha256") != code_sha256():
        raise UserError(
            f"output_dir {folder} holds a finished run of another version of this code: choose another "
            "--output_dir, or remove the folder to train again"
        )


def lock_run(folder: Path) -> FileLock:
    """Lock a run's folder: two processes in one folder would delete each other's checkpoints.

    Returns:
        The lock; it is held until it is released or this process ends.

    Raises:
        UserError: another process holds the folder; nothing was written.
    """

    def refuse() -> None:
        raise UserError(
            f"{folder} is in use by another process: wait for it, or choose another --output_dir"
        )

    return lock_folder(folder, when_busy=refuse)
