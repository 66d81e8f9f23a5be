# SPDX-License-Identifier: Apache-2.0
"""What a run says of how its steps were computed."""

import json

import pytest

from training.run.record import describe_step, input_line, step_line


def test_what_was_in_force_is_written_down(tiny_run):
    training = json.loads((tiny_run / "run.json").read_text())["training"]
    assert training["optimizer"] == "adamw_torch_fused"
    assert training["attn_implementation"] == "sdpa"
    assert (training["compile"], training["gradient_checkpointing"]) == (None, False)
    assert training["tf32"] is False
    assert training["input"] == {
        "num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "pin_memory": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"dataloader_num_workers": 0}, "no workers"),
        ({"dataloader_num_workers": 3}, "3 workers a process, prefetch 4, kept alive"),
        (
            {
                "dataloader_num_workers": 1,
                "dataloader_prefetch_factor": 2,
                "dataloader_persistent_workers": False,
            },
            "1 worker a process, prefetch 2",
        ),
    ],
)
def test_the_workers_in_words(trainer_for, workers, expected):
    assert input_line(describe_step(trainer_for(**workers))["input"]) == expected


def test_the_step_in_words(trainer_for):
    facts = describe_step(trainer_for())
    assert step_line(facts) == "sdpa attention, no workers"
    facts |= {"attn_implementation": "eager", "tf32": True, "gradient_checkpointing": True}
    facts |= {"compile": {"backend": "inductor", "mode": "default"}}
    assert step_line(facts) == "compiled by inductor, gradient checkpointing, TF32, no workers"
