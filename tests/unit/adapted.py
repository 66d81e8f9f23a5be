# SPDX-License-Identifier: Apache-2.0
"""A toy network with LoRA's adapters, and what to ask it; for the tests of LoRA."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.unit.toys import tiny_network, tiny_settings
from training.engine.lora import LoRA, add_adapters

LORA = {"tune": "lora", "lora_rank": 4, "lora_alpha": 12.0, "learning_rate": 0.02}


def adapted(tmp_path: Path, network: Any = None, **values: object) -> tuple[nn.Module, LoRA]:
    network = network or tiny_network()
    return network.model, add_adapters(network, tiny_settings(tmp_path, **{**LORA, **values}))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def trained_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def pixels(n: int = 6, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(7))


def shake(model: nn.Module) -> None:
    """Other values in everything that is trained."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
