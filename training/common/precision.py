"""TODO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# ---- TF32 ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let float32 matmuls and convolutions be rounded to TF32 inside, or none of them.

    torch itself allows it for convolutions (a ViT's patch embedding is one) and not for matmuls.
    """
    ops = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [op.fp32_precision == "tf32" for op in ops]
    _switch(allowed, allowed)
    try:
        yield
    finally:
        _switch(*before)


def _switch(matmul: bool, convolution: bool) -> None:
    """Set torch's old and new switches alike: where they differ, reading an old one raises."""
    torch.set_float32_matmul_precision("high" if matmul else "highest")
    torch.backends.cudnn.allow_tf32 = convolution
    if not convolution:  # the old switch leaves these to torch.backends.fp32_precision
        for op in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            op.fp32_precision = "ieee"


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Training may allow TF32; the reported number is computed without it, convolutions too."""
    with tf32(False):
        yield
