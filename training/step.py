"""How a training step is computed: TF32, torch.compile, and what was in force.

Compiled is the network as training calls it, whose batches are all of one shape. Flip,
normalisation and loss stay outside the graph. Evaluation calls the network itself, uncompiled, so
that its last, partial batch never waits for another compilation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import is_torch_tf32_available

from training.errors import UserError

if TYPE_CHECKING:
    from training.config import FineTuningArguments
    from training.trainer import FoodTrainer

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


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


def trains_in_tf32(args: FineTuningArguments) -> bool:
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


# ---- what was in force ---------------------------------------------------------------------------


def describe_step(trainer: FoodTrainer) -> dict[str, Any]:
    """For run.json; the launcher's file can ask for compilation too, so the accelerator is asked."""
    args, dynamo = trainer.args, trainer.accelerator.state.dynamo_plugin
    backend = dynamo.backend.value.lower()
    return {
        "attn_implementation": trainer.model.config._attn_implementation,
        "compile": None if backend == "no" else {"backend": backend, "mode": dynamo.mode},
        "gradient_checkpointing": args.gradient_checkpointing,
        "tf32": trains_in_tf32(args),
        "input": {
            "num_workers": trainer.num_workers,
            "prefetch_factor": args.dataloader_prefetch_factor,
            "persistent_workers": args.dataloader_persistent_workers,
            "pin_memory": args.dataloader_pin_memory,
        },
    }


def step_line(facts: dict[str, Any]) -> str:
    """`describe_step` in a few words, for the line that a run starts with."""
    attention = facts["attn_implementation"]  # "eager" too where a network has no attention
    words = [] if attention in (None, "eager") else [f"{attention} attention"]
    if facts["compile"]:
        words.append(f"compiled by {facts['compile']['backend']}")
    words += ["gradient checkpointing"] if facts["gradient_checkpointing"] else []
    words += ["TF32"] if facts["tf32"] else []
    return ", ".join(words + [input_line(facts["input"])])


def input_line(facts: dict[str, Any]) -> str:
    if not facts["num_workers"]:
        return "no workers"
    count = facts["num_workers"]
    kept = ", kept alive" if facts["persistent_workers"] else ""
    ahead = f", prefetch {facts['prefetch_factor']}" if facts["prefetch_factor"] else ""
    return f"{count} worker{'s' * (count > 1)} a process{ahead}{kept}"
