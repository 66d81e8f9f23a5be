"""The `food101` command: run the verb that the command line names; heavy libraries are imported inside verbs.

A new verb is a function in the module of its subject, its parser in that module's `add_verbs`, and
nothing here.
"""

from __future__ import annotations

import argparse
import sys

from training import __version__
from training.cli import data, publish, score
from training.cli.parsing import FoodParser
from training.cli.train import train
from training.common.errors import UserError

# Modules with verbs, in the order of `food101 --help`.
SUBJECTS = (data, score, publish)


def main(argv: list[str] | None = None) -> int:
    """Run the verb that a command line names; return the exit code.

    Args:
        argv: words after `food101`; None takes the command line.

    Returns:
        0, 2 after a mistake that is named in one line, or 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:  # its options belong to the recipe
        verb, rest = train, argv[1:]
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
