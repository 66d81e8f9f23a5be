"""Verbs that use a finished model: `evaluate`, `compare`, `predict`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from training.cli.parsing import (
    add_data_options,
    add_pixel_limit,
    add_verb,
    given_options,
    number,
    positive,
    quiet_libraries,
)
from training.common.errors import UserError


def add_verbs(verbs: Any) -> None:
    """Add the parsers of `evaluate`, `compare` and `predict` to what `add_subparsers` gave."""
    _add_evaluate(verbs)
    _add_compare(verbs)
    _add_predict(verbs)


# Keys that say what the images that are scored are called; default: as the model was reported.
COLUMNS = ("image_column", "label_column", "label_names", "undecodable_images", "dataset_revision")


def evaluate(args: argparse.Namespace) -> None:
    """Score a model on a test split and print its metrics; `--output` takes the whole report as JSON.

    Raises:
        UserError: there is no such model, data set or split, the labels are not the model's, or nothing
            can be written at `--output`.
    """
    quiet_libraries()
    from training.common.paths import check_writable, local_path

    if args.output is not None:
        check_writable(args.output)
    from training.evaluation.reevaluate import evaluate_again

    report = evaluate_again(
        args.model,
        args.dataset,
        args.split,
        args.revision,
        args.batch_size,
        args.eval_cache_gb,
        columns=given_options(args, COLUMNS),
    )
    if args.output is not None:
        from training.common.files import write_json

        write_json(local_path(args.output), report)
    print(f"{report['dataset']} {report['split']}, n = {report['n']:,}, {report['precision']}")
    for key, metric in report["metrics"].items():
        interval = ""
        if key == "top1":  # the headline; the other intervals are in the report
            interval = "  (95 % interval {:.4f} to {:.4f})".format(*metric["interval"])
        print(f"{key:9}{metric['value']:.4f}{interval}")


def _add_evaluate(verbs: Any) -> None:
    p = add_verb(verbs, evaluate, "score a run, a release or a Hub model on a test split")
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
    add_data_options(p, COLUMNS)
    p.add_argument("--output", metavar="FILE", help="write the whole report as JSON")


def compare(args: argparse.Namespace) -> None:
    """Compare runs on the same test images, and how fast they are; print tables, or JSON.

    Raises:
        UserError: a folder is not a finished run, or the runs answered other test images.
    """
    quiet_libraries()
    from training.compare.runs import compare_runs
    from training.compare.text import render

    report = compare_runs(args.runs)
    if not args.no_speed:  # torch is imported only here
        from training.common.paths import local_path
        from training.compare.speed import measure_throughput

        models = [(row["name"], local_path(row["name"])) for row in report["runs"]]
        report["speed"] = measure_throughput(models, args.rounds, args.batch_size)
    print(json.dumps(report, ensure_ascii=False) if args.json else render(report))


def _add_compare(verbs: Any) -> None:
    p = add_verb(verbs, compare, "compare runs on the same test images, image by image")
    p.add_argument(
        "runs", metavar="RUN", nargs="+", help="run or release folders; first: reference"
    )
    p.add_argument("--no_speed", action="store_true", help="leave out images/s")
    p.add_argument(
        "--rounds", type=positive, default=10, help="measurements of speed (default: %(default)s)"
    )
    p.add_argument("--batch_size", type=positive, help="of the measurement (default: 8; GPU: 64)")
    p.add_argument("--json", action="store_true", help="everything as one JSON object")


def predict(args: argparse.Namespace) -> int:
    """Label photographs: print a line for each with its best labels, CSV rows, or one JSON array.

    An image that cannot be read is a line on standard error, and the others are labelled.

    Returns:
        0; 1 where some of the images could not be labelled; 2 where none could.

    Raises:
        UserError: there is no such model, it has no names in the language, it cannot keep what
            `--abstain`, `--coverage` or `--not_food` ask for, or standard input names no image.
    """
    quiet_libraries()
    from inference.apps.images import find_images
    from inference.apps.output import Csv, Json, Lines, one_line
    from inference.apps.predict import predict_images

    def count() -> int | None:
        return None if "-" in args.images else sum(1 for _ in find_images(args.images))

    write = Json() if args.json else Csv() if args.csv else Lines()
    images = find_images(args.images, sys.stdin.buffer if sys.stdin else ())
    answered = failed = 0
    for answer in predict_images(
        args.model,
        images,
        args.top_k,
        args.revision,
        args.batch_size,
        count,
        args.language,
        abstain=args.abstain,
        coverage=args.coverage,
        not_food=args.not_food,
        max_image_pixels=args.max_image_pixels,
    ):
        if answer.error is None:
            answered += 1
        else:
            failed += 1
            sys.stdout.flush()  # in a terminal the lines stand in the order of the images
            print(f"error: {one_line(answer.image)}: {answer.error}", file=sys.stderr)
        write.add(answer)
    if not answered and not failed:
        raise UserError("standard input names no image: give `-` a list of paths, one a line")
    write.end()
    return 0 if not failed else 1 if answered else 2


def _add_predict(verbs: Any) -> None:
    p = add_verb(verbs, predict, "label photographs")
    p.add_argument("model", metavar="MODEL", help="run, release folder or Hub id")
    p.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image file, folder of images or glob; - reads paths from standard input, one a line",
    )
    p.add_argument(
        "--top_k", type=positive, default=5, help="labels an image (default: %(default)s)"
    )
    p.add_argument(
        "--language",
        metavar="CODE",
        help="of the names, as ko (default: en, where there are names)",
    )
    p.add_argument(
        "--abstain",
        metavar="ACCURACY",
        nargs="?",
        const=True,
        type=number,
        help='say "not sure" where the answers would not be right so often (alone: 0.95)',
    )
    p.add_argument(
        "--coverage",
        metavar="SHARE",
        type=number,
        help="name the dishes among which the right one is so often, as 0.9",
    )
    p.add_argument(
        "--not_food",
        metavar="SHARE",
        nargs="?",
        const=True,
        default=False,
        type=number,
        help="say what may be no food; SHARE of real food is refused too (alone: 0.05)",
    )
    add_pixel_limit(p)
    p.add_argument("--revision", help="of a model on the Hub")
    p.add_argument(
        "--batch_size", type=positive, default=8, help="images at once (default: %(default)s)"
    )
    shape = p.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON array")
    shape.add_argument(
        "--csv",
        action="store_true",
        help="rows: image, rank, label, name, score, and what --abstain, --coverage, --not_food say",
    )
