"""How a training step is computed: torch.compile and TF32.

The network is compiled as training calls it, whose batches are all of one shape. Flip,
normalisation and loss stay outside the graph. Evaluation calls the network itself, uncompiled, so
that its last, partial batch never waits for another compilation.
"""

from __future__ import annotations

import contextlib
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
