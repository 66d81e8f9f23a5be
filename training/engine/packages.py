"""Refuse at once what would fail after the data are read: a package that is missing, a schedule that cannot be made."""

from __future__ import annotations

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import integration_utils

from training.common.errors import UserError

# Trackers whose package has another name than they have.
_PACKAGES = {
    "azure_ml": "azureml-core",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
    "tensorboard": "tensorboardX",
}
_ASKED = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}


def check_trackers(names: list[str]) -> None:
    """Refuse a tracker that transformers does not know, or whose package is not installed.

    Args:
        names: `report_to`; [] for no tracker.

    Raises:
        UserError: there is such a tracker.
    """
    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in names:
        if name not in known:
            raise UserError(f"report_to is {name!r}: give none, or some of {', '.join(known)}")
        asked = f"is_{_ASKED.get(name, name)}_available"
        if not getattr(integration_utils, asked, lambda: True)():
            raise UserError(
                f"report_to {name} needs a package that is not installed: pip install "
                f"{_PACKAGES.get(name, name)}, or train with --report_to none"
            )


def check_optimizer(args: TrainingArguments) -> None:
    """Refuse an optimizer whose package is not installed, or that other keys do not fit.

    Raises:
        UserError: transformers cannot make it.
    """
    for pair in filter(None, (args.optim_args or "").replace(" ", "").split(",")):
        if pair.count("=") != 1:
            raise UserError(f"optim_args is {args.optim_args!r}: give name=value,name=value")
    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except (ImportError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        if "model" in reason and "pass" in reason:  # asked for once the package is there
            return
        raise UserError(
            f"optim {args.optim.value}: {reason.rstrip('.')}; or leave optim out"
        ) from error


def check_schedule(args: TrainingArguments) -> None:
    """Refuse keywords that the learning-rate schedule does not have, or the lack of one that it needs.

    Raises:
        UserError: transformers cannot make it.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    given = dict(args.lr_scheduler_kwargs or {})
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 10, 100, scheduler_specific_kwargs=given)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"lr_scheduler_type {args.lr_scheduler_type.value} with lr_scheduler_kwargs "
            f"{given or None}: {' '.join(str(error).split())}; give its keywords as a mapping, or another "
            "lr_scheduler_type"
        ) from error
