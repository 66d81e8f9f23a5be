"""Parse a recipe: YAML gives defaults, the command line overrides, everything is typed and strict.

A recipe is a packaged name (`training/recipes/NAME.yaml`) or a path. Both the file's values and
the command line go through one argparse parser, so `2e-4` is a number in either place.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import yaml
from transformers import HfArgumentParser

from training.common.arguments import default_of
from training.common.errors import UserError
from training.config.checks import check_method, check_mixing
from training.config.keys import REMOVED, TAKEN_AWAY, as_argv, without_nulls
from training.config.packaged import find_recipe, packaged_recipes
from training.data.arguments import DataArguments
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    TrainerKeys,
)
from training.engine.training_arguments import FineTuningArguments, Settings
from training.input.arguments import Augmentation
from training.model.arguments import ModelArguments
from training.probe.arguments import ProbeArguments


class Recipe(NamedTuple):
    """A recipe with every value resolved: what a run is told, in a class of arguments for each subject."""

    name: str  # of the file, without its folder and ending
    data: DataArguments
    model: ModelArguments
    augmentation: Augmentation
    loss: LossArguments
    method: MethodArguments
    probe: ProbeArguments
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
    name, (overrides, taken_back) = argv[0], without_nulls(argv[1:])
    file_values = read_recipe(name)
    if any(word.split("=", 1)[0] == "--model" for word in argv[1:]):
        file_values.pop("model_revision", None)  # of the file's own model
    _check_keys(list(file_values), f"recipe {name}")
    _check_keys(taken_back, "the command line")
    file_values |= dict.fromkeys(taken_back)
    given = [a[2:].split("=", 1)[0].replace("-", "_") for a in overrides if a.startswith("--")]
    _check_keys(given, "the command line")
    file_argv = [token for key, value in file_values.items() for token in as_argv(key, value)]
    if file_values.get("output_dir") is None:
        file_argv += ["--output_dir", f"runs/{Path(name).stem}"]
    *arguments, stray = _parser().parse_args_into_dataclasses(
        file_argv + overrides, look_for_args_file=False, return_remaining_strings=True
    )
    if stray:
        raise UserError(f"{stray[0]} (the command line) stands alone: write --key value")
    chosen = {*file_values, *given, "output_dir"}
    named = {*given, *(key for key, value in file_values.items() if value is not None)}
    recipe = Recipe(Path(name).stem, *arguments, values=_resolved(arguments, chosen))
    recipe.training.other_keys = recipe.values
    check_mixing(recipe.augmentation, recipe.training)
    check_method(recipe.values, named)
    return recipe


def read_recipe(name: str) -> dict[str, Any]:
    """Read the file of a recipe.

    Args:
        name: a packaged name or a path.

    Returns:
        Its keys and values as YAML reads them, unchecked; {} of an empty file.

    Raises:
        UserError: there is no such file, or it holds something other than `key: value` lines.
    """
    path = find_recipe(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must be `key: value` lines")
    return {str(key): value for key, value in values.items()}


def default_values() -> dict[str, Any]:
    """Map every key of this project to its default.

    A run of an older version, which did not know a key yet, went as with this value.
    """
    return {
        field.name: default_of(field)
        for kind in CLASSES
        for field in dataclasses.fields(kind)
        if "key" in field.metadata
    }


def known_keys() -> set[str]:
    """Name every key that a recipe may have, those of TrainingArguments included."""
    names = {f.name for cls in CLASSES for f in dataclasses.fields(cls) if f.init}
    return {name for name in names if name not in TAKEN_AWAY and not name.startswith("_")}


def _check_keys(keys: list[str], where: str) -> None:
    known = known_keys()
    for key in keys:
        key = key[3:] if key.startswith("no_") and key[3:] in known else key
        if key in known:
            continue
        if key in TAKEN_AWAY:
            raise UserError(f"{key} ({where}) is not a key here: {TAKEN_AWAY[key]}")
        if key in REMOVED:
            raise UserError(f"{key} ({where}) no longer exists: {REMOVED[key]}")
        close = difflib.get_close_matches(key, known, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else "`food101 train --help` lists the usual ones"
        )
        raise UserError(f"unknown key {key} ({where}): {hint}")


class _Parser(HfArgumentParser):
    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Leave out what argparse does not know: HfArgumentParser hands over a field's metadata."""
        kwargs.pop("key", None)
        return super().add_argument(*args, **kwargs)

    def error(self, message: str) -> None:
        raise UserError(re.sub(r"^argument --(\w+)(/\S+)?:", r"key \1:", message))


def _parser() -> HfArgumentParser:
    return _Parser(CLASSES, allow_abbrev=False, add_help=False)


def _resolved(arguments: list[Any], chosen: set[str]) -> dict[str, Any]:
    """Collect the values of every key of this project, and of the chosen ones of TrainingArguments."""
    *own, training = arguments
    kept = {each.name for each in dataclasses.fields(TrainerKeys)} | (chosen & known_keys())
    values = {name: value for each in own for name, value in dataclasses.asdict(each).items()}
    return {**values, **{k: v for k, v in training.to_dict().items() if k in kept}}
