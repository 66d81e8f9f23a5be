"""The recipe: YAML gives defaults, the command line overrides, everything is typed and strict.

A recipe is a packaged name (`training/recipes/NAME.yaml`) or a path. Both the file's values and
the command line go through one argparse parser, so `2e-4` is a number in either place.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from training.augmentation import AugmentationArguments
from training.errors import UserError
from training.files import find_recipe, packaged_recipes
from training.initialization import WEIGHT_INIT
from training.keys import REMOVED, TAKEN_AWAY, as_argv, without_nulls
from training.machine import usable_cores
from training.optimization import OptimizationArguments, check_optimization
from training.step import check_compilation
from training.tuning import TuningArguments, check_tuned

# transformers knows that a loss should be small, and takes every other metric for an accuracy.
LESS_IS_BETTER = ("nll", "ece", "eval_nll", "eval_ece")


@dataclass
class DataArguments:
    """Which images, and which part of them is used for what."""

    dataset: str = field(
        default="ethz/food101",
        metadata={
            "help": "Hub id, local folder or parquet file(s), or `sample` for the drawn dishes"
        },
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "commit, tag or branch"})
    image_column: str = field(default="image", metadata={"help": "column with the images"})
    label_column: str = field(default="label", metadata={"help": "column with the class labels"})
    train_split: str = field(default="train", metadata={"help": "split to train and select on"})
    test_split: str = field(
        default="validation", metadata={"help": "split to report on, scored once, after training"}
    )
    selection_fraction: float = field(
        default=0.05,
        metadata={"help": "stratified share of the train split that selects the checkpoint"},
    )
    split_seed: int = field(default=0, metadata={"help": "seed of the selection slice"})
    undecodable_images: str = field(
        default="stop", metadata={"help": "`stop` before the first step, or `skip` and count them"}
    )
    train_short_side: int | None = field(
        default=None,
        metadata={"help": "train on images reduced to this short side, from a cache made once"},
    )
    eval_cache_gb: float = field(
        default=16.0,
        metadata={
            "help": "limit of the decoded evaluation images and a probe's features on disk; 0 keeps none"
        },
    )

    def __post_init__(self) -> None:
        if not 0 < self.selection_fraction < 1:
            raise UserError(
                f"selection_fraction is {self.selection_fraction}: give a share between 0 and 1"
            )
        if self.undecodable_images not in ("stop", "skip"):
            raise UserError(f"undecodable_images is {self.undecodable_images!r}: give stop or skip")
        if self.train_short_side is not None and self.train_short_side < 1:
            raise UserError(f"train_short_side is {self.train_short_side}: give a number of pixels")
        if not 0 <= self.eval_cache_gb < math.inf:  # NaN is neither
            raise UserError(f"eval_cache_gb is {self.eval_cache_gb}: give GB, or 0 for no cache")


@dataclass
class ModelArguments:
    """Which network, from which weights."""

    model: str | None = field(
        default=None, metadata={"help": "Hub id or folder to start from; none trains from scratch"}
    )
    model_revision: str | None = field(default=None, metadata={"help": "commit, tag or branch"})
    model_config: str | None = field(
        default=None, metadata={"help": "ViTConfig values for training from scratch, as a mapping"}
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "pixels a side; default: the checkpoint's, or 224 from scratch"},
    )
    head_init_scale: float = field(
        default=1.0,
        metadata={
            "help": "a new head's weights times this: 0 as in ViT (arXiv:2010.11929), 0.001 as in BEiT"
        },
    )

    weight_init: str = field(
        default="normal",
        metadata={
            "help": "first weights of a ViT from scratch: normal, as transformers draws them, or mimetic, "
            "attention and positions as they look after pretraining (arXiv:2305.09828)"
        },
    )

    def __post_init__(self) -> None:
        if isinstance(self.model_config, str):
            self.model_config = _json_mapping("model_config", self.model_config)
        if self.model and self.model_config:
            raise UserError(
                "model and model_config are both set: model_config describes a network from scratch, "
                "give `model: null` with it, or --model_config null to start from the model"
            )
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"image_size is {self.image_size}: give a number of pixels")
        if not 0 <= self.head_init_scale <= 1:
            raise UserError(f"head_init_scale is {self.head_init_scale}: give 0 to 1")
        if self.weight_init not in WEIGHT_INIT:
            raise UserError(f"weight_init is {self.weight_init!r}: give normal or mimetic")
        if self.model and self.weight_init != "normal":
            raise UserError(
                f"weight_init {self.weight_init} and model {self.model}: it is for a network from scratch; "
                "leave it out (--weight_init null), or give `model: null`"
            )


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


class Recipe(NamedTuple):
    """One run, resolved."""

    name: str
    data: DataArguments
    model: ModelArguments
    training: FineTuningArguments
    values: dict[
        str, Any
    ]  # every key of this project, and those of TrainingArguments that were set


def parse_recipe(argv: list[str]) -> Recipe:
    """`[RECIPE, --key, value, ...]` -> Recipe.

    Raises:
        UserError: unknown recipe or key, removed key, wrong type, impossible value.
    """
    if not argv or argv[0].startswith("-"):
        raise UserError(
            f"which recipe? give one of {', '.join(packaged_recipes())}, or the path of a YAML file"
        )
    name, (overrides, taken_back) = argv[0], without_nulls(argv[1:])
    file_values = read_recipe(name)
    if any(word.split("=", 1)[0] == "--model" for word in argv[1:]):
        file_values.pop("model_revision", None)  # of the file's own model
    _check_keys(list(file_values), f"recipe {name}")
    _check_keys(taken_back, "the command line")
    file_values |= dict.fromkeys(taken_back)
    given = [a[2:].split("=", 1)[0].replace("-", "_") for a in overrides if a.startswith("--")]
    _check_keys(given, "the command line")
    file_argv = [token for key, value in file_values.items() for token in as_argv(key, value)]
    if file_values.get("output_dir") is None:
        file_argv += ["--output_dir", f"runs/{Path(name).stem}"]
    data, model, training, stray = _parser().parse_args_into_dataclasses(
        file_argv + overrides, look_for_args_file=False, return_remaining_strings=True
    )
    if stray:
        raise UserError(f"{stray[0]} (the command line) stands alone: write --key value")
    chosen = {*file_values, *given, "output_dir"}
    named = {*given, *(key for key, value in file_values.items() if value is not None)}
    check_tuned(training, data, model, named)
    return Recipe(Path(name).stem, data, model, training, _resolved(data, model, training, chosen))


def read_recipe(name: str) -> dict[str, Any]:
    """Read a packaged recipe or a path; the mapping as YAML gives it."""
    path = find_recipe(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must be `key: value` lines")
    return {str(key): value for key, value in values.items()}


def known_keys() -> set[str]:
    classes = (DataArguments, ModelArguments, FineTuningArguments)
    names = {f.name for cls in classes for f in dataclasses.fields(cls) if f.init}
    return {name for name in names if name not in TAKEN_AWAY and not name.startswith("_")}


def _check_keys(keys: list[str], where: str) -> None:
    known = known_keys()
    for key in keys:
        key = key[3:] if key.startswith("no_") and key[3:] in known else key
        if key in known:
            continue
        if key in TAKEN_AWAY:
            raise UserError(f"{key} ({where}) is not a key here: {TAKEN_AWAY[key]}")
        if key in REMOVED:
            raise UserError(f"{key} ({where}) no longer exists: {REMOVED[key]}")
        close = difflib.get_close_matches(key, known, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else "`food101 train --help` lists the usual ones"
        )
        raise UserError(f"unknown key {key} ({where}): {hint}")


class _Parser(HfArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(re.sub(r"^argument --(\w+)(/\S+)?:", r"key \1:", message))


def _parser() -> HfArgumentParser:
    return _Parser(
        (DataArguments, ModelArguments, FineTuningArguments), allow_abbrev=False, add_help=False
    )


def _json_mapping(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{key} is {text!r}: give a mapping, as '{{\"hidden_size\": 192}}'"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{key} is {text!r}: give a mapping, as '{{\"hidden_size\": 192}}'")
    return value


def _resolved(data: Any, model: Any, training: Any, chosen: set[str]) -> dict[str, Any]:
    classes = (FineTuningArguments, AugmentationArguments, OptimizationArguments, TuningArguments)
    own = {name for each in classes for name in each.__annotations__}
    values = {**dataclasses.asdict(data), **dataclasses.asdict(model)}
    plain = {k: v for k, v in training.to_dict().items() if k in own | (chosen & known_keys())}
    return {**values, **plain}
