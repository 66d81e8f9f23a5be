"""TODO."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from training.common.errors import UserError
from training.common.files import read_json


def load_weights(model: PreTrainedModel, checkpoint: str) -> None:
    """Load a checkpoint's weights, every one of them.

    Trainer's own loading reads the file's names as they are, non-strictly. `save_pretrained` of
    transformers 5 writes ViT under its version 4 names, so no encoder weight would match: a
    resumed run would go on from fresh weights, and "the best model" would be the last one.

    Raises:
        UserError: the checkpoint is of another network, or of the heads of a linear probe.
    """
    if not (Path(checkpoint) / "config.json").is_file():
        raise UserError(
            f"checkpoint {checkpoint} holds no whole network (a linear probe's?): resume with the recipe "
            "that it has"
        )
    written_by = read_json(Path(checkpoint) / "config.json").get("architectures")
    if written_by != [type(model).__name__]:  # transformers would draw what it cannot find
        raise UserError(
            f"checkpoint {checkpoint} is of another network, {written_by} and not {type(model).__name__}: "
            "resume with the recipe that it has"
        )
    try:
        saved = type(model).from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
        model.load_state_dict(saved.state_dict(), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {checkpoint} is of another network: {reason}") from error
