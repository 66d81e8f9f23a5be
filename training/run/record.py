"""Describe a run for run.json, and for the line that it prints at its start; nothing is written."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from training.common.arguments import cards_of
from training.common.machine import device_name
from training.config.recipe import Recipe
from training.data.found import count_kinds
from training.data.splits import Splits
from training.engine.compilation import trains_in_tf32
from training.engine.lora import count_parameters, describe_lora
from training.engine.trainer import BaseTrainer
from training.model.network import Network
from training.model.resolution import patch_size
from training.model.weights import weights_sha256

logger = logging.getLogger(__name__)

# Keys of TrainingArguments that the block "training" of run.json repeats.
TRAINING_KEYS = (
    "total_train_batch_size",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "learning_rate",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "seed",
    "data_seed",
)


def describe_step(trainer: BaseTrainer) -> dict[str, Any]:
    """Describe how a step is computed, for the block "training" of run.json.

    The launcher's file can ask for compilation too, so the accelerator is asked, not the recipe.

    Returns:
        The keys attn_implementation, compile (None, or backend and mode), gradient_checkpointing, tf32
        and input (num_workers, prefetch_factor, persistent_workers, pin_memory).
    """
    args, dynamo = trainer.args, trainer.accelerator.state.dynamo_plugin
    backend = dynamo.backend.value.lower()
    return {
        "attn_implementation": trainer.model.config._attn_implementation,
        "compile": None if backend == "no" else {"backend": backend, "mode": dynamo.mode},
        "gradient_checkpointing": args.gradient_checkpointing,
        "tf32": trains_in_tf32(args),
        "input": {
            "num_workers": trainer.num_workers,
            "prefetch_factor": args.dataloader_prefetch_factor,
            "persistent_workers": args.dataloader_persistent_workers,
            "pin_memory": args.dataloader_pin_memory,
        },
    }


def batch_line(facts: dict[str, Any]) -> str:
    """Say how a batch is made up: "batch 64 = 32 x 2 processes x 1 accumulated, scored by 128".

    Args:
        facts: the block "training" of run.json; no batch: every step sees all images.
    """
    if facts["total_train_batch_size"] is None:
        return "all of them in every step"
    return (
        f"batch {facts['total_train_batch_size']} = {facts['per_device_train_batch_size']} x "
        f"{facts['world_size']} processes x {facts['gradient_accumulation_steps']} accumulated, scored by "
        f"{facts['per_device_eval_batch_size']}"
    )


def step_line(facts: dict[str, Any]) -> str:
    """Say in a few words what `describe_step` returned: "sdpa attention, TF32, no workers"."""
    attention = facts["attn_implementation"]  # "eager" too where a network has no attention
    words = [] if attention in (None, "eager") else [f"{attention} attention"]
    if facts["compile"]:
        words.append(f"compiled by {facts['compile']['backend']}")
    words += ["gradient checkpointing"] if facts["gradient_checkpointing"] else []
    words += ["TF32"] if facts["tf32"] else []
    return ", ".join(words + [input_line(facts["input"])])


def input_line(facts: dict[str, Any]) -> str:
    """Say how many processes load images: "3 workers a process, prefetch 4, kept alive".

    Args:
        facts: the block "input" of `describe_step`.
    """
    if not facts["num_workers"]:
        return "no workers"
    count = facts["num_workers"]
    kept = ", kept alive" if facts["persistent_workers"] else ""
    ahead = f", prefetch {facts['prefetch_factor']}" if facts["prefetch_factor"] else ""
    return f"{count} worker{'s' * (count > 1)} a process{ahead}{kept}"


def describe_model(recipe: Recipe, network: Network) -> dict[str, Any]:
    """Describe the network before training and where its weights come from: the block "model" of run.json.

    Returns:
        The keys id (Hub id or last name of the folder; None from scratch), revision (None of a local
        folder), sha256 (of a local folder's weights, else None), license, architecture,
        num_parameters, image_size and patch_size (pixels a side; patch_size is None without patches),
        head, head_init_scale (None of a head that was kept), weight_init (None of a checkpoint) and as_vit
        (None, or what was done to make a ViT of the checkpoint, see `load_as_vit`).
    """
    config = network.model.config
    return {
        "id": recipe.model.model
        if network.revision or recipe.model.model is None
        else Path(recipe.model.model).name,
        "revision": network.revision,
        "sha256": weights_sha256(recipe.model.model) if network.revision is None else None,
        "license": network.license,
        "architecture": type(network.model).__name__,
        "num_parameters": count_parameters(network.model)[1],
        "image_size": network.preprocessing.height,
        "patch_size": patch_size(config),
        "head": network.head,
        "head_init_scale": recipe.model.head_init_scale if network.head == "new" else None,
        "weight_init": recipe.model.weight_init if recipe.model.model is None else None,
        "as_vit": network.as_vit,
    }


def describe_data(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Describe the images that train, select and test: the block "data" of run.json.

    Returns:
        The keys dataset, source ("hub", "local" or "sample"), revision, fingerprint (of the test
        images), train_fingerprint, train_split,
        selection_split (None: a slice of train), test_split, test_cut (None, or how it was cut from
        train, see `Cut`), num_train, num_selection, num_test, selection_fraction (None of a split),
        split_seed, left_out (how many images of each split could not be used), identical_train_test
        (how many test images are training images too), found (num_found, num_left_out and kinds, with
        counts only), unused_splits, train_cache (None, or what the reduced images are), label_names.
    """
    inventory, selection, test = splits.inventory, splits.selection, splits.test
    is_slice = splits.selection_fraction is not None
    left_out = {"train": splits.left_out, "test": test.left_out}
    if not is_slice:
        left_out["selection"] = selection.left_out
    return {
        "dataset": splits.source.dataset,
        "source": splits.source.kind,
        "revision": splits.source.revision,
        "fingerprint": test.fingerprint,
        "train_fingerprint": splits.train_fingerprint,
        "train_split": splits.train_split,
        "selection_split": None if is_slice else selection.name,
        "test_split": test.name,
        "test_cut": dataclasses.asdict(test.cut) if test.cut else None,
        "num_train": len(splits.train),
        "num_selection": len(selection),
        "num_test": len(test),
        "selection_fraction": splits.selection_fraction,
        "split_seed": recipe.data.split_seed,
        "left_out": left_out,
        "identical_train_test": splits.identical_train_test,
        "found": {
            "num_found": inventory.num_found,
            "num_left_out": len(inventory.left_out),
            "kinds": count_kinds(inventory.left_out),
        },
        "unused_splits": inventory.unused,
        "train_cache": splits.train_cache,
        "label_names": splits.label_names,
    }


def warn_of_small_images(splits: Splits, network: Network) -> None:
    """Warn where training images were reduced to less than the network's size."""
    size = min(network.preprocessing.height, network.preprocessing.width)
    if splits.train_cache and splits.train_cache["short_side"] < size:
        logger.warning(
            f"train_short_side {splits.train_cache['short_side']} is below the model's {size} pixels: "
            "every training crop is enlarged"
        )


def describe_training(recipe: Recipe, trainer: BaseTrainer) -> dict[str, Any]:
    """Describe how the network is trained: the block "training" of run.json.

    Returns:
        The keys world_size, device, mixed_precision, optimizer, lr_scheduler_type, those of
        `describe_step`, those of `TRAINING_KEYS`, num_train_epochs (of the whole schedule, also where
        steps were given), tune, lora (None, or see `describe_lora`),
        num_trainable_parameters, optimization (the keys of ExtensionArguments, and
        early_stopping_patience), further (see `describe_further`), loss (name, and q or None) and
        augmentation (see `Augmentation.active_keys`; {} of a linear probe). What the trainer knows
        better is as it says (see `BaseTrainer.facts`): null is what has no part in its way to train.
    """
    args = trainer.args
    return {
        "world_size": trainer.accelerator.num_processes,
        "device": device_name(),
        # args.bf16 stays false when the launcher's file asks for bf16; the accelerator knows.
        "mixed_precision": trainer.accelerator.mixed_precision,
        "optimizer": args.optim.value,
        "lr_scheduler_type": args.lr_scheduler_type.value,
        **describe_step(trainer),
        **{key: getattr(args, key) for key in TRAINING_KEYS},
        "num_train_epochs": args.epochs(trainer.sampler.steps_per_epoch),
        "tune": recipe.method.tune,
        "lora": describe_lora(recipe.method),
        "num_trainable_parameters": count_parameters(trainer.model)[0],
        # 1, 0 or null where it was not asked for
        "optimization": {
            **dataclasses.asdict(recipe.extensions),
            "early_stopping_patience": args.early_stopping_patience,
        },
        "further": describe_further(recipe, trainer.network),
        "loss": {"name": recipe.loss.loss, "q": recipe.loss.generalized_q},
        "augmentation": recipe.augmentation.active_keys(),
        **trainer.facts(),
    }


def describe_further(recipe: Recipe, network: Network) -> list[str]:
    """List in words, for the card, the recipe's additions to plain fine-tuning."""
    said = [*cards_of(recipe.extensions), *cards_of(recipe.training)]
    return said + (cards_of(recipe.model) if network.head == "new" else [])


def describe_selection(trainer: BaseTrainer) -> dict[str, Any]:
    """Describe the weights that are kept by their score on the selection slice; scores them if nobody has.

    Returns:
        The keys metric (what selects), top1 (share from 0 to 1), n (images that were scored for it),
        best_step and best_epoch (where the weights come from; the epoch counts in parts of one, 1.5) and
        cross_validation (None, or how many folds and images: then the slice was learned from too, top1
        is out of fold, and the finished head's scores of the slice are no held-out scores).
    """
    scores, steps = trainer.kept_scores(), trainer.sampler.steps_per_epoch
    return {
        "metric": trainer.chosen_by,
        "top1": scores["eval_top1"],
        "n": len(trainer.eval_dataset),
        "best_step": scores["step"],
        "best_epoch": round(scores["step"] / steps, 3),
        "cross_validation": trainer.cross_validation,
    }


def command_line() -> str:
    """Write how the run was started: "food101 train sample --output_dir x", absolute paths by their last name."""
    arguments = [_without_folder(a) for a in sys.argv[1:]]
    return shlex.join(["food101", "train", *arguments])


def _without_folder(argument: str) -> str:
    """Cut an absolute path to its last name, also behind `--key=`: `/home/me/runs/x` -> `x`."""
    key, equals, value = (
        argument.partition("=") if argument.startswith("--") else ("", "", argument)
    )
    return key + equals + (Path(value).name if value.startswith("/") else value)


def code_sha256() -> str:
    """Hash the sources, recipes and templates that make a run; SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    for package in ("training", "inference", "model_card"):
        for name, content in package_sources(package).items():
            digest.update(name.encode() + content)
    return digest.hexdigest()


def package_folder(package: str) -> Path:
    """Find the folder that a package is imported from, without importing it."""
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


def package_sources(package: str) -> dict[str, bytes]:
    """Read the sources of an installed package: {"training/train.py": its bytes}, sorted by name.

    The import system says where the package is, so that it does not matter where this file is.

    Raises:
        RuntimeError: no source was found; a digest of nothing would look like one of something.
    """
    root = package_folder(package)
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".html") and "__pycache__" not in path.parts
    )
    if not paths:
        raise RuntimeError(f"no sources of {package} in {root}")
    return {f"{package}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}


def trained_line(facts: dict[str, Any], num_parameters: int) -> str:
    """Say how many parameters LoRA trains, for the line that a run starts with; "" without LoRA.

    Args:
        facts: the block "training" of run.json.
    """
    if (lora := facts["lora"]) is None:
        return ""
    return (
        f"; LoRA of rank {lora['rank']} on {', '.join(lora['target_modules'])} trains "
        f"{facts['num_trainable_parameters']:,} of {num_parameters:,} parameters"
    )
