# SPDX-License-Identifier: Apache-2.0
"""Several heads on the same features: their scores, gradients and files."""

import pytest
import torch

from tests.unit.toys import tiny_network
from training.common.errors import UserError
from training.probe.heads import copy_head


def test_a_head_for_something_else_is_refused():
    network = tiny_network()
    values = {"weight": torch.zeros(5, 32), "bias": torch.zeros(5)}
    with pytest.raises(UserError, match="for 5 labels and 32 features, the network's for 3 and 32"):
        copy_head(values, network)
