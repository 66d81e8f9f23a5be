"""TODO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_tf32_available

from training.common.errors import UserError

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def trains_in_tf32(args: TrainingArguments) -> bool:
    """Unless the recipe says `tf32: false`, wherever the device has it."""
    return args.tf32 is not False and args.device.type == "cuda" and is_torch_tf32_available()


# ---- torch.compile -------------------------------------------------------------------------------


def check_compilation(backend: str | None, mode: str | None) -> None:
    """Refuse what torch.compile would refuse after the data are read."""
    from accelerate.utils import DynamoBackend

    backends = [each.value.lower() for each in DynamoBackend if each.value != "NO"]
    if backend is not None and backend not in backends:
        raise UserError(f"torch_compile_backend is {backend}: give one of {', '.join(backends)}")
    if mode is not None and mode not in COMPILE_MODES:
        raise UserError(f"torch_compile_mode is {mode}: give one of {', '.join(COMPILE_MODES)}")


@contextlib.contextmanager
def compilation_errors() -> Iterator[None]:
    """What torch.compile could not do, in one line; a missing compiler above all."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"torch_compile failed ({reason}): install what is missing (g++ on a CPU; gcc and triton on "
            "a GPU), or train without torch_compile"
        ) from error
