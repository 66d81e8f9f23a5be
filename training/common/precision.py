"""How exactly float32 is computed on a GPU: in full, or rounded to TF32 where that is faster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let float32 matmuls and convolutions be rounded to TF32 inside the `with`, or none of them.

    torch itself allows it for convolutions (a ViT's patch embedding is one) and not for matmuls.
    What was allowed before is restored at the end.
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
    """Compute float32 in full inside the `with`: a reported number never depends on TF32."""
    with tf32(False):
        yield
