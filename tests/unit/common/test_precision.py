# SPDX-License-Identifier: Apache-2.0
"""TF32 is allowed and forbidden as asked, and what was there before comes back."""

import pytest
import torch

from training.common.precision import full_float32, tf32


def allowed() -> tuple[bool, bool]:
    """For matmuls and for convolutions; torch's old switches raise where they contradict the new ones."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    new = [op.fp32_precision == "tf32" for op in (cuda.matmul, cudnn.conv, cudnn.rnn)]
    old = [torch.get_float32_matmul_precision() != "highest", cudnn.allow_tf32]
    assert [cuda.matmul.allow_tf32, *old] == [new[0], new[0], new[1]] and new[1] == new[2]
    return new[0], new[1]


@pytest.fixture(autouse=True)
def torch_default():
    """Convolutions may, matmuls may not."""
    with tf32(False):
        torch.backends.cudnn.allow_tf32 = True
        yield
        torch.backends.fp32_precision = "none"


@pytest.mark.parametrize("general", [None, "tf32", "ieee"])
def test_both_kinds_follow_the_innermost_wish(general):
    """Transformers sets `torch.backends.fp32_precision`, which torch's own switches half ignore."""
    assert allowed() == (False, True)  # torch's own default
    if general is not None:
        torch.backends.fp32_precision = general
    with tf32(True):
        assert allowed() == (True, True)
        with full_float32():
            assert allowed() == (False, False)
            torch.nn.Conv2d(3, 2, 2)(torch.zeros(1, 3, 4, 4)).sum().backward()
            with tf32(True):
                assert allowed() == (True, True)
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    assert allowed() == (False, True)


@pytest.mark.parametrize("wish", [lambda: tf32(True), lambda: tf32(False), full_float32])
def test_an_error_gives_it_back(wish):
    with pytest.raises(KeyError), wish():
        raise KeyError
    assert allowed() == (False, True)


def test_it_can_decorate_a_function():
    @full_float32()
    def look() -> tuple[bool, bool]:
        return allowed()

    with tf32(True):
        assert look() == (False, False) and look() == (False, False)
