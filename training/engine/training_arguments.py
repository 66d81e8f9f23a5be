"""TrainingArguments with the global batch stated, and defaults for honest fine-tuning."""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames

from training.common.arguments import check_ranges
from training.common.errors import UserError
from training.common.machine import usable_cores
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    RangedKeys,
    TrainerKeys,
)
from training.engine.compilation import check_compilation, check_compiler
from training.engine.packages import check_optimizer, check_schedule, check_trackers
from training.evaluation.metrics import LESS_IS_BETTER, SUMMARY
from training.input.arguments import Augmentation

# TrainingArguments with the fields of these classes in the place of its own.
_KeyedArguments = dataclasses.make_dataclass(
    "_KeyedArguments",
    [
        (each.name, get_type_hints(kind)[each.name], copy.copy(each))
        for kind in (TrainerKeys, RangedKeys)
        for each in dataclasses.fields(kind)
    ],
    bases=(TrainingArguments,),
)


@dataclass
class FineTuningArguments(_KeyedArguments):
    """TrainingArguments of a recipe; accumulation, workers and evaluation batch are derived."""

    # A key of the data here; Trainer's finds the columns with labels by itself.
    label_names: list[str] | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self.other_keys: dict[str, Any] = {}  # the recipe's, for trackers and checkpoints
        self._check_values()
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        self._derive_batch(launched)
        self._choose_workers(launched)
        self._name_checkpointing()
        if self.greater_is_better is None and self.metric_for_best_model in LESS_IS_BETTER:
            self.greater_is_better = False
        try:
            super().__post_init__()
        except (ValueError, KeyError, TypeError, ImportError, OSError) as error:
            # transformers names the key and the legal values, or what is not installed
            raise UserError(" ".join(str(error).split())) from error
        check_world_size(launched, self.world_size, self.n_gpu)
        check_trackers(self.report_to)
        check_optimizer(self)
        check_schedule(self)
        check_compiler(self)

    def to_dict(self) -> dict[str, Any]:
        """Return every field and the recipe's other keys: what TensorBoard and other trackers record."""
        return {**super().to_dict(), **self.other_keys}

    def lengthened(self, steps_an_epoch: int) -> FineTuningArguments:
        """Copy with `max_steps` at `min_steps`, where the epochs make fewer; else return these."""
        if self.max_steps > 0 or self.num_train_epochs * steps_an_epoch >= self.min_steps:
            return self
        changed = copy.copy(self)
        changed.max_steps = self.min_steps
        return changed

    def epochs(self, steps_an_epoch: int) -> float:
        """Count the epochs of the whole schedule, which may end within one."""
        if self.max_steps < 1:
            return self.num_train_epochs
        return round(self.max_steps / steps_an_epoch, 2)

    def _check_values(self) -> None:
        check_ranges(self)
        if self.max_steps == 0:
            raise UserError("max_steps is 0: give a whole number above 0, or -1 for no limit")
        for name in ("output_dir", "resume_from_checkpoint"):
            if getattr(self, name) is not None:
                setattr(self, name, os.path.expanduser(getattr(self, name)))
        if self.num_train_epochs == 0 and self.max_steps < 1:
            raise UserError("num_train_epochs is 0: nothing would be trained")
        for name, known in (("lr_scheduler_type", SchedulerType), ("optim", OptimizerNames)):
            names = [each.value for each in known]
            if getattr(self, name) not in names:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: give one of {', '.join(names)}"
                )
        chooses = (self.metric_for_best_model or "top1").removeprefix("eval_")
        if chooses not in (*SUMMARY, "loss"):
            raise UserError(
                f"metric_for_best_model is {chooses}: give one of {', '.join((*SUMMARY, 'loss'))}"
            )
        self._check_early_stopping()
        self._check_checkpoints()
        check_compilation(self.torch_compile_backend, self.torch_compile_mode)

    def _check_early_stopping(self) -> None:
        patience = self.early_stopping_patience
        if patience is None:
            return
        if self.eval_strategy == "no":
            raise UserError(
                f"early_stopping_patience {patience} with eval_strategy no: nothing would be scored; give "
                "eval_strategy epoch or steps"
            )
        if self.eval_on_start:
            raise UserError(
                f"early_stopping_patience {patience} with eval_on_start true: a resumed run would count the "
                "same scoring twice; leave eval_on_start out"
            )
        if not self.load_best_model_at_end:
            raise UserError(
                f"early_stopping_patience {patience} with load_best_model_at_end false: the last weights, "
                "which are not the best, would be kept; leave load_best_model_at_end at true"
            )

    def _check_checkpoints(self) -> None:
        """Let checkpoints be written where the selection slice is scored, if the best is to be kept."""
        if self.save_steps is None:
            follows = self.eval_strategy == self.save_strategy == "steps"
            self.save_steps = (self.eval_steps or self.logging_steps) if follows else 500
        if not self.load_best_model_at_end or self.save_strategy == "best":
            return
        if self.eval_strategy != self.save_strategy:
            raise UserError(
                f"eval_strategy {self.eval_strategy} and save_strategy {self.save_strategy} differ: the best "
                "weights are kept only if they are scored and saved at once; make them the same, or give "
                "load_best_model_at_end false"
            )

    def _derive_batch(self, world_size: int) -> None:
        total, device = self.total_train_batch_size, self.per_device_train_batch_size
        if device is None:
            device = max(1, total // world_size)
        elif device * world_size > total and total % world_size == 0:
            device = total // world_size  # more devices than the recipe was written for
        if total % (device * world_size):
            raise UserError(
                f"total_train_batch_size {total} is not a multiple of per_device_train_batch_size "
                f"{device} x {world_size} processes = {device * world_size}; change one of them"
            )
        self.per_device_train_batch_size = device
        if self.per_device_eval_batch_size is None:  # nothing is kept for a backward pass
            self.per_device_eval_batch_size = min(256, max(64, 4 * device))
        self.gradient_accumulation_steps = total // (device * world_size)

    def _choose_workers(self, world_size: int) -> None:
        on_gpu = torch.cuda.is_available() and not self.use_cpu
        if self.dataloader_pin_memory and not on_gpu:
            raise UserError(
                "dataloader_pin_memory is true and no GPU is used: leave it out, memory is pinned where "
                "one is"
            )
        if self.dataloader_pin_memory is None:
            self.dataloader_pin_memory = on_gpu
        if self.dataloader_pin_memory and self.accelerator_config is None:
            # By default a batch's copy to the device waits for everything that is queued there.
            self.accelerator_config = {"non_blocking": True}
        if self.dataloader_num_workers < 0:
            local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
            share = usable_cores() // local
            self.dataloader_num_workers = max(1, min(16, share - (share > 4)))
        if self.dataloader_num_workers == 0:
            self.dataloader_persistent_workers, self.dataloader_prefetch_factor = False, None
        elif self.dataloader_prefetch_factor is None:
            self.dataloader_prefetch_factor = 4

    def _name_checkpointing(self) -> None:
        """Copy gradient checkpointing's keys to the names that the installed transformers has for them."""
        for name in ("checkpointing", "checkpointing_kwargs"):
            ours, theirs = f"gradient_{name}", f"activation_{name}"
            if hasattr(self, theirs):
                setattr(self, theirs, getattr(self, ours))

    @property
    def order_seed(self) -> int:
        """Return the seed of order, crops and flips: `data_seed`, or `seed` where that is None."""
        return self.seed if self.data_seed is None else self.data_seed


def check_world_size(launched: int, seen: int, num_gpus: int) -> None:
    """Stop when the launcher and torch disagree: each process would train alone into one folder.

    Args:
        launched: WORLD_SIZE as the launcher set it; 1 without a launcher.
        seen: processes that torch knows of.
        num_gpus: GPUs that this one process sees.

    Raises:
        UserError: they differ, or one process would have to use several GPUs.
    """
    if launched != seen:
        raise UserError(
            f"the launcher started {launched} processes but torch sees a world of {seen} (a multi-GPU "
            "configuration on a machine without GPUs?): set ACCELERATE_USE_CPU=1, or use "
            "--config_file training/launch/cpu.yaml"
        )
    if num_gpus > 1:
        raise UserError(
            f"one process sees {num_gpus} GPUs: start with `food101 train` or `accelerate launch "
            "--config_file accelerate_config.yaml -m training.train`, or set CUDA_VISIBLE_DEVICES=0"
        )


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a given network learns from given images."""

    training: FineTuningArguments
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    loss: LossArguments = dataclasses.field(default_factory=LossArguments)
    method: MethodArguments = dataclasses.field(default_factory=MethodArguments)
    extensions: ExtensionArguments = dataclasses.field(default_factory=ExtensionArguments)
