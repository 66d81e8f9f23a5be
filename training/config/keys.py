"""List keys that a recipe may not have or a resumption may change, and defaults; write keys as words.

Nothing heavy is imported: the help of `food101 train` and `food101 compare` read these tables.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from training.common.arguments import default_of
from training.data.arguments import DataArguments
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    TrainerKeys,
)
from training.input.arguments import Augmentation
from training.model.arguments import ModelArguments
from training.probe.arguments import ProbeArguments

# Classes with keys of this project; FineTuningArguments has the fields of TrainerKeys.
_CLASSES = (
    DataArguments,
    ModelArguments,
    Augmentation,
    LossArguments,
    MethodArguments,
    ProbeArguments,
    ExtensionArguments,
    TrainerKeys,
)

# Keys of TrainingArguments that this project takes away, with what to do instead.
_PRECISION = (
    "precision is set where the hardware is: mixed_precision in accelerate_config.yaml, "
    "or `accelerate launch --mixed_precision bf16|fp16|no`"
)

_NO_HUB = "training writes nothing to the Hub; run `food101 push` afterwards"

_DERIVED = "it is derived: total_train_batch_size / (per_device_train_batch_size x processes)"

TAKEN_AWAY = {
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "push_to_hub": _NO_HUB,
    "hub_token": "tokens come from `hf auth login` or HF_TOKEN, never from a recipe",
    "hub_model_id": _NO_HUB,
    "hub_strategy": _NO_HUB,
    "hub_private_repo": _NO_HUB,
    "hub_always_push": _NO_HUB,
    "hub_revision": _NO_HUB,
    "gradient_accumulation_steps": _DERIVED,
    "auto_find_batch_size": _DERIVED,
    "remove_unused_columns": "it is always false here: images are decoded after the columns are chosen",
    "dataloader_drop_last": "an epoch is always cut to a whole number of global batches",
    "logging_nan_inf_filter": "it is always false here: it would hide a loss that is not finite",
    "prediction_loss_only": "the selection slice is always scored in full: top1 chooses the checkpoint",
    "activation_checkpointing": "it is called gradient_checkpointing here, with any transformers",
    "activation_checkpointing_kwargs": "it is called gradient_checkpointing_kwargs here",
    "do_train": "use the verbs: `food101 train`, `food101 evaluate`, `food101 predict`",
    "do_eval": "use the verbs: `food101 train`, `food101 evaluate`, `food101 predict`",
    "do_predict": "use the verbs: `food101 train`, `food101 evaluate`, `food101 predict`",
}

# Keys that recipes on the web still carry and that transformers 5 no longer has.
REMOVED = {
    "warmup_ratio": "write warmup_steps: 0.1 (below 1 it is a fraction of all steps)",
    "evaluation_strategy": "it is called eval_strategy",
    "overwrite_output_dir": "a run's folder is never overwritten; choose another output_dir",
    "logging_dir": "logs go into output_dir/runs",
    "save_safetensors": "weights are always saved as safetensors",
    "push_to_hub_model_id": _NO_HUB,
    "push_to_hub_token": "tokens come from `hf auth login` or HF_TOKEN, never from a recipe",
    "no_cuda": "it is called use_cpu",
    "per_gpu_train_batch_size": "it is called per_device_train_batch_size",
    "model_name_or_path": "it is called model",
    "dataset_name": "it is called dataset",
    "train_val_split": "it is called selection_fraction",
    "image_column_name": "it is called image_column",
    "label_column_name": "it is called label_column",
}

# Keys that may differ between a run and its resumption: they change where and how fast, not what.
FREE_KEYS = {
    "output_dir",
    "resume_from_checkpoint",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "eval_cache_gb",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "logging_steps",
    "save_total_limit",
    "use_cpu",
    "gradient_checkpointing",
    "tf32",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
}


def default_values() -> dict[str, Any]:
    """Map each key that this project defines or changes to its default.

    A run of an older version, which did not know a key yet, ran as it does with the default.
    """
    return {
        field.name: default_of(field) for kind in _CLASSES for field in dataclasses.fields(kind)
    }


def is_same_value(key: str, before: Any, after: Any) -> bool:
    """Say whether a key means the same in a run and in its resumption.

    A folder is the same however it is written: data/ok, data/ok/, or its absolute path. A run of an
    older version named its test split; where it is chosen now, the images decide (`run.images`).
    """
    if key == "dataset" and isinstance(before, str) and isinstance(after, str):
        return before == after or _resolved(before) == _resolved(after)
    if key == "test_split" and (before, after) == ("validation", None):
        return True
    return before == after


def _resolved(dataset: str) -> Path | str:
    path = Path(dataset).expanduser()
    return path.resolve() if path.exists() else dataset


def without_nulls(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Remove from command-line words the keys whose value is null; return both.

    >>> without_nulls(["--model", "null", "--seed", "1"])
    (["--seed", "1"], ["model"])

    Args:
        overrides: words after the recipe's name.

    Returns:
        The other words in their order, and the names of the keys, with underscores.
    """
    kept, keys, words = [], [], iter(enumerate(overrides))
    for i, word in words:
        key, equals, value = word.partition("=")
        if not equals:
            value = overrides[i + 1] if i + 1 < len(overrides) else ""
        if not word.startswith("--") or value != "null":
            kept.append(word)
            continue
        keys.append(key[2:].replace("-", "_"))
        if not equals:
            next(words)
    return kept, keys


def as_argv(key: str, value: Any) -> list[str]:
    """Write a key and its value from a YAML file as words of a command line.

    None gives no word, so that the default stays; a mapping becomes JSON.

    >>> as_argv("crop_scale", [0.08, 1])
    ["--crop_scale", "0.08", "1"]
    """
    if value is None:
        return []
    if isinstance(value, bool) and key.endswith("_strategy"):
        value = "no" if value is False else "yes"  # YAML reads a bare `no` as false
    if isinstance(value, dict):
        return [f"--{key}={json.dumps(value)}"]
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    return [f"--{key}={value}"]
