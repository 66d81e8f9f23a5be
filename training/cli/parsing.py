"""Make and name what the verbs' parsers have in common."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import Any


class FoodParser(argparse.ArgumentParser):
    """A parser that ends a mistake with one line and exit code 2."""

    def error(self, message: str) -> None:
        """Print the mistake in one line to standard error and exit with 2."""
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


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
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of what a verb prints.

    What the environment sets already stays. A verb calls this before it imports the libraries:
    transformers reads its level when it is imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
