# SPDX-License-Identifier: Apache-2.0
"""Options of `accelerate launch` for a machine."""

import pytest
import torch

from training.cli import launcher
from training.cli.launcher import machine_options
from training.common.errors import UserError


def test_without_a_gpu_one_process_has_all_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launcher, "usable_cores", lambda: 6)
    options = machine_options()
    assert options[0] == "--cpu" and options[options.index("--num_processes") + 1] == "1"
    assert options[options.index("--mixed_precision") + 1] == "no"
    assert options[options.index("--num_cpu_threads_per_process") + 1] == "6"


@pytest.mark.parametrize(("count", "has_bf16"), [(1, True), (4, True), (2, False)])
def test_each_gpu_has_a_process(monkeypatch, count, has_bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    options = machine_options()
    assert ("--multi_gpu" in options) == (count > 1)
    assert options[options.index("--num_processes") + 1] == str(count)
    precision = options[options.index("--mixed_precision") + 1]
    assert precision == ("bf16" if has_bf16 else "fp16")
    if count > 1:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="do not run it under a launcher"):
            machine_options()
