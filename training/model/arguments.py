"""The recipe's keys about the network: which one, and from which weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from training.common.arguments import check_ranges, key
from training.common.errors import UserError
from training.model.names import read_names

WEIGHT_INIT = ("normal", "mimetic")


@dataclass
class ModelArguments:
    """The recipe's keys about which network is trained, and from which weights."""

    model: str | None = key(
        None, "Hub id or folder to start from; null trains a ViT from scratch", usual=True
    )
    model_revision: str | None = key(None, "commit, tag or branch")
    as_vit: bool = key(
        False,
        "make a ViT of a DINOv2, MAE or MSN model, exactly; others are refused (docs/backbones.md)",
    )
    model_config: dict[str, Any] | str | None = key(
        None, "ViTConfig values for training from scratch, as a mapping"
    )
    image_size: int | None = key(
        None,
        "pixels a side; null: the checkpoint's, or 224",
        at_least=1,
        give="a number of pixels",
        usual=True,
    )
    head_init_scale: float = key(
        1.0,
        "a new head's weights times this: 0 as in ViT (arXiv:2010.11929), 0.001 as in BEiT",
        at_least=0,
        at_most=1,
        card="new head's first weights times {}",
    )
    weight_init: str = key(
        "normal",
        "first weights of a ViT from scratch: as transformers draws them, or with attention and "
        "positions as they look after pretraining (mimetic, arXiv:2305.09828)",
        choices=WEIGHT_INIT,
    )
    display_names: str | None = key(
        None, "CSV file of what labels are called, label,<language>,...; null: the table of dishes"
    )

    def __post_init__(self) -> None:
        if isinstance(self.model_config, str):
            self.model_config = json_mapping("model_config", self.model_config)
        if self.model is not None:
            self.model = os.path.expanduser(self.model)
        # Empty ones too: `{}` asks for a network from scratch as much as a mapping with keys does.
        if self.model is not None and self.model_config is not None:
            raise UserError(
                "model and model_config are both set: model_config describes a network from scratch, "
                "give `model: null` with it, or --model_config null to start from the model"
            )
        if self.as_vit and self.model is None:
            of = "model is null:" if self.model_config is None else "model_config describes"
            raise UserError(
                f"as_vit is true, and {of} a network from scratch, which is a ViT already: leave as_vit out "
                "(--as_vit false), or give a model"
            )
        check_ranges(self)
        if self.display_names is not None:  # whether its labels fit is seen when they are known
            read_names(self.display_names)
        if self.model is not None and self.weight_init != "normal":
            raise UserError(
                f"weight_init {self.weight_init} and model {self.model}: it is for a network from scratch; "
                "leave it out (--weight_init null), or give `model: null`"
            )


def json_mapping(key_name: str, text: str) -> dict[str, Any]:
    """Parse a mapping that was given as JSON on the command line.

    Args:
        key_name: the key that the mapping is the value of, for the message.
        text: as '{"hidden_size": 192}'.

    Raises:
        UserError: the text is not JSON, or not a mapping.
    """
    wanted = f"{key_name} is {text!r}: give a mapping, as '{{\"hidden_size\": 192}}'"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(wanted) from error
    if not isinstance(value, dict):
        raise UserError(wanted)
    return value
