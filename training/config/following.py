"""Let keys of a recipe's file follow what the command line says, where the file spoke of something else."""

from __future__ import annotations

import math
import os
from typing import Any

from training.config.checks import METHOD_KEYS
from training.engine.arguments import MethodArguments, TrainerKeys


def follow(file: dict[str, Any], line: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Change the values of a file where a key of the command line leaves them without their meaning.

    A network from scratch, a revision and a method's keys belong to the file's own `model` and
    `tune`; `mix_off_epoch` is an epoch of the file's own number of epochs; its batch of one device
    is the most that fits. What the command line itself says is never changed, only refused where it
    does not fit.

    Args:
        file: key -> value of the file; None where it is null.
        line: the same of the command line.

    Returns:
        (the values of the file that are left, sentences about what was changed).
    """
    file, notes = dict(file), []
    for key, useless in (("model", _of_model(line)), ("tune", _of_tune(line))):
        dropped = [each for each in useless if file.get(each) is not None and each not in line]
        if dropped:
            notes.append(f"--{key} {line[key]} leaves out {', '.join(dropped)}")
        file = {each: value for each, value in file.items() if each not in dropped}
    device = _smaller_batch(file, line)
    if device is not None:
        notes.append(
            f"--total_train_batch_size {line['total_train_batch_size']} gives per_device_train_batch_size "
            f"{device}: at most the {file['per_device_train_batch_size']} of the recipe"
        )
        file["per_device_train_batch_size"] = device
    scaled = _scaled_end(file, line)
    if scaled is not None:
        of = _epochs(file)
        until = f"mix_off_epoch {scaled}" if scaled else "mix_off_epoch 0, mixing to the end"
        notes.append(
            f"--num_train_epochs {line['num_train_epochs']:g} gives {until}: the same share as "
            f"{file['mix_off_epoch']} of {of:g} epochs"
        )
        file["mix_off_epoch"] = scaled
    return file, notes


def _of_model(line: dict[str, Any]) -> tuple[str, ...]:
    if "model" not in line:
        return ()
    if line["model"] is None:  # what the file says of a network from scratch is wanted now
        return ("model_revision", "as_vit")
    return ("model_revision", "model_config", "weight_init")


def _of_tune(line: dict[str, Any]) -> list[str]:
    if "tune" not in line:
        return []
    tune = line["tune"] or MethodArguments.tune
    return [key for key, users in METHOD_KEYS.items() if tune not in users]


def _scaled_end(file: dict[str, Any], line: dict[str, Any]) -> int | None:
    """Return the epoch at the same share of the command line's epochs; None where nothing follows."""
    off, epochs, of = file.get("mix_off_epoch"), line.get("num_train_epochs"), _epochs(file)
    if not off or not epochs or epochs <= 0 or "mix_off_epoch" in line or off >= of:
        return None
    # Before the last epoch, if there is one before it.
    return min(round(off * epochs / of), math.ceil(epochs) - 1) if epochs != of else None


def _smaller_batch(file: dict[str, Any], line: dict[str, Any]) -> int | None:
    """Return the largest batch of one device that divides the command line's; None where it may stay.

    An even one where there is one, as mixing needs it. None too where it would be far smaller.
    """
    total, most = line.get("total_train_batch_size"), file.get("per_device_train_batch_size")
    if "per_device_train_batch_size" in line or not total or not most or min(total, most) < 1:
        return None
    share, rest = divmod(total, int(os.environ.get("WORLD_SIZE", "1")))
    if rest or share <= most or share % most == 0:
        return None
    fits = [each for each in range(1, most + 1) if share % each == 0 and each % 2 <= share % 2]
    return max(fits) if max(fits) * 4 > most else None


def _epochs(file: dict[str, Any]) -> float:
    said = file.get("num_train_epochs")
    return TrainerKeys.num_train_epochs if said is None else said  # 0 epochs are a number, too
