# SPDX-License-Identifier: Apache-2.0
"""Where a run, or its first phase, can be resumed from."""

from training.engine.checkpoints import complete_checkpoints


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (9, 100, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "complete").touch()
    (tmp_path / "checkpoint-500").mkdir()
    assert [path.name for path in complete_checkpoints(tmp_path)] == [
        "checkpoint-9",
        "checkpoint-20",
        "checkpoint-100",
    ]
