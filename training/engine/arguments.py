"""The recipe's keys about which weights are trained: all, a head on frozen features, or LoRA."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from training.common.errors import UserError
from training.common.machine import usable_cores
from training.engine.compilation import check_compilation
from training.evaluation.metrics import LESS_IS_BETTER
from training.input.arguments import AugmentationArguments


def check_world_size(launched: int, seen: int, num_gpus: int) -> None:
    """Stop when the launcher and torch disagree: each process would train alone into one folder."""
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


TUNE = ("full", "linear_probe", "probe_then_full", "lora")

# The grid of DINOv2's probe (arXiv:2304.07193, dinov2/eval/linear.py), for a batch of 256.
PROBE_LEARNING_RATES = (
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
)  # fmt: skip

MAX_RATE = 1e6  # far beyond use; float32 ends much further on


@dataclass
class TuningArguments:
    """What is trained; a part of FineTuningArguments."""

    tune: str = field(
        default="full",
        metadata={
            "help": "full, linear_probe (a head on frozen features), probe_then_full (arXiv:2202.10054) "
            "or lora (arXiv:2106.09685)"
        },
    )
    probe_learning_rates: list[float] = field(
        default_factory=lambda: list(PROBE_LEARNING_RATES),
        metadata={"help": "one head each, all in one pass; the selection slice chooses (DINOv2's)"},
    )
    probe_epochs: float = field(
        default=10.0, metadata={"help": "passes over the features before probe_then_full goes on"}
    )
    lora_rank: int = field(default=16, metadata={"help": "rank of the update of each matrix"})
    lora_alpha: float = field(
        default=16.0, metadata={"help": "the update counts lora_alpha / lora_rank times"}
    )
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "dropout on the update's input, drawn by torch: process by process"},
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"],
        metadata={
            "help": "last names of the linear layers that are adapted (LoRA's: query, value); the head "
            "is trained in full"
        },
    )

    def check_tuning(self) -> None:
        """Refuse impossible values by name.

        Raises:
            UserError: a value that its key cannot have.
        """
        if self.tune not in TUNE:
            *most, last = TUNE
            raise UserError(f"tune is {self.tune!r}: give {', '.join(most)} or {last}")
        rates = self.probe_learning_rates
        if not rates or not all(0 < rate < MAX_RATE for rate in rates):  # NaN is neither
            raise UserError(
                f"probe_learning_rates is {rates}: give numbers above 0, below {MAX_RATE:,.0f}, as 0.01 0.1"
            )
        if len(set(rates)) < len(rates):
            raise UserError(f"probe_learning_rates is {rates}: give each of them once")
        if not 0 < self.probe_epochs < math.inf:
            raise UserError(f"probe_epochs is {self.probe_epochs}: give a number above 0")
        self._check_lora()

    def _check_lora(self) -> None:
        if self.lora_rank < 1:
            raise UserError(f"lora_rank is {self.lora_rank}: give at least 1 (4 to 64 is usual)")
        if not 0 < self.lora_alpha < MAX_RATE:
            raise UserError(
                f"lora_alpha is {self.lora_alpha}: give a number above 0, below {MAX_RATE:,.0f}"
            )
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"lora_dropout is {self.lora_dropout}: give 0 to below 1")
        if not self.lora_target_modules:
            raise UserError(
                "lora_target_modules is empty: give names of linear layers, as q_proj v_proj"
            )
        if self.tune == "lora" and importlib.util.find_spec("peft") is None:
            raise UserError(
                'tune is lora and peft is not installed: pip install -e ".[lora]", or make setup'
            )


@dataclass
class OptimizationArguments:
    """What timm's recipes have beside an optimizer and a schedule; each is off by default."""

    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "learning rate of each ViT block as a share of the next one's (BEiT, "
            "arXiv:2106.08254; 0.65 to 0.9); 1 for one rate"
        },
    )
    drop_path: float = field(
        default=0.0,
        metadata={
            "help": "stochastic depth, the rate of the last ViT block (arXiv:1603.09382; 0.1 to 0.3)"
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "score and keep a moving average of the weights (0.999 to 0.9999; warmed up as in "
            "tf.train.ExponentialMovingAverage); null for the weights themselves"
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "stop after so many scorings without a better one; null never stops"},
    )


# ---- what a recipe may say -----------------------------------------------------------------------


def check_optimization(args: FineTuningArguments) -> None:
    """Refuse what would train something else than was meant.

    Raises:
        UserError: a value outside of its range; it is named.
    """
    if not 0 < args.layer_decay <= 1:
        raise UserError(
            f"layer_decay is {args.layer_decay}: give above 0 to 1 (0.65 to 0.9 is usual)"
        )
    if not 0 <= args.drop_path < 1:
        raise UserError(f"drop_path is {args.drop_path}: give 0 to below 1 (0.1 to 0.3 is usual)")
    if args.ema_decay is not None and not 0 < args.ema_decay < 1:
        raise UserError(
            f"ema_decay is {args.ema_decay}: give above 0 to below 1 (0.999 is usual), or leave it out"
        )
    patience = args.early_stopping_patience
    if patience is None:
        return
    if patience < 1:
        raise UserError(f"early_stopping_patience is {patience}: give at least 1, or leave it out")
    if args.eval_strategy == "no":
        raise UserError(
            f"early_stopping_patience {patience} with eval_strategy no: nothing would be scored; give "
            "eval_strategy epoch or steps"
        )
    if args.eval_on_start:
        raise UserError(
            f"early_stopping_patience {patience} with eval_on_start true: a resumed run would count the "
            "same scoring twice; leave eval_on_start out"
        )
    if not args.load_best_model_at_end:
        raise UserError(
            f"early_stopping_patience {patience} with load_best_model_at_end false: the last weights, "
            "which are not the best, would be kept; leave load_best_model_at_end at true"
        )


