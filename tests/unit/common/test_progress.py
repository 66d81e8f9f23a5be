# SPDX-License-Identifier: Apache-2.0
"""When a line is due, and what rate and time it tells."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from training.common import progress
from training.common.progress import Progress, with_progress


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock that a test moves, by `clock.now += seconds`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def test_a_line_is_due_every_ten_seconds(clock):
    pace, due = Progress(100), []
    for second in range(1, 36):
        clock.now += 1
        if pace.is_due(second):
            due.append(second)
    assert due == [11, 22, 33]


def test_a_slow_step_does_not_make_up_for_lines(clock):
    pace = Progress(3)
    clock.now += 100
    assert pace.is_due(1) and not pace.is_due(2)
    clock.now += 10
    assert not pace.is_due(2)
    clock.now += 0.5
    assert pace.is_due(2)


def test_rate_and_time_left_are_averages_since_the_start(clock):
    pace = Progress(100, every_seconds=0)
    for seconds, done, rate, left in ((5, 10, 2.0, 45.0), (15, 80, 4.0, 5.0), (5, 100, 4.0, 0.0)):
        clock.now += seconds
        assert pace.is_due(done)
        assert (pace.rate, pace.seconds_left) == (rate, left)


def lines(caplog, clock, total: int = 12, **keys: float) -> list[str]:
    """What is said of 12 images in batches of 4, five seconds each."""
    images = [{"pixel_values": torch.zeros(3), "labels": 0}] * 12
    with caplog.at_level(logging.INFO, "training"):
        for batch in with_progress(DataLoader(images, 4), "scored", "images", total, **keys):
            assert len(batch["labels"]) == 4
            clock.now += 5
    return caplog.messages


def test_the_line_of_a_loader(caplog, clock):
    assert lines(caplog, clock, every_seconds=9) == ["scored 8 of 12 images, 1 images/s, 5 s left"]


def test_the_line_counts_the_images_of_all_processes(caplog, clock):
    assert lines(caplog, clock, total=120, every_seconds=4) == [
        "scored 40 of 120 images, 8 images/s, 10 s left",
        "scored 80 of 120 images, 8 images/s, 5 s left",
        "scored 120 of 120 images, 8 images/s, 0 s left",
    ]


def test_only_the_main_process_speaks(caplog, clock, monkeypatch):
    monkeypatch.setattr(progress, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    assert lines(caplog, clock, every_seconds=0) == []
