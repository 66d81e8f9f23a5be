"""The verb about images: `cache`."""

from __future__ import annotations

import argparse
from typing import Any

from training.cli.parsing import add_verb, positive, quiet_libraries


def add_verbs(verbs: Any) -> None:
    """Add the parser of `cache` to what `add_subparsers` gave."""
    _add_cache(verbs)


def cache(args: argparse.Namespace) -> None:
    """Reduce the training images once; print where they are, how large, and how to train on them.

    Raises:
        UserError: there is no such data set, split or column, or an image cannot be decoded.
    """
    quiet_libraries()
    from training.data.arguments import DataArguments
    from training.data.loading import load_split, open_cache

    keys = ("dataset", "dataset_revision", "train_split", "image_column", "label_column")
    data = DataArguments(**{key: getattr(args, key) for key in (*keys, "undecodable_images")})
    _, split = load_split(data, data.train_split)
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
    p.add_argument("--dataset_revision", help="commit, tag or branch")
    p.add_argument("--train_split", default="train", help="(default: %(default)s)")
    p.add_argument("--image_column", default="image", help="(default: %(default)s)")
    p.add_argument("--label_column", default="label", help="(default: %(default)s)")
    p.add_argument("--undecodable_images", default="stop", choices=("stop", "skip"))
