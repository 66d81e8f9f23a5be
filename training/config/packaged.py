"""TODO."""

from __future__ import annotations

import difflib
from pathlib import Path

import training
from training.common.errors import UserError

RECIPES = Path(training.__file__).parent / "recipes"


def packaged_recipes() -> list[str]:
    """Names of the recipes that are installed with the code."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a packaged recipe or of a path.

    Raises:
        UserError: neither; the closest packaged name is suggested.
    """
    names = packaged_recipes()
    path = RECIPES / f"{name}.yaml" if name in names else Path(name)
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(names)}, or a path"
    raise UserError(f"unknown recipe {name}: {hint}")
