"""Verbs that show a finished model to people: `explain`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from training.cli.parsing import add_pixel_limit, add_verb, positive, quiet_libraries
from training.common.errors import UserError


def add_verbs(verbs: Any) -> None:
    """Add the parser of `explain` to what `add_subparsers` gave."""
    _add_explain(verbs)


def explain(args: argparse.Namespace) -> None:
    """Write a page that follows one photograph through one network; print where it lies.

    Raises:
        UserError: no such model or photograph, a label or block that the network does not have, a network
            that cannot be explained, or nothing can be written at `--output`.
    """
    *models, photo = args.words
    if not 1 <= len(models) <= 2:
        what = "a model and a photograph"
        given = "one of them is missing" if not models else f"there are {len(args.words)} words"
        raise UserError(
            f"explain takes {what}, or a ViT, a CNN and a photograph; {given}: "
            "`food101 explain RUN photo.jpg`"
        )
    quiet_libraries()
    from inference.apps.output import one_line
    from training.common.files import write_text
    from training.common.paths import check_writable, local_path

    written = {"--output": args.output, "--picture": args.picture}
    written = {option: path for option, path in written.items() if path is not None}
    for option, path in written.items():
        check_writable(path, option)
        others = [photo, *(each for key, each in written.items() if key != option)]
        if any(_same(each, path) for each in others):
            raise UserError(f"{option} {path} would replace what you gave: give another file")
    if args.picture is not None and not args.picture.lower().endswith(".png"):
        raise UserError(f"--picture {args.picture}: it is written as PNG: give a name in .png")
    from inference.apps.explain.page import measure, render
    from inference.apps.explain.strip import save_strip

    facts = measure(
        models,
        photo,
        args.label,
        args.language,
        args.block,
        args.revision,
        args.max_image_pixels,
    )
    page = render(facts, args.language)
    if args.picture is not None:
        # First: a network that is no ViT has none, and then nothing is written.
        save_strip(facts, local_path(args.picture))
        print(f"{one_line(args.picture)}: patches, attention of three blocks, the answer's map")
    write_text(local_path(args.output), page)
    print(f"{one_line(args.output)}: open it in a browser ({len(page.encode()) / 1e6:.1f} MB)")


def _same(one: str, other: str) -> bool:
    """Say whether two paths lead to one file, whether or not it is there."""
    from training.common.paths import local_path

    both = local_path(one), local_path(other)
    if all(map(os.path.exists, both)):
        return os.path.samefile(
            *both
        )  # by any link, and whatever the capitals where they do not count
    return os.path.realpath(both[0]) == os.path.realpath(both[1])


def _add_explain(verbs: Any) -> None:
    p = add_verb(verbs, explain, "follow one photograph through a network, on a page of its own")
    p.add_argument(
        "words",
        metavar="MODEL PHOTO",
        nargs="+",
        help="run, release folder or Hub id, and an image file; or a ViT, a CNN and an image file",
    )
    p.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="LABEL",
        help="explain this one too, beside the answer and the runner-up; may be repeated",
    )
    p.add_argument(
        "--language",
        choices=("en", "ko"),
        default="en",
        help="of the page and of the dishes' names (default: %(default)s)",
    )
    p.add_argument(
        "--block",
        type=positive,
        metavar="N",
        help="the block that is shown from inside, from 1 (default: the middle one)",
    )
    p.add_argument(
        "--picture",
        metavar="FILE",
        help="also a PNG: patches, attention in three blocks, what speaks for the answer",
    )
    add_pixel_limit(p)
    p.add_argument("--revision", help="of the first model on the Hub")
    p.add_argument(
        "--output",
        default="explained.html",
        metavar="FILE",
        help="the page (default: %(default)s); what lies there is replaced",
    )
