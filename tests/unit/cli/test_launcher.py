# SPDX-License-Identifier: Apache-2.0
"""Options of `accelerate launch` for a machine, and the exit code of what was launched."""

import os
import subprocess

import pytest
import torch
from accelerate.commands import launch as accelerate_launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from training.cli import launcher
from training.cli.launcher import launch, machine_options
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
    monkeypatch.setenv("WORLD_SIZE", "2")
    if count == 1:
        assert machine_options() == options
    else:
        with pytest.raises(UserError, match="do not run it under a launcher"):
            machine_options()


@pytest.fixture
def launched(monkeypatch) -> list:
    """What accelerate was asked to launch; on a machine without GPU."""
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(accelerate_launch, "launch_command", seen.append)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    return seen


def test_training_is_launched_and_the_command_is_shown(launched, capsys):
    assert launch(["sample", "--dataset", "two words"]) == 0
    (args,) = launched
    assert args.module and args.training_script == "training.train"
    assert args.training_script_args == ["sample", "--dataset", "two words"]
    assert (args.cpu, args.num_processes) == (True, 1)
    said = capsys.readouterr().err
    assert said.startswith("accelerate launch --cpu ")
    assert said.endswith(" -m training.train sample --dataset 'two words'\n")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"  # as the person set it


def test_idle_threads_wait_on_the_cpu(launched, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    launch(["sample"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def failed(rank: int, code: int) -> ProcessFailure:
    return ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (subprocess.CalledProcessError(2, ["python"]), 2),
        (ChildFailedError("training.train", {1: failed(1, 3)}), 3),
    ],
)
def test_the_exit_code_is_that_of_the_process_that_failed(launched, monkeypatch, error, code):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(accelerate_launch, "launch_command", fail)
    assert launch(["sample"]) == code
