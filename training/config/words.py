"""Read the words of a command line: which key has which words for its value."""

from __future__ import annotations

from training.common.errors import UserError


def read_words(argv: list[str]) -> dict[str, list[str]]:
    """Map each key of a command line to the words after it; of a key that comes twice, the last.

    A key may be written with hyphens, its value after a space or after `=`. Words are never changed:
    only what begins with two hyphens is a key, so that -1 is a value.

    >>> read_words(["--num-train-epochs", "3", "--crop_scale", "0.1", "1", "--use_cpu", "--run_name=a-b"])
    {"num_train_epochs": ["3"], "crop_scale": ["0.1", "1"], "use_cpu": [], "run_name": ["a-b"]}

    Raises:
        UserError: a word belongs to no key.
    """
    found: dict[str, list[str]] = {}
    key, is_open = "", False  # whether words may follow
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            key, is_open = name.replace("-", "_"), not equals
            found.pop(key, None)  # the last one also comes last
            found[key] = [value] if equals else []
        elif is_open:
            found[key].append(word)
        else:
            refuse_stray(word)
    return found


def refuse_stray(word: str) -> None:
    """Refuse a word that belongs to no key.

    Raises:
        UserError: always.
    """
    raise UserError(f"{word} (the command line) stands alone: write --key value")
