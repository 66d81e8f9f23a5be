"""Parse the options of verbs: what their parsers have in common."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


class FoodParser(argparse.ArgumentParser):
    """A parser that ends a mistake with one line and exit code 2; `--top-k` is `--top_k`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, after `plain_options`; the verbs' parsers are called here too."""
        return super().parse_known_args(
            plain_options(sys.argv[1:] if args is None else list(args)), namespace
        )

    def error(self, message: str) -> None:
        """Print the mistake in one line to standard error and exit with 2."""
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def plain_options(words: list[str]) -> list[str]:
    """Write options as parsers here know them: with underscores, and joined to a negative number.

    >>> plain_options(["--top-k", "-1e3", "--repo-id=user/a-b"])
    ['--top_k=-1e3', '--repo_id=user/a-b']

    Values stay as they are, and so does what follows a `--` that stands alone.
    """
    plain: list[str] = []
    takes_value = False
    for i, word in enumerate(words):
        if word == "--":
            return [*plain, *words[i:]]
        if takes_value and word.startswith("-") and _is_number(word):
            plain[-1] += f"={word}"  # argparse would take -1e3 or -inf for an option
            takes_value = False
            continue
        is_option = word.startswith("--")
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        plain.append(name + equals + value if is_option else word)
        takes_value = is_option and not equals
    return plain


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def add_verb(verbs: Any, function: Callable[..., Any], text: str) -> argparse.ArgumentParser:
    """Add the parser of a verb to what `add_subparsers` gave.

    Args:
        verbs: what `add_subparsers` gave.
        function: what the verb does with the parsed options; its name is the verb's name.
        text: one line for the help.

    Returns:
        The verb's parser, for its options.
    """
    parser = verbs.add_parser(function.__name__, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(verb=function)
    return parser


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for an argument's `type`.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    # isdecimal: isdigit also takes a raised 2, of which int makes nothing
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def add_pixel_limit(parser: argparse.ArgumentParser) -> None:
    """Add `--max_image_pixels`, None where it is not given, to a verb that reads photographs."""
    parser.add_argument(
        "--max_image_pixels",
        type=positive,
        metavar="N",
        help="width x height up to which an image is read (default: 64,000,000)",
    )


def number(text: str) -> float:
    """Parse a number, for an argument's `type`.

    Raises:
        ArgumentTypeError: the text is something else, as the image that stands behind the option.
    """
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number; give the images before the option"
        ) from error


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of what a verb prints.

    What the environment sets already stays. A verb calls this before it imports the libraries:
    transformers reads its level when it is imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("training", "inference"):
        logging.getLogger(package).setLevel(logging.INFO)


def add_data_options(parser: argparse.ArgumentParser, keys: Iterable[str]) -> None:
    """Add keys of a recipe that say which images are read, with their help; without a default here.

    Which of them were given, `given_options` says.
    """
    from training.common.arguments import keys_of
    from training.data.arguments import DataArguments

    facts, lists = keys_of(DataArguments), ("label_names",)
    for key in keys:
        parser.add_argument(
            f"--{key}",
            help=facts[key].help,
            nargs="+" if key in lists else None,
            choices=facts[key].choices,
            type=int if key.endswith("seed") else float if key.endswith("fraction") else str,
        )


def given_options(args: argparse.Namespace, keys: Iterable[str]) -> dict[str, Any]:
    """Return the keys that the command line gave, with their values."""
    return {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
