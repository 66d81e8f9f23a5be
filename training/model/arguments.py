"""TODO."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from training.common.errors import UserError
from training.model.initialization import WEIGHT_INIT


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
            self.model_config = json_mapping("model_config", self.model_config)
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


def json_mapping(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{key} is {text!r}: give a mapping, as '{{\"hidden_size\": 192}}'"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{key} is {text!r}: give a mapping, as '{{\"hidden_size\": 192}}'")
    return value
