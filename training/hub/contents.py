"""What is in a release folder: its manifest, its card, its code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import inference
from model_card.checks import read_json as read_facts
from model_card.facts import CardFacts
from model_card.front_matter import validate_card
from model_card.render import render_card
from training.common.errors import UserError
from training.common.files import read_json, sha256_file
from training.evaluation.formats import in_format_2
from training.model.config_block import read_block

# Code that is uploaded beside the weights; the first file holds the pipeline and imports the others.
CODE = (
    "food_classification.py",
    "food_answers.py",
    "food_distance.py",
    "food_explain.py",
    "food_images.py",
    "food_inputs.py",
)

# What an Inference Endpoint runs, in the releases that are asked to have it.
HANDLER = ("handler.py", "requirements.txt")

CUSTOM_PIPELINES = {
    "food-classification": {
        "impl": "food_classification.FoodClassificationPipeline",
        "pt": ["AutoModelForImageClassification"],
    }
}

# SHA-256 of every other file; it is not pushed, but shows whether one was changed by hand. What it
# lists is what is pushed.
MANIFEST = "release.json"


def make_manifest(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file that was built into `folder`: {"README.md": "ab12...", ...}."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    return {name: sha256_file(folder / name) for name in names}


def check_release(folder: Path) -> dict[str, str]:
    """Read the manifest of a release that is as it was built: the SHA-256 of each file.

    Raises:
        UserError: not a release, or a file was changed, added or removed since it was built.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{folder} is not a release: make one with `food101 release RUN --output DIR`"
        )
    manifest = read_json(folder / MANIFEST)
    found = {p.name for p in folder.iterdir()} - {MANIFEST}
    odd = sorted(found ^ set(manifest))
    odd += [n for n in sorted(found & set(manifest)) if sha256_file(folder / n) != manifest[n]]
    if odd:
        raise UserError(
            f"{folder} was changed since it was built ({', '.join(odd)}): build it again with "
            "`food101 release RUN --output DIR`"
        )
    return manifest


def card_text(folder: Path, repo_id: str | None = None, tag: str | None = None) -> str:
    """Write the card of a release folder or run: a pure function of the files in it.

    Args:
        repo_id: "user/name" on the Hub; None: the examples show "user/repo" and say so.
        tag: tag that the examples pin; None: they follow `main`.

    Raises:
        UserError: a fact is missing or cannot be true, or evaluation.json is of an unknown format.
    """
    try:
        run, evaluation = (read_facts(folder / f"{stem}.json") for stem in ("run", "evaluation"))
        block = block_of(folder)
        text = render_card(
            CardFacts.from_json(run, in_format_2(evaluation, folder / "evaluation.json")),
            repo_id=repo_id,
            tag=tag,
            code_sha256={path.name: sha256_file(path) for path in _shown(folder)},
            tried_with=tried_with(folder),
            names=block.get("names"),
            names_from=block.get("names_from"),
            thresholds=block.get("thresholds"),
            sets=block.get("sets"),
        )
        validate_card(text)
    except ValueError as error:
        raise UserError(f"the card of {folder} cannot be written: {error}") from error
    return text


def block_of(folder: Path) -> dict[str, Any]:
    """Read our block of the config.json of a release folder or run; {} where there is none.

    Raises:
        UserError: it is of another format, or config.json is not JSON.
    """
    for path in (folder / "config.json", folder / "model" / "config.json"):
        if path.is_file():
            return read_block(read_json(path))
    return {}


def code_of(folder: Path) -> list[Path]:
    """Find the files of code that belong to a folder.

    A release has its own, which may be of another version than the installed ones, and fewer; a run
    has none and will be released with the installed ones.
    """
    released = [folder / name for name in CODE if (folder / name).is_file()]
    return released or code_sources()


def _shown(folder: Path) -> list[Path]:
    """Find the files of code whose sums are on the card."""
    handler = folder / "handler.py"
    return [*code_of(folder), *([handler] if handler.is_file() else [])]


def tried_with(folder: Path) -> tuple[str, ...]:
    """Read which versions of transformers the folder's own code says it was tried with.

    The text is read and not run; a release of before it said so has none.
    """
    text = "".join(path.read_text(encoding="utf-8") for path in code_of(folder))
    found = re.search(r"^TRIED_WITH = \((.*?)\)", text, re.M | re.S)
    return tuple(re.findall(r'"([\d.]+)"', found[1])) if found else ()


def code_sources() -> list[Path]:
    """Find the installed files of code, which a new release gets copies of."""
    return [Path(inference.__file__).parent / name for name in CODE]


def handler_sources() -> list[Path]:
    """Find the installed files for an Inference Endpoint, which a release may get copies of."""
    return [Path(inference.__file__).parent / "apps" / "endpoint" / name for name in HANDLER]
