# SPDX-License-Identifier: Apache-2.0
"""What each value of `tune` builds, and what comes before it."""

from types import SimpleNamespace

import pytest

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
    parts = {"method": SimpleNamespace(tune=tune), "data": SimpleNamespace(eval_cache_gb=3.0)}
    return SimpleNamespace(**parts, settings="settings", probe="probe")


@pytest.mark.parametrize(
    ("tune", "builder", "arguments"),
    [
        ("full", "build_trainer", ("settings", 3.0)),
        ("lora", "build_trainer", ("settings", 3.0)),
        ("linear_probe", "build_probe", ("settings", "probe", 3.0)),
        ("probe_then_full", "build_after_probe", ("settings", 3.0)),
    ],
)
def test_each_method_has_its_builder(calls, tune, builder, arguments):
    methods.build_trainer_of(recipe(tune), "network", "splits")
    assert calls == [(builder, ("network", "splits", *arguments), {})]


def test_only_one_method_has_a_first_phase(calls):
    stages = []

    class Stage:
        def __init__(self, name: str) -> None:
            stages.append(name)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    for tune in ("full", "lora", "linear_probe", "probe_then_full"):
        checkpoints = {"checkpoint": "c", "probe_checkpoint": "p"}
        run = SimpleNamespace(recipe=recipe(tune), stage=Stage, **checkpoints)
        methods.run_first_phase(run, "network", "splits")
    assert stages == ["probe"]
    more = {"eval_cache_gb": 3.0, "checkpoint": "c", "probe_checkpoint": "p"}
    assert calls == [("probe_first", ("network", "splits", "settings", "probe"), more)]
