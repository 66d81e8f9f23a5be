# SPDX-License-Identifier: Apache-2.0
"""Where a run, or its first phase, can be resumed from."""

import json
from pathlib import Path

import pytest

from training.common.errors import UserError
from training.engine.checkpoints import (
    COMPLETE,
    HEAD,
    LORA_WEIGHTS,
    PROBE,
    PROBE_RESULT,
    complete_checkpoints,
    find_checkpoint,
    find_checkpoints,
    is_begun,
    probe_result,
    refuse_other_method,
)


def checkpoint(folder: Path, step: int, *files: str) -> Path:
    """A complete checkpoint of empty files."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in (COMPLETE, *files):
        (path / name).touch()
    return path


def probed(folder: Path) -> dict[str, float]:
    """A first phase in `folder` that came to its end."""
    (folder / PROBE).mkdir(exist_ok=True, parents=True)
    (folder / PROBE / PROBE_RESULT).write_text(json.dumps({"learning_rate": 0.1}))
    return {"learning_rate": 0.1}


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for step in (9, 100, 20):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-500").mkdir()  # its writing did not come to its end
    found = [path.name for path in complete_checkpoints(tmp_path)]
    assert found == ["checkpoint-9", "checkpoint-20", "checkpoint-100"]
    assert complete_checkpoints(tmp_path / "nowhere") == []


def test_what_is_resumed(tmp_path):
    for step in (9, 100):
        checkpoint(tmp_path, step)
    assert find_checkpoint(tmp_path, None) is None
    assert find_checkpoint(tmp_path, "last") == str(tmp_path / "checkpoint-100")
    first = str(tmp_path / "checkpoint-9")
    assert find_checkpoint(tmp_path / "another run", first) == first
    for name in ("last", str(tmp_path / "checkpoint-10"), str(tmp_path)):
        with pytest.raises(UserError, match=f"resume_from_checkpoint {name}.* complete checkpoint"):
            find_checkpoint(tmp_path / "another run", name)


@pytest.mark.parametrize("tune", ["full", "linear_probe", "lora"])
def test_one_phase_has_one_checkpoint(tmp_path, tune):
    last = checkpoint(tmp_path, 4)  # without config.json, as of LoRA or heads
    assert find_checkpoints(tmp_path, "last", tune) == (str(last), None)
    assert find_checkpoints(tmp_path, None, tune) == (None, None)


@pytest.mark.parametrize(
    ("tune", "file"), [("probe_then_full", "config.json"), ("probe_then_lora", LORA_WEIGHTS)]
)
def test_of_two_phases_the_one_that_was_interrupted_is_resumed(tmp_path, tune, file):
    with pytest.raises(UserError, match="has no complete checkpoint"):
        find_checkpoints(tmp_path, "last", tune)
    early = checkpoint(tmp_path / PROBE, 2)
    checkpoint(tmp_path / PROBE, 4)
    assert find_checkpoints(tmp_path, "last", tune) == (
        None,
        str(tmp_path / PROBE / "checkpoint-4"),
    )
    assert find_checkpoints(tmp_path, str(early), tune) == (None, str(early))
    second = checkpoint(tmp_path, 2, file)
    assert find_checkpoints(tmp_path, "last", tune) == (str(second), None)
    assert find_checkpoints(tmp_path / "elsewhere", str(second), tune) == (str(second), None)
    assert find_checkpoints(tmp_path, None, tune) == (None, None)


@pytest.mark.parametrize("tune", ["probe_then_full", "probe_then_lora"])
def test_a_first_phase_that_came_to_its_end_needs_no_checkpoint(tmp_path, tune):
    probed(tmp_path)
    assert find_checkpoints(tmp_path, "last", tune) == (None, None)


def test_what_would_be_lost(tmp_path):
    assert not is_begun(tmp_path)
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / PROBE).mkdir()
    (tmp_path / PROBE / HEAD).touch()  # the result is written after it
    assert not is_begun(tmp_path)
    for number, make in enumerate(
        (lambda run: checkpoint(run, 1), lambda run: checkpoint(run / PROBE, 1), probed)
    ):
        make(tmp_path / str(number))
        assert is_begun(tmp_path / str(number))


def test_the_result_of_a_probe_is_found_in_either_place(tmp_path):
    assert probe_result(tmp_path) is None
    assert probed(tmp_path) == probe_result(tmp_path)
    (tmp_path / PROBE_RESULT).write_text(json.dumps({"learning_rate": 0.2}))
    assert probe_result(tmp_path) == {"learning_rate": 0.2}  # the run is itself a probe


def test_a_checkpoint_of_the_other_kind_is_refused(tmp_path):
    adapters, whole = checkpoint(tmp_path, 1, LORA_WEIGHTS), checkpoint(tmp_path, 2)
    refuse_other_method(adapters, "lora", adapts=True)
    refuse_other_method(whole, "full", adapts=False)
    refuse_other_method(whole, "probe_then_lora", adapts=False)  # its first phase
    with pytest.raises(UserError, match="checkpoint-1 was written with adapters .* has tune full"):
        refuse_other_method(adapters, "full", adapts=False)
    with pytest.raises(UserError, match="checkpoint-2 was written without adapters .* tune lora"):
        refuse_other_method(whole, "lora", adapts=True)