def describe_optimization(args: FineTuningArguments) -> dict[str, Any]:
    """For run.json: what is not in plain fine-tuning; 1, 0 or null where it was not asked for."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(OptimizationArguments)}


@dataclass
class FineTuningArguments(
    AugmentationArguments, OptimizationArguments, TuningArguments, TrainingArguments
):
    """TrainingArguments with the global batch stated, and defaults for honest fine-tuning."""

    total_train_batch_size: int = field(
        default=64, metadata={"help": "images in one optimizer step, over all processes"}
    )
    per_device_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "images at once on one device, at most; default: no accumulation"},
    )
    per_device_eval_batch_size: int | None = field(
        default=None,
        metadata={"help": "images scored at once; default: 4 x the training ones, from 64 to 256"},
    )
    data_seed: int | None = field(default=0, metadata={"help": "seed of order, crops and flips"})
    eval_strategy: str = field(
        default="epoch", metadata={"help": "when to score the selection slice"}
    )
    save_strategy: str = field(default="epoch", metadata={"help": "when to write a checkpoint"})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "checkpoints kept; the best stays"}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "keep the selected weights"}
    )
    metric_for_best_model: str | None = field(default="top1", metadata={"help": "what selects"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "learning rate schedule"})
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "trackers; none for no tracker"}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "fixed"})
    # The filter replaces a NaN loss by an average and waits for the device at every step.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "fixed"})
    dataloader_num_workers: int = field(
        default=-1, metadata={"help": "processes that decode images; -1 chooses from the cores"}
    )
    dataloader_persistent_workers: bool = field(default=True, metadata={"help": "keep workers"})
    # transformers 5.23 calls it activation_checkpointing, and 6 will know that name only.
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "recompute activations: less memory, slower steps"}
    )
    # Every parameter of a classifier gets a gradient in every step: the extra graph pass buys nothing.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "DDP"})

    def __post_init__(self) -> None:
        self._check_values()
        self._check_mixing_ends()
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        self._derive_batch(launched)
        self._choose_workers(launched)
        self._name_checkpointing()
        if self.greater_is_better is None and self.metric_for_best_model in LESS_IS_BETTER:
            self.greater_is_better = False
        try:
            super().__post_init__()
        except (ValueError, KeyError) as error:  # transformers names the key and the legal values
            raise UserError(" ".join(str(error).split())) from error
        check_world_size(launched, self.world_size, self.n_gpu)

    def _check_values(self) -> None:
        self.check_augmentation()
        self.check_tuning()
        for key in ("learning_rate", "weight_decay", "num_train_epochs", "max_grad_norm"):
            if not 0 <= getattr(self, key) < math.inf:  # NaN is neither
                raise UserError(f"{key} is {getattr(self, key)}: give a number from 0 up")
        if self.num_train_epochs == 0 and self.max_steps < 1:
            raise UserError("num_train_epochs is 0: nothing would be trained")
        if self.per_device_eval_batch_size is not None and self.per_device_eval_batch_size < 1:
            raise UserError(
                f"per_device_eval_batch_size is {self.per_device_eval_batch_size}: give at least 1"
            )
        if not 0 <= self.label_smoothing_factor < 1:
            raise UserError(
                f"label_smoothing_factor is {self.label_smoothing_factor}: give 0 to below 1"
            )
        check_optimization(self)
        check_compilation(self.torch_compile_backend, self.torch_compile_mode)

    def _check_mixing_ends(self) -> None:
        off, epochs = self.mix_off_epoch, self.num_train_epochs
        if self.augmentation().mixes(epoch=0) and off >= epochs and off and self.max_steps < 1:
            raise UserError(
                f"mix_off_epoch is {off} and num_train_epochs {epochs:g}: mixing would never be off; give "
                "an epoch before the last, or 0 to mix to the end"
            )

    def _derive_batch(self, world_size: int) -> None:
        total, device = self.total_train_batch_size, self.per_device_train_batch_size
        if total < 1 or (device is not None and device < 1):
            raise UserError(
                f"total_train_batch_size is {total}, per_device {device}: give at least 1"
            )
        if device is None:
            device = max(1, total // world_size)
        elif device * world_size > total and total % world_size == 0:
            device = total // world_size  # more devices than the recipe was written for
        if total % (device * world_size):
            raise UserError(
                f"total_train_batch_size {total} is not a multiple of per_device_train_batch_size "
                f"{device} x {world_size} processes = {device * world_size}; change one of them"
            )
        self.check_pairs(device)
        self.per_device_train_batch_size = device
        if self.per_device_eval_batch_size is None:  # nothing is kept for a backward pass
            self.per_device_eval_batch_size = min(256, max(64, 4 * device))
        self.gradient_accumulation_steps = total // (device * world_size)

    def _choose_workers(self, world_size: int) -> None:
        self.dataloader_pin_memory = torch.cuda.is_available() and not self.use_cpu
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
        """Give it to transformers under the name that the installed version has for it."""
        for name in ("checkpointing", "checkpointing_kwargs"):
            ours, theirs = f"gradient_{name}", f"activation_{name}"
            if hasattr(self, theirs):
                setattr(self, theirs, getattr(self, ours))
