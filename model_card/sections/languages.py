"""What dishes are called: which languages the model answers in, and where their names come from."""

from collections.abc import Mapping, Sequence
from typing import Any

from model_card.words import code

TABLE = "vit-food101"  # what `names_from` calls the project's own table


def sentences(
    label_names: Sequence[str],
    names: Mapping[str, Mapping[str, str]],
    names_from: Mapping[str, str],
) -> dict[str, str]:
    """Write what the template says of names, by its own words for them; "" where there are none.

    Args:
        label_names: of the model.
        names: language -> label -> name.
        names_from: language -> "vit-food101", or anything else for whoever trained the model.
    """
    if not names:
        return {"languages": "", "example_language": "", "names_source": ""}
    said = []
    for language in sorted(names):
        count = sum(label in names[language] for label in label_names)
        part = "" if count == len(label_names) else f" ({count} of {len(label_names)} dishes)"
        said.append(f"`{language}`{part}")
    # English is what is answered anyway.
    example = next((each for each in sorted(names) if each != "en"), "en")
    return {
        "languages": ", ".join(said),
        "example_language": example,
        "names_source": _source(names, names_from),
    }


def _source(names: Mapping[str, Any], names_from: Mapping[str, str]) -> str:
    """Say where the names of each language come from."""
    ours = [each for each in sorted(names) if names_from.get(each) == TABLE]
    theirs = [f"`{each}`" for each in sorted(names) if each not in ours]
    said = []
    if ours:
        unread = "; no native speaker has read the Korean ones" if "ko" in ours else ""
        said.append(f"{', '.join(map(code, ours))}: the table of vit-food101{unread}")
    if theirs:
        said.append(f"{', '.join(theirs)}: given by whoever trained this model")
    return ". ".join(said)


def with_names(section: Any, names: Mapping[str, str]) -> Any:
    """Add `name` to the rows of a section that are about a label: what it is called, or None."""
    if not isinstance(section, tuple):
        return section
    return tuple(
        {**row, "name": names.get(row["label"])}
        if isinstance(row, dict) and "label" in row
        else row
        for row in section
    )
