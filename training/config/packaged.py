"""Find recipes: those that are installed with the code, and any other file."""

from __future__ import annotations

import difflib
from pathlib import Path

import training
from training.common.errors import UserError

RECIPES = Path(training.__file__).parent / "recipes"


def packaged_recipes() -> list[str]:
    """List the names of the recipes that are installed with the code, sorted: ["cnn_baseline", ...]."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Find the file of a recipe.

    Args:
        name: a packaged name, which comes before a file of that name, or a path.

    Raises:
        UserError: there is neither; the closest packaged name is suggested.
    """
    names = packaged_recipes()
    path = RECIPES / f"{name}.yaml" if name in names else Path(name).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"give one of {', '.join(names)}, or a path"
    raise UserError(f"unknown recipe {name}: {hint}")
