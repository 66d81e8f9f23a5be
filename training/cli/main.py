"""The `food101` command: run the verb that the command line names; heavy libraries are imported inside verbs.

A new verb is a function in the module of its subject, its parser in that module's `add_verbs`, and
nothing here.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from typing import Any

from training import __version__
from training.cli import data, publish, score, show
from training.cli.parsing import FoodParser, plain_options
from training.cli.train import train
from training.common.errors import UserError

# Modules with verbs, in the order of `food101 --help`.
SUBJECTS = (data, score, show, publish)


# As a shell says of a program that writes to a pipe which nobody reads any longer.
CLOSED_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run the verb that a command line names; return the exit code.

    Args:
        argv: words after `food101`; None takes the command line.

    Returns:
        0, 1 where a part could not be done, 2 after a mistake that is named in one line, 130 after
        Ctrl-C, or 141 where the reader of the output has left, as `head` does.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:  # else Python does it at exit, and complains of a closed pipe there
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    except BrokenPipeError:
        if not _reader_left():  # a pipe of somebody else: a programmer's error
            raise
        # What is still to be written at exit goes nowhere, without a complaint.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if _has_left(stream):
                os.dup2(nowhere, stream.fileno())
        return CLOSED_PIPE


def _run(argv: list[str]) -> int:
    """Run the verb; see `main`, which does the rest."""
    if argv[:1] == ["train"]:  # its options belong to the recipe
        verb, rest = train, plain_options(argv[1:])
    else:
        rest = make_parser().parse_args(argv)
        verb = rest.verb
    try:
        return verb(rest) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _reader_left() -> bool:
    """Say whether standard output or standard error is a pipe that nobody reads any longer."""
    return any(_has_left(stream) for stream in (sys.stdout, sys.stderr))


def _has_left(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such stream, or no poll on this system
        return False


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all verbs but `train`, which it only lists."""
    about = "The `food101` command: train, score and publish a food classifier."
    parser = FoodParser(prog="food101", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vit-food101 {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="fine-tune, evaluate and build a release from a recipe")
    for subject in SUBJECTS:
        subject.add_verbs(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
