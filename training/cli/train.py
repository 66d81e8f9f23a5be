"""The verb `train`, and its help: what every key of a recipe means, its default and its range."""

from __future__ import annotations

import dataclasses
import re
from textwrap import fill
from typing import Any


def train(argv: list[str]) -> int:
    """Run a recipe under `accelerate launch`, or print the help.

    Args:
        argv: [RECIPE, --key, value, ...].

    Returns:
        The exit code of the launched processes; 0 after a help that was asked for; 2 without a recipe.

    Raises:
        UserError: there is no such recipe.
    """
    if "--help_all" in argv:
        print(help_of_train(every_key=True))
        return 0
    if not argv or {"-h", "--help"} & set(argv):
        print(help_of_train())
        return 0 if argv else 2
    from training.common.signals import exit_on_interrupt
    from training.config.packaged import find_recipe

    find_recipe(argv[0])  # before seconds of imports
    with exit_on_interrupt():
        from training.cli.launcher import launch

        return launch(argv)


def help_of_train(every_key: bool = False) -> str:
    """Write the help: usage, recipes, and a line for each key with its meaning, default and range.

    Args:
        every_key: list every key, not only the usual ones; it imports transformers, which takes seconds.
    """
    from training.config.packaged import packaged_recipes

    rooms = [_room(title, kinds, every_key) for title, kinds in _classes().items()]
    rest = (
        _keys_of_transformers()
        if every_key
        else "\n--help_all lists every key: more of these, and every other field of transformers'\n"
        "TrainingArguments, but those for precision (accelerate_config.yaml) and for the Hub\n"
        "(`food101 push`)."
    )
    return (
        "usage: food101 train RECIPE [--key value ...]\n\n"
        "Runs `accelerate launch` with what fits this machine: all GPUs in bf16, or the CPU.\n"
        + fill(f"RECIPE is a YAML file or one of: {', '.join(packaged_recipes())}", 100)
        + "\n"
        "Keys are given in the recipe or on the command line; in brackets: default; range.\n\n"
        + "\n".join([*rooms, rest])
    )


def _classes() -> dict[str, tuple[Any, ...]]:
    """Map titles to classes of arguments; their modules import neither torch nor transformers."""
    from training.data.arguments import DataArguments
    from training.engine.arguments import (
        ExtensionArguments,
        LossArguments,
        MethodArguments,
        RangedKeys,
        TrainerKeys,
    )
    from training.evaluation.arguments import TrustArguments
    from training.input.arguments import Augmentation
    from training.model.arguments import ModelArguments
    from training.probe.arguments import ProbeArguments

    return {
        "data: which images": (DataArguments,),
        "model: which network, from which weights": (ModelArguments,),
        "input: what is done to training images": (Augmentation,),
        "engine: how it learns": (
            TrainerKeys,
            LossArguments,
            ExtensionArguments,
            RangedKeys,
        ),
        "engine, probe: which weights are trained": (MethodArguments, ProbeArguments),
        "evaluation: how sure the model may say that it is": (TrustArguments,),
    }


def _room(title: str, kinds: tuple[Any, ...], every_key: bool) -> str:
    from training.common.arguments import default_of
    from training.config.keys import TAKEN_AWAY

    lines = [title]
    for kind in kinds:
        for field in dataclasses.fields(kind):
            key = field.metadata["key"]
            if key.usual or (every_key and field.name not in TAKEN_AWAY):
                # On one screen: what stands in brackets is for who reads everything.
                text = key.help if every_key else re.sub(r" \([^)]*\)", "", key.help)
                lines.append(_line(field.name, text, default_of(field), key.words()))
    return "\n".join(lines)


def _line(name: str, text: str, default: Any, words: str) -> str:
    facts = "; ".join(part for part in (_shown(default), words) if part)
    return f"  --{name:27} {text}" + (f" [{facts}]" if facts else "")


def _shown(default: Any) -> str:
    """Write a default as a recipe does."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (list, tuple)):
        return " ".join(map(_shown, default))
    return (
        "null"
        if default is None
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def _keys_of_transformers() -> str:
    from training.common.arguments import default_of
    from training.config.recipe import known_keys
    from training.engine.training_arguments import FineTuningArguments

    lines = ["of transformers' TrainingArguments, as they are there"]
    for field in dataclasses.fields(FineTuningArguments):
        if field.name in known_keys() and "key" not in field.metadata:
            text = " ".join(str(field.metadata.get("help", "")).split()).split(". ")[0]
            lines.append(_line(field.name, text, default_of(field), ""))
    return "\n".join(lines)
