"""Verbs on the way to the Hub: `card`, `release`, `push`."""

from __future__ import annotations

import argparse
from typing import Any

from training.cli.parsing import add_verb, positive, quiet_libraries


def add_verbs(verbs: Any) -> None:
    """Add the parsers of `card`, `release` and `push` to what `add_subparsers` gave."""
    _add_card(verbs)
    _add_release(verbs)
    _add_push(verbs)


def card(args: argparse.Namespace) -> None:
    """Render the model card of a run or release folder; print it, or write it to `--output`.

    Raises:
        UserError: the folder lacks a file that the card is made from, or holds a damaged one; a name is
            malformed; nothing can be written at `--output`.
    """
    from training.common.files import write_text
    from training.common.paths import check_writable, existing_folder, local_path
    from training.hub.contents import card_text
    from training.hub.staging import check_repo_id, check_tag

    run = existing_folder(args.run, "a finished run or a release folder")
    if args.repo_id is not None:
        check_repo_id(args.repo_id)
    if args.tag is not None:
        check_tag(args.tag)
    if args.output is not None:
        check_writable(args.output)
    text = card_text(run, args.repo_id, args.tag)
    if args.output is None:
        print(text, end="")
    else:
        write_text(local_path(args.output), text)


def _add_card(verbs: Any) -> None:
    p = add_verb(verbs, card, "render the model card of a run from its JSON files")
    p.add_argument("run", metavar="RUN", help="run or release folder")
    p.add_argument("--repo_id", help="user/name to show in the examples")
    p.add_argument("--tag", help="revision to pin in the examples")
    p.add_argument("--output", metavar="FILE", help="default: print")


def release(args: argparse.Namespace) -> None:
    """Build the folder to publish from a finished run, without network, and load it back.

    Raises:
        UserError: the run is not finished, `--output` holds something else or cannot be written, or
            `--display_names` does not fit.
    """
    quiet_libraries()
    from training.common.paths import check_writable, existing_folder, local_path

    run = existing_folder(args.run, "a finished run")
    check_writable(args.output, folder=True)
    from training.hub.contents import MANIFEST, block_of
    from training.hub.release import release_run

    release_run(
        run, local_path(args.output), handler=args.handler, display_names=args.display_names
    )
    ways = "the stock and the food pipeline" + (", and by its handler" if args.handler else "")
    print(f"{args.output}: loaded back with {ways}; sums in {MANIFEST}")
    if "held_out" not in block_of(local_path(args.output)):
        print(
            "uncalibrated: its scores need not mean what they say, and it cannot say that it is not sure: "
            "train again with this version"
        )


def _add_release(verbs: Any) -> None:
    p = add_verb(verbs, release, "build the folder to publish, offline, and load it back")
    p.add_argument("run", metavar="RUN", help="a finished run")
    p.add_argument("--output", metavar="DIR", required=True)
    p.add_argument(
        "--handler",
        action="store_true",
        help="add handler.py and requirements.txt for a Hugging Face Inference Endpoint",
    )
    p.add_argument(
        "--display_names",
        metavar="FILE",
        help="CSV of what labels are called, label,<language>,... (default: as it was trained)",
    )


def push(args: argparse.Namespace) -> None:
    """Upload a release in one commit, download it again and verify it; print the commit.

    With `--dry_run` only SHA-256, size in bytes and name of each file are printed.

    Raises:
        UserError: a name is malformed, the release is not whole, or the Hub refuses or differs.
    """
    # Before the libraries are quiet: an upload takes minutes, and keeps the Hub's progress bars.
    from training.common.paths import existing_folder
    from training.hub.staging import check_repo_id, check_tag, stage_files

    check_repo_id(args.repo_id)
    check_tag(args.tag)
    folder = existing_folder(args.release, "a release folder")
    if args.dry_run:
        for file in stage_files(folder, args.repo_id, args.tag):
            print(f"{file.sha256}  {file.size:>12,}  {file.name}")
        return
    quiet_libraries()
    from training.hub.push import push as push_release

    outcome = push_release(
        folder,
        args.repo_id,
        tag=args.tag,
        public=args.public,
        dataset=args.dataset,
        num_rescored=args.rescore,
    )
    what = "pushed" if outcome.changed else "nothing to push: already there"
    visibility = "private" if outcome.private else "public"
    print(f"{args.repo_id} ({visibility}): {what}, commit {outcome.commit}, tag {args.tag}")
    print(outcome.rescored)


def _add_push(verbs: Any) -> None:
    p = add_verb(verbs, push, "upload a release in one commit, download it again and verify it")
    p.add_argument("release", metavar="RELEASE", help="folder made by train or `food101 release`")
    p.add_argument("--repo_id", required=True, help="user/name")
    p.add_argument(
        "--tag", default="v1.0", help="names this version for ever (default: %(default)s)"
    )
    p.add_argument("--public", action="store_true", help="make it public once verified")
    p.add_argument("--dataset", metavar="PATH", help="test images, if the model was scored locally")
    p.add_argument(
        "--rescore", type=positive, default=100, metavar="N", help="images to score again"
    )
    p.add_argument(
        "--dry_run", action="store_true", help="list sha256, size and name; send nothing"
    )
