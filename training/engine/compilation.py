"""How a training step is computed: torch.compile and TF32.

The network is compiled as training calls it, whose batches are all of one shape. Flip,
normalisation and loss stay outside the graph. Evaluation calls the network itself, uncompiled, so
that its last, partial batch never waits for another compilation.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

import torch
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.utils import is_torch_tf32_available

from training.common.errors import UserError

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def trains_in_tf32(args: TrainingArguments) -> bool:
    """Tell whether float32 products are rounded to TF32: wherever the device has it, unless `tf32: false`."""
    return args.tf32 is not False and args.device.type == "cuda" and is_torch_tf32_available()


def check_compilation(backend: str | None, mode: str | None) -> None:
    """Refuse what torch.compile would refuse only after the data are read.

    Raises:
        UserError: torch knows no such backend or mode; None, for torch's default, is accepted.
    """
    backends = [each.value.lower() for each in DynamoBackend if each.value != "NO"]
    if backend is not None and backend not in backends:
        raise UserError(f"torch_compile_backend is {backend}: give one of {', '.join(backends)}")
    if mode is not None and mode not in COMPILE_MODES:
        raise UserError(f"torch_compile_mode is {mode}: give one of {', '.join(COMPILE_MODES)}")


def check_compiler(args: TrainingArguments) -> None:
    """Refuse torch.compile where what it calls is not installed: g++ on a CPU, triton on a GPU.

    Raises:
        UserError: inductor is asked for, and it is not there.
    """
    if not args.torch_compile or args.torch_compile_backend != "inductor":
        return
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if args.device.type == "cpu" and sys.platform != "win32" and shutil.which(compiler) is None:
        raise UserError(
            f"torch_compile needs {compiler}, which is not installed: install it, or train without "
            "torch_compile"
        )
    if args.device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            "torch_compile needs triton, which is not installed: pip install triton, or train without "
            "torch_compile"
        )


@contextlib.contextmanager
def compilation_errors() -> Iterator[None]:
    """Turn an error of torch.compile inside the block into one line; most often a compiler is missing.

    Raises:
        UserError: torch.compile failed.
    """
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"torch_compile failed ({reason}): install what is missing (g++ on a CPU; gcc and triton on "
            "a GPU), or train without torch_compile"
        ) from error
