"""List keys that a recipe may not have, names that others have for a key, keys that a resumption may change.

Nothing heavy is imported: the help of `food101 train` and `food101 compare` read these tables.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from training.common.arguments import default_of
from training.data.arguments import DataArguments
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    RangedKeys,
    TrainerKeys,
)
from training.evaluation.arguments import TrustArguments
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
    TrustArguments,
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
    "train_sampling_strategy": "the order is always drawn anew for each epoch, from data_seed",
    "length_column_name": "the order is always drawn anew for each epoch, from data_seed",
    "disable_tqdm": "there are no progress bars to disable: progress is logged in lines",
    "eval_do_concat_batches": "the selection slice is always scored in full",
    "batch_eval_metrics": "the selection slice is always scored in full",
    "local_rank": "the launcher gives it to each process",
    "parallelism_config": "images are shared out over the processes, and nothing else",
    "use_liger_kernel": "it has no kernel for an image classifier",
    "liger_kernel_config": "it has no kernel for an image classifier",
    "use_cache": "it is of language models",
    "include_num_input_tokens_seen": "it is of language models",
    "average_tokens_across_devices": "it is of language models",
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

# What other programs call a key: timm, torchvision's references, YOLO, Keras, Lightning, and the
# Trainer example. None of them is taken for the key, whose unit or meaning may differ.
CALLED = {
    "num_train_epochs": "epochs num_epochs n_epochs max_epochs nb_epochs",
    "learning_rate": "lr base_lr lr0 blr init_lr",
    "total_train_batch_size": "batch_size batch b bs train_batch_size global_batch_size",
    "per_device_eval_batch_size": "eval_batch_size val_batch_size validation_batch_size test_batch_size",
    "output_dir": "output out out_dir output_path save_dir log_dir run_dir work_dir",
    "dataset": "data data_dir data_path dataset_path data_root train_dir train_data_dir validation_dir",
    "dataset_revision": "dataset_version",
    "dataloader_num_workers": "workers num_workers j n_workers",
    "model": "arch backbone model_name base_model checkpoint_path initial_checkpoint weights pretrained",
    "model_config": "model_kwargs config_name config_overrides",
    "image_size": "img_size imgsz input_size resolution crop_size train_crop_size",
    "selection_fraction": "validation_split val_fraction val_size valid_pct",
    "train_split": "split train_split_name",
    "test_split": "val_split eval_split valid_split",
    "resume_from_checkpoint": "resume resume_from ckpt_path continue_from",
    "weight_decay": "wd decay",
    "label_smoothing_factor": "label_smoothing smoothing",
    "lr_scheduler_type": "sched scheduler lr_scheduler lr_schedule",
    "optim": "opt optimizer",
    "max_grad_norm": "clip_grad clip_grad_norm grad_clip gradient_clip_val clipnorm max_norm",
    "early_stopping_patience": "patience early_stopping early_stop",
    "crop_scale": "scale",
    "horizontal_flip": "hflip fliplr",
    "auto_augment": "aa autoaugment augment",
    "randaugment_magnitude": "ra_magnitude",
    "color_jitter": "jitter colorjitter",
    "random_erasing": "reprob random_erase erasing",
    "mixup": "mixup_alpha",
    "cutmix": "cutmix_alpha",
    "mix_probability": "mixup_prob",
    "mix_switch_probability": "mixup_switch_prob",
    "mix_off_epoch": "mixup_off_epoch close_mosaic",
    "drop_path": "drop_path_rate stochastic_depth_prob",
    "ema_decay": "model_ema_decay ema model_ema",
    "gradient_checkpointing": "grad_checkpointing checkpointing",
    "torch_compile": "compile torchcompile",
    "report_to": "logger tracker log_wandb wandb",
    "logging_steps": "log_interval log_every_n_steps print_freq",
    "save_total_limit": "checkpoint_hist",
    "use_cpu": "cpu",
    "tune": "freeze freeze_backbone method",
    "lora_rank": "lora_r rank",
    "run_name": "experiment exp_name name",
    "image_column": "image_key input_key",
    "label_column": "target_key label_key",
    "seed": "random_seed manual_seed random_state",
}

OTHER_NAMES = {
    name: f"it is called {key}" for key, names in CALLED.items() for name in names.split()
}

OTHER_NAMES |= {
    "checkpoint": "weights to start from are model, a run to go on with is resume_from_checkpoint",
    "ckpt": "weights to start from are model, a run to go on with is resume_from_checkpoint",
    "warmup_epochs": "it is called warmup_steps, in steps, or below 1 as a share of all steps",
    "warmup": "it is called warmup_steps, in steps, or below 1 as a share of all steps",
    "lr_warmup_epochs": "it is called warmup_steps, in steps, or below 1 as a share of all steps",
    "save_period": "it is called save_steps, in steps; save_strategy epoch, the default, needs none",
    **dict.fromkeys(("amp", "half", "precision", "mixed_precision", "dtype"), _PRECISION),
    **dict.fromkeys(
        ("accumulate_grad_batches", "grad_accum_steps", "accum_steps", "accum_iter"), _DERIVED
    ),
    **dict.fromkeys(
        ("device", "gpus", "gpu", "num_gpus", "devices", "nproc_per_node", "world_size"),
        "food101 train uses all GPUs that it sees: choose with CUDA_VISIBLE_DEVICES, or use_cpu",
    ),
    **dict.fromkeys(
        ("num_classes", "nb_classes", "num_labels", "nc", "classes"),
        "labels come from the data set; see label_column",
    ),
    **dict.fromkeys(
        ("max_train_samples", "max_eval_samples", "limit"),
        "there is none: give a smaller data set, or fewer max_steps",
    ),
    **dict.fromkeys(("cache_dir", "model_cache_dir"), "set HF_HOME in the environment"),
    "token": "tokens come from `hf auth login` or HF_TOKEN, never from a recipe",
    "trust_remote_code": "code from the Hub is never run in training",
    "ignore_mismatched_sizes": "a head of other labels is replaced by itself",
    "image_processor_name": "the image processor comes from model",
    "config": "the recipe is the first word: food101 train RECIPE",
    "recipe": "the recipe is the first word: food101 train RECIPE",
    "project_name": "it is called project",
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
    "dataloader_pin_memory",
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
    kinds = (*_CLASSES, RangedKeys)  # of the last a record has those that its recipe named
    return {field.name: default_of(field) for kind in kinds for field in dataclasses.fields(kind)}


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
