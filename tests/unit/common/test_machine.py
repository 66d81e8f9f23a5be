# SPDX-License-Identifier: Apache-2.0
"""Cores, processes, versions and the time."""

import contextlib
import os
import re
from importlib.metadata import version

import pytest
import torch

from training import __version__
from training.common import machine
from training.common.machine import device_name, local_main_first, num_decoders, usable_cores


def test_cores_of_a_container(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert usable_cores() == 3


@pytest.mark.parametrize(("count", "cores"), [(8, 8), (None, 1)])
def test_cores_where_the_system_has_no_affinity(monkeypatch, count, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == cores


@pytest.mark.parametrize(("images", "workers"), [(0, 0), (255, 0), (256, 1), (600, 2), (10**6, 4)])
def test_decoders_are_worth_their_start(monkeypatch, images, workers):
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    assert num_decoders(images) == workers


class State:
    """What accelerate says of the process; `log` fills with what it was asked to do."""

    def __init__(self, device: str) -> None:
        self.device, self.log = torch.device(device), []

    @contextlib.contextmanager
    def local_main_process_first(self):
        self.log.append("before")
        try:
            yield
        finally:
            self.log.append("after")


def test_the_device_by_name(monkeypatch):
    for device, name in (("cpu", "cpu"), ("mps", "mps"), ("cuda:1", "GPU of cuda:1")):
        monkeypatch.setattr(machine, "PartialState", lambda device=device: State(device))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
        assert device_name() == name


def test_the_others_are_let_go_after_an_error(monkeypatch):
    """They would wait for ever."""
    state = State("cpu")
    monkeypatch.setattr(machine, "PartialState", lambda: state)
    with pytest.raises(KeyError), local_main_first():
        state.log.append("inside")
        raise KeyError
    assert state.log == ["before", "inside", "after"]


def test_versions_are_those_that_run():
    found = machine.versions()
    assert found["vit-food101"] == __version__ and found["torch"] == version("torch")
    assert set(found) == {"vit-food101", "python", *machine.LIBRARIES}
    assert all(re.match(r"\d+\.\d+", each) for each in found.values())


def test_the_time_is_utc(monkeypatch):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", machine.now())

    class Clock(machine.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2025, 1, 31, 23, 30, tzinfo=machine.timezone.utc).astimezone(tz)

    monkeypatch.setattr(machine, "datetime", Clock)
    assert machine.now() == "2025-01-31T23:30:00Z"
