"""TODO."""

from __future__ import annotations

from pathlib import Path

from training.common.errors import UserError
from training.common.files import read_json, sha256_file

PIPELINE = Path("food_classification.py")

CUSTOM_PIPELINES = {
    "food-classification": {
        "impl": "food_classification.FoodClassificationPipeline",
        "pt": ["AutoModelForImageClassification"],
    }
}

FILES = (
    "README.md",
    "config.json",
    "evaluation.json",
    "food_classification.py",
    "model.safetensors",
    "predictions.csv",
    "preprocessor_config.json",
    "run.json",
)

MANIFEST = "release.json"  # sha256 of every file; stays here, so that a change by hand is noticed


def check_release(folder: Path) -> dict[str, str]:
    """sha256 of each file of an unchanged release.

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
    """The card of a release folder or run; a pure function of its JSON files.

    Raises:
        UserError: a fact is missing or cannot be true.
    """
    from model_card.facts import CardFacts
    from model_card.render import render_card, validate_card

    try:
        text = render_card(
            CardFacts.from_folder(folder),
            repo_id=repo_id,
            tag=tag,
            pipeline_sha256=sha256_file(pipeline_source()),
        )
        validate_card(text)
    except ValueError as error:
        raise UserError(f"the card of {folder} cannot be written: {error}") from error
    return text


def pipeline_source() -> Path:
    import inference

    return Path(inference.__file__).parent / PIPELINE
