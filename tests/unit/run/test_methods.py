# SPDX-License-Identifier: Apache-2.0
"""What each value of `tune` builds, and what comes before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from training.engine.arguments import METHODS, MethodArguments
from training.run import methods


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """What was built or run, with its first arguments."""
    seen: list[tuple] = []
    for name in ("build_trainer", "build_after_probe", "build_probe", "probe_first"):
        monkeypatch.setattr(
            methods, name, lambda *args, _name=name, **more: seen.append((_name, args, more))
        )
    return seen


def recipe(tune: str) -> SimpleNamespace:
    parts = {"method": MethodArguments(tune=tune), "data": SimpleNamespace(eval_cache_gb=3.0)}
    return SimpleNamespace(**parts, settings="settings", probe="probe")


@pytest.mark.parametrize(
    ("tune", "builder", "arguments"),
    [
        ("full", "build_trainer", ("settings", 3.0)),
        ("lora", "build_trainer", ("settings", 3.0)),
        ("linear_probe", "build_probe", ("settings", "probe", 3.0)),
        ("probe_then_full", "build_after_probe", ("settings", 3.0)),
        ("probe_then_lora", "build_after_probe", ("settings", 3.0)),
    ],
)
def test_each_method_has_its_builder(calls, tune, builder, arguments):
    methods.build_trainer_of(recipe(tune), "network", "splits")
    assert calls == [(builder, ("network", "splits", *arguments), {})]


@pytest.mark.parametrize("tune", METHODS)
def test_a_first_phase_is_a_probe_of_the_network_without_the_last_phase(calls, tune):
    @contextmanager
    def block(name: str) -> Iterator[None]:
        calls.append(name)
        yield
        calls.append(f"end of {name}")

    method = SimpleNamespace(set_aside=lambda: block("set_aside"))
    checkpoints = {"checkpoint": "c", "probe_checkpoint": "p"}
    run = SimpleNamespace(recipe=recipe(tune), stage=block, **checkpoints)
    trainer = SimpleNamespace(network="network", method=method)
    methods.run_first_phase(run, trainer, "splits")
    more = {"eval_cache_gb": 3.0, "checkpoint": "c", "probe_checkpoint": "p"}
    first = ("probe_first", ("network", "splits", "settings", "probe"), more)
    wanted = ["probe", "set_aside", first, "end of set_aside", "end of probe"]
    assert calls == (wanted if tune.startswith("probe_then_") else [])
