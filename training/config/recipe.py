"""Parse a recipe: YAML gives defaults, the command line overrides, everything is typed and strict.

A recipe is a packaged name (`training/recipes/NAME.yaml`) or a path. The file's values and the
command line's go through one conversion, by the type of the key, so `2e-4` is a number in either place.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from accelerate import PartialState

from training.common.errors import UserError
from training.config.checks import check_method, check_mixing
from training.config.following import follow
from training.config.keys import OTHER_NAMES, REMOVED, TAKEN_AWAY
from training.config.packaged import packaged_recipes
from training.config.recipe_file import read_recipe
from training.config.values import convert, kinds_of
from training.config.words import read_words, refuse_stray
from training.data.arguments import DataArguments
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    TrainerKeys,
)
from training.engine.training_arguments import FineTuningArguments, Settings
from training.evaluation.arguments import TrustArguments
from training.input.arguments import Augmentation
from training.model.arguments import ModelArguments
from training.probe.arguments import ProbeArguments

logger = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """A recipe with every value resolved: what a run is told, in a class of arguments for each subject."""

    name: str  # of the file, without its folder and ending
    data: DataArguments
    model: ModelArguments
    augmentation: Augmentation
    loss: LossArguments
    method: MethodArguments
    probe: ProbeArguments
    trust: TrustArguments
    extensions: ExtensionArguments
    training: FineTuningArguments
    # Key -> value, as run.json keeps it: every key of this project, and those of TrainingArguments
    # that were set.
    values: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """Collect the arguments that decide how a network learns from the images."""
        return Settings(self.training, self.augmentation, self.loss, self.method, self.extensions)


# The classes between name and values, in the order of the fields above.
CLASSES = tuple(kind for kind in get_type_hints(Recipe).values() if dataclasses.is_dataclass(kind))

KINDS = kinds_of(CLASSES)


def parse_recipe(argv: list[str]) -> Recipe:
    """Parse a recipe and what the command line says over it.

    >>> parse_recipe(["sample", "--seed", "1", "--mixup=0.2"]).training.seed
    1

    Args:
        argv: [RECIPE, --key, value, ...]; RECIPE is a packaged name or a path. The value `null` takes
            back what the file says, so that the key has its default.

    Raises:
        UserError: unknown recipe or key, removed key, wrong type, impossible value.
    """
    if not argv or argv[0].startswith("-"):
        raise UserError(
            f"which recipe? give one of {', '.join(packaged_recipes())}, or the path of a YAML file"
        )
    name, file, line = argv[0], _read_file(argv[0]), _read_line(argv[1:])
    file, notes = follow(file, line)
    values = {key: value for key, value in {**file, **line}.items() if value is not None}
    stem = Path(name).expanduser().stem
    values.setdefault("output_dir", f"runs/{stem}")
    arguments = [
        kind(**{each.name: values[each.name] for each in fields(kind) if each.name in values})
        for kind in CLASSES
    ]
    recipe = Recipe(stem, *arguments, values=_resolved(arguments, {*file, *values}))
    recipe.training.other_keys = recipe.values
    check_mixing(recipe.augmentation, recipe.training)
    check_method(recipe.values, set(values))
    if PartialState().is_main_process:
        for note in notes:
            logger.info("%s: %s", stem, note)
    return recipe


def _read_file(name: str) -> dict[str, Any]:
    """Read the keys of a recipe's file; a value that is null is None."""
    written = read_recipe(name)
    _check_keys(list(written), f"recipe {name}")
    return {
        key: None if value is None else convert(key, KINDS[key], text)
        for key, (value, text) in written.items()
    }


def _read_line(argv: list[str]) -> dict[str, Any]:
    """Read the keys of a command line; a value that is null, as the word, is None."""
    where, found = "the command line", {}
    for key, words in read_words(argv).items():
        switch = key.removeprefix("no_")
        if switch != key and switch in known_keys():
            if words or KINDS[switch].type is not bool:
                raise UserError(f"{key} ({where}) is for switches, alone: write --{switch} value")
            key, words = switch, ["false"]
        _check_keys([key], where)
        kind = KINDS[key]
        if not words and (kind.type is bool or key == "fsdp"):
            words = ["true"]
        if len(words) > 1 and not kind.is_list:
            refuse_stray(words[1])
        found[key] = None if words == ["null"] else convert(key, kind, words)
    return found


def known_keys() -> set[str]:
    """Name every key that a recipe may have, those of TrainingArguments included."""
    return {name for name in KINDS if name not in TAKEN_AWAY and not name.startswith("_")}


def _check_keys(keys: list[str], where: str) -> None:
    known = known_keys()
    for key in keys:
        if key in known:
            continue
        if key in TAKEN_AWAY:
            raise UserError(f"{key} ({where}) is not a key here: {TAKEN_AWAY[key]}")
        if key in REMOVED:
            raise UserError(f"{key} ({where}) no longer exists: {REMOVED[key]}")
        if key in OTHER_NAMES:
            raise UserError(f"{key} ({where}) is not a key here: {OTHER_NAMES[key]}")
        close = difflib.get_close_matches(key, known, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else "`food101 train --help` lists the usual ones"
        )
        raise UserError(f"unknown key {key} ({where}): {hint}")


def _resolved(arguments: list[Any], chosen: set[str]) -> dict[str, Any]:
    """Collect the values of every key of this project, and of the chosen ones of TrainingArguments."""
    *own, training = arguments
    kept = {each.name for each in fields(TrainerKeys)} | (chosen & known_keys())
    values = {name: value for each in own for name, value in dataclasses.asdict(each).items()}
    return {**values, **{k: v for k, v in training.to_dict().items() if k in kept}}
