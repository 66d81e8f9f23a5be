"""The `food101` command: thin verbs; heavy libraries are imported inside each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from training import __version__
from training.cli.parsing import FoodParser, positive, train_help
from training.common.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 0, or 2 after a mistake that is named in one line."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:  # its options belong to the recipe
        verb, rest = train, argv[1:]
    else:
        rest = _parser().parse_args(argv)
        verb = rest.verb
    try:
        return verb(rest) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


# ---- verbs ------------------------------------------------------------------------------------


def train(argv: list[str]) -> int:
    if not argv or {"-h", "--help"} & set(argv):
        print(train_help())
        return 0 if argv else 2
    from training.config.packaged import find_recipe

    find_recipe(argv[0])  # before seconds of imports
    from training.cli.launcher import launch

    return launch(argv)


def evaluate(args: argparse.Namespace) -> None:
    _quiet_libraries()
    from training.evaluation.reevaluate import evaluate_again

    report = evaluate_again(
        args.model, args.dataset, args.split, args.revision, args.batch_size, args.eval_cache_gb
    )
    if args.output:
        from training.common.files import write_json

        write_json(Path(args.output), report)
    print(f"{report['dataset']} {report['split']}, n = {report['n']:,}, {report['precision']}")
    for key, metric in report["metrics"].items():
        interval = ""
        if key == "top1":  # the headline; the other intervals are in the report
            interval = "  (95 % interval {:.4f} to {:.4f})".format(*metric["interval"])
        print(f"{key:9}{metric['value']:.4f}{interval}")


def compare(args: argparse.Namespace) -> None:
    from training.compare.runs import compare_runs
    from training.compare.text import render

    _quiet_libraries()
    report = compare_runs(args.runs)
    if not args.no_speed:  # torch is imported only here
        from training.compare.speed import measure_throughput

        models = [(row["name"], Path(row["name"]).expanduser()) for row in report["runs"]]
        report["speed"] = measure_throughput(models, args.rounds, args.batch_size)
    print(json.dumps(report, ensure_ascii=False) if args.json else render(report))


def cache(args: argparse.Namespace) -> None:
    from training.data.arguments import DataArguments
    from training.data.loading import load_split, open_cache

    _quiet_libraries()
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


def card(args: argparse.Namespace) -> None:
    from training.common.files import write_text
    from training.hub.contents import card_text

    text = card_text(Path(args.run), args.repo_id, args.tag)
    if args.output:
        write_text(Path(args.output), text)
    else:
        print(text, end="")


def release(args: argparse.Namespace) -> None:
    _quiet_libraries()
    from training.hub.contents import MANIFEST
    from training.hub.release import release_run

    release_run(Path(args.run), Path(args.output))
    print(f"{args.output}: loaded back with the stock and the food pipeline; sums in {MANIFEST}")


def push(args: argparse.Namespace) -> None:
    # Before the libraries are quiet: an upload takes minutes, and keeps the Hub's progress bars.
    from training.hub.staging import stage_files

    if args.dry_run:
        for file in stage_files(Path(args.release), args.repo_id, args.tag):
            print(f"{file.sha256}  {file.size:>12,}  {file.name}")
        return
    _quiet_libraries()
    from training.hub.push import push as push_release

    outcome = push_release(
        Path(args.release),
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


def predict(args: argparse.Namespace) -> None:
    from inference.apps.predict import predict_images

    _quiet_libraries()
    results = predict_images(args.model, args.images, args.top_k, args.revision, args.batch_size)
    if args.json:
        print(json.dumps([{"image": i, "labels": r} for i, r in results], ensure_ascii=False))
        return
    for image, rows in results:
        print(f"{image}: " + ", ".join(f"{row['name']} {row['score']:.1%}" for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = FoodParser(prog="food101", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vit-food101 {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("train", help="fine-tune, evaluate and build a release from a recipe")
    _add_cache(verbs)
    _add_evaluate(verbs)
    _add_compare(verbs)
    _add_card(verbs)
    _add_release(verbs)
    _add_push(verbs)
    _add_predict(verbs)
    return parser


def _verb(verbs: Any, function: Any, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(function.__name__, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(verb=function)
    return parser


def _add_evaluate(verbs: Any) -> None:
    p = _verb(verbs, evaluate, "score a run, a release or a Hub model on a test split")
    p.add_argument("model", metavar="MODEL", help="run, release folder or Hub id")
    p.add_argument("--dataset", help="default: the one that the model was reported on")
    p.add_argument("--split", help="default: the split that the model was reported on")
    p.add_argument("--revision", help="of a model on the Hub")
    p.add_argument("--batch_size", type=positive, help="default: as recorded with the model")
    p.add_argument(
        "--eval_cache_gb",
        type=float,
        metavar="GB",
        help="limit of the decoded images kept for later evaluations (default: 16; 0 keeps none)",
    )
    p.add_argument("--output", metavar="FILE", help="write the whole report as JSON")


def _add_compare(verbs: Any) -> None:
    p = _verb(verbs, compare, "compare runs on the same test images, image by image")
    p.add_argument(
        "runs", metavar="RUN", nargs="+", help="run or release folders; first: reference"
    )
    p.add_argument("--no_speed", action="store_true", help="leave out images/s")
    p.add_argument(
        "--rounds", type=positive, default=10, help="measurements of speed (default: %(default)s)"
    )
    p.add_argument("--batch_size", type=positive, help="of the measurement (default: 8; GPU: 64)")
    p.add_argument("--json", action="store_true", help="everything as one JSON object")


def _add_cache(verbs: Any) -> None:
    p = _verb(verbs, cache, "reduce the training images once, for quicker training")
    p.add_argument("dataset", metavar="DATASET", help="as in training: Hub id, folder, parquet")
    p.add_argument(
        "--short_side", type=positive, required=True, metavar="N", help="pixels; 256 for 224"
    )
    p.add_argument("--dataset_revision", help="commit, tag or branch")
    p.add_argument("--train_split", default="train", help="(default: %(default)s)")
    p.add_argument("--image_column", default="image", help="(default: %(default)s)")
    p.add_argument("--label_column", default="label", help="(default: %(default)s)")
    p.add_argument("--undecodable_images", default="stop", choices=("stop", "skip"))


def _add_card(verbs: Any) -> None:
    p = _verb(verbs, card, "render the model card of a run from its JSON files")
    p.add_argument("run", metavar="RUN", help="run or release folder")
    p.add_argument("--repo_id", help="user/name to show in the examples")
    p.add_argument("--tag", help="revision to pin in the examples")
    p.add_argument("--output", metavar="FILE", help="default: print")


def _add_release(verbs: Any) -> None:
    p = _verb(verbs, release, "build the folder to publish, offline, and load it back")
    p.add_argument("run", metavar="RUN", help="a finished run")
    p.add_argument("--output", metavar="DIR", required=True)


def _add_push(verbs: Any) -> None:
    p = _verb(verbs, push, "upload a release in one commit, download it again and verify it")
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


def _add_predict(verbs: Any) -> None:
    p = _verb(verbs, predict, "label photographs")
    p.add_argument("model", metavar="MODEL", help="run, release folder or Hub id")
    p.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    p.add_argument(
        "--top_k", type=positive, default=5, help="labels an image (default: %(default)s)"
    )
    p.add_argument("--revision", help="of a model on the Hub")
    p.add_argument("--batch_size", type=positive, default=8)
    p.add_argument("--json", action="store_true", help="one JSON array")


def _quiet_libraries() -> None:
    """No progress bars and advice of the libraries between our own lines."""
    import logging
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
