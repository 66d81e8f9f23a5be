# SPDX-License-Identifier: Apache-2.0
"""TF32 is allowed and forbidden as asked, and what was there before comes back.

How training and scoring use it is tested in engine/test_compilation.
"""

import pytest
import torch

from training.common.precision import full_float32, tf32


def allowed() -> tuple[bool, bool]:
    """For matmuls and for convolutions."""
    ops = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    return tuple(op.fp32_precision == "tf32" for op in ops)


@pytest.fixture(autouse=True)
def torch_default():
    """Convolutions may, matmuls may not."""
    with tf32(False):
        torch.backends.cudnn.allow_tf32 = True
        yield
        torch.backends.fp32_precision = "none"


def test_both_kinds_follow_the_innermost_wish():
    assert allowed() == (False, True)
    with tf32(True):
        assert allowed() == (True, True)
        with full_float32():
            assert allowed() == (False, False)
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
