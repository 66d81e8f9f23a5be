"""What the verbs' parsers have in common."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import Any


class FoodParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, with exit code 2."""

    def error(self, message: str) -> None:
        """Print the line and leave."""
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def add_verb(verbs: Any, function: Callable[..., Any], text: str) -> argparse.ArgumentParser:
    """Add the parser of a verb, which has its function's name, to what `add_subparsers` gave."""
    parser = verbs.add_parser(function.__name__, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(verb=function)
    return parser


def positive(text: str) -> int:
    """Parse a whole number of at least 1, for an argument's `type`."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def quiet_libraries() -> None:
    """Leave the libraries' progress bars and advice out between our own lines.

    A verb calls this before it imports them: transformers reads its level when it is imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
