"""Verbs about images: `check`, `cache`."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Any

from training.cli.parsing import (
    add_data_options,
    add_verb,
    given_options,
    positive,
    quiet_libraries,
)
from training.data.arguments import WHICH_IMAGES


def add_verbs(verbs: Any) -> None:
    """Add the parsers of `check` and `cache` to what `add_subparsers` gave."""
    _add_check(verbs)
    _add_cache(verbs)


def check(args: argparse.Namespace) -> None:
    """Print what would be trained on: splits, labels, what is left out, and the command to train.

    Raises:
        UserError: there is nothing that could be trained on.
    """
    quiet_libraries()
    from training.data.arguments import DataArguments
    from training.data.check import as_json, render
    from training.data.check import check as check_data

    data = DataArguments(
        dataset=args.dataset, undecodable_images="skip", **given_options(args, WHICH_IMAGES)
    )
    checked = check_data(data, shlex.quote(args.dataset))
    print(json.dumps(as_json(checked), ensure_ascii=False) if args.json else render(checked))


def _add_check(verbs: Any) -> None:
    p = add_verb(verbs, check, "say what would be trained on, and what would be left out")
    p.add_argument("dataset", metavar="DATASET", help="folder, table, archive, glob, or Hub id")
    add_data_options(p, WHICH_IMAGES)
    p.add_argument("--json", action="store_true", help="everything as one JSON object")


def cache(args: argparse.Namespace) -> None:
    """Reduce the training images once; print where they are, how large, and how to train on them.

    Raises:
        UserError: there is no such data set, split or column, or an image cannot be decoded.
    """
    quiet_libraries()
    from training.data.arguments import DataArguments
    from training.data.loading import open_cache, prepare

    keys = (*WHICH_IMAGES, "undecodable_images")
    data = DataArguments(dataset=args.dataset, **given_options(args, keys))
    split = prepare(data).train
    found, _ = open_cache(split, args.short_side)
    record, n = found.record, found.record["num_images"]
    print(f"{found.folder}" + (" was there already; nothing was done" if found.was_there else ""))
    print(
        f"{n:,} images of split {split.name}: {record['source_bytes'] / 1e6:,.1f} MB "
        f"({record['source_bytes'] / n / 1e3:.1f} kB an image) before, "
        f"{record['image_bytes'] / 1e6:,.1f} MB ({record['mean_kB']:.1f} kB) after; "
        f"{record['num_kept']:,} were no larger and are as they were"
    )
    print(
        f"on disk, with the copy that is mapped into memory: {found.size_on_disk() / 1e6:,.1f} MB"
    )
    print(f"to train on them: --train_short_side {args.short_side}")


def _add_cache(verbs: Any) -> None:
    p = add_verb(verbs, cache, "reduce the training images once, for quicker training")
    p.add_argument("dataset", metavar="DATASET", help="as in training: Hub id, folder, parquet")
    p.add_argument(
        "--short_side", type=positive, required=True, metavar="N", help="pixels; 256 for 224"
    )
    add_data_options(p, (*WHICH_IMAGES, "undecodable_images"))
