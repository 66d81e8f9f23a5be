# SPDX-License-Identifier: Apache-2.0
"""A launcher that disagrees with torch."""

import pytest
from transformers import TrainingArguments

from training.common.errors import UserError
from training.engine.training_arguments import FineTuningArguments, check_world_size

# ---- the world size ----------------------------------------------------------------------------


def test_the_world_size_guard():
    check_world_size(1, 1, 0)
    check_world_size(4, 4, 1)
    with pytest.raises(UserError, match="started 2 processes but torch sees a world of 1.*USE_CPU"):
        check_world_size(2, 1, 0)
    with pytest.raises(UserError, match="one process sees 4 GPUs"):
        check_world_size(1, 1, 4)


def test_a_launcher_that_torch_does_not_see_is_refused(monkeypatch):
    """A multi-GPU configuration on a machine without GPUs trains twice into one folder."""
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(TrainingArguments, "world_size", 1)
    monkeypatch.setattr(TrainingArguments, "n_gpu", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 processes"):
        FineTuningArguments(output_dir="unused")
