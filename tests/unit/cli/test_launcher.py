# SPDX-License-Identifier: Apache-2.0
"""Options of `accelerate launch` for a machine; the exit code of what was launched, and its end by a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands import launch as accelerate_launch
from torch.distributed.elastic.multiprocessing.api import SignalException
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


def test_a_mac_trains_on_its_gpu_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    options = machine_options()
    assert "--cpu" not in options and options[options.index("--mixed_precision") + 1] == "no"


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


def test_threads_of_a_process_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for set_by_hand, threads in (("", "1"), ("3", "3")):
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_hand)
        options = machine_options()
        assert options[options.index("--num_cpu_threads_per_process") + 1] == threads


@pytest.fixture
def became(monkeypatch) -> list:
    """What the process became: (program, words, environment); on a machine without GPU."""
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "execvpe", lambda *what: seen.append(what))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    return seen


def test_one_training_takes_the_place_of_this_process(became, capsys):
    launch(["sample", "--dataset", "two words"])
    ((program, words, environment),) = became
    assert program == sys.executable
    assert words == [program, "-m", "training.train", "sample", "--dataset", "two words"]
    assert environment["ACCELERATE_USE_CPU"] == "True"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    said = capsys.readouterr().err
    assert said.startswith("accelerate launch --cpu ")
    assert said.endswith(" -m training.train sample --dataset 'two words'\n")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"  # as the person set it


def test_idle_threads_wait_on_the_cpu(became, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    launch(["sample"])
    assert became[0][2]["OMP_WAIT_POLICY"] == "PASSIVE"


# ---- several processes ---------------------------------------------------------------------------

SEVERAL = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
SEVERAL += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]


@pytest.fixture
def several(monkeypatch) -> SimpleNamespace:
    """What accelerate was asked to launch, and the error that it ends with."""
    seen = SimpleNamespace(args=None, error=None)

    def launch_command(args: object) -> None:
        seen.args = args
        if seen.error is not None:
            raise seen.error

    monkeypatch.setattr(launcher, "machine_options", lambda: SEVERAL)
    monkeypatch.setattr(accelerate_launch, "launch_command", launch_command)
    return seen


def test_several_processes_are_launched(several):
    assert launch(["sample"]) == 0
    assert several.args.module and several.args.training_script == "training.train"
    assert several.args.training_script_args == ["sample"]
    assert (several.args.multi_gpu, several.args.num_processes) == (True, 2)


def failed(rank: int, code: int) -> ProcessFailure:
    return ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChildFailedError("training.train", {1: failed(1, 3)}), 3),
        (ChildFailedError("training.train", {1: failed(1, -9)}), 137),
        (SignalException("told", signal.SIGTERM), 143),
        (SignalException("told", signal.SIGINT), 130),
    ],
)
def test_the_exit_code_is_that_of_the_process_that_failed(several, error, code):
    several.error = error
    assert launch(["sample"]) == code


# ---- a signal ------------------------------------------------------------------------------------

STUB = """
import os, time
from training.common.signals import exit_on_interrupt
with exit_on_interrupt():
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from training.cli import launcher
launcher.TRAINING = "stub"
if sys.argv[1:]:
    launcher.machine_options = lambda: sys.argv[1:]
sys.exit(launcher.launch(["recipe"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "number", "to_all"),
    [
        ([], signal.SIGTERM, False),
        ([], signal.SIGINT, True),
        ([*SEVERAL, "--main_process_port", "0"], signal.SIGTERM, False),
        ([*SEVERAL, "--main_process_port", "0"], signal.SIGINT, True),
    ],
    ids=["one-kill", "one-ctrl-c", "several-kill", "several-ctrl-c"],
)
def test_a_signal_ends_all_processes(tmp_path, words, number, to_all):
    """With a stub in the place of training; Ctrl-C in a terminal reaches every process of the group."""
    (tmp_path / "stub.py").write_text(STUB)
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "ACCELERATE_USE_CPU": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        started = [int(process.stdout.readline()) for _ in range(2 if words else 1)]
        assert words or started == [process.pid]  # no parent that could be killed alone
        (os.killpg if to_all else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 128 + number, said
    assert said.count("interrupted: ") == 1 and "Traceback" not in said
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
