# SPDX-License-Identifier: Apache-2.0
"""selection.npz: written whole, read back, without what is reported on."""

import numpy as np
import pytest

from training.evaluation.trust.held_out import HeldOut


@pytest.fixture
def held_out() -> HeldOut:
    content = np.array([f"{i:064x}" for i in range(4)])
    logits = np.arange(12, dtype=np.float32).reshape(4, 3)
    return HeldOut(logits, np.array([0, 1, 2, 0]), content, "selection")


def test_it_is_read_as_it_was_written(held_out, tmp_path):
    path = tmp_path / "selection.npz"
    held_out.save(path)
    back = HeldOut.load(path)
    for name in ("logits", "labels", "content"):
        assert np.array_equal(getattr(back, name), getattr(held_out, name))
    assert back.source == "selection" and back.logits.dtype == np.float32 and len(back) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["selection.npz"]


def test_images_that_are_reported_on_are_left_out(held_out):
    kept = held_out.without({held_out.content[1], "f" * 64})
    assert kept.labels.tolist() == [0, 2, 0] and kept.logits[1].tolist() == [6, 7, 8]
    assert not set(kept.content) & {held_out.content[1]}


def test_logits_are_divided(held_out):
    assert held_out.divided(2.0).logits[3].tolist() == [4.5, 5.0, 5.5]
