"""Finished runs beside each other, on the same test images: what `food101 compare` answers.

Accuracy is compared image by image: two models that see the same photographs mostly fail on the
same ones, and what tells them apart are the images that only one gets right. torch is imported
only where speed is measured.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import UserError
from training.files import read_json, read_predictions
from training.intervals import mcnemar_exact, paired_interval
from training.keys import FREE_KEYS

METHOD = (
    "Wilson score intervals of top-1; differences by Newcombe's method 10 for paired proportions "
    "(Statistics in Medicine 17, 1998, 2635-2650); exact two-sided McNemar test"
)
# Two runs that differ in these alone are the same recipe, trained twice. Data and checkpoint are
# compared by what run.json says of them: a release names a local folder by its last part only.
SEEDS = ("seed", "data_seed")
NOT_THE_RECIPE = {*SEEDS, *FREE_KEYS, "logging_dir", "dataset", "model"}


@dataclass(frozen=True)
class Scored:
    """A run or release folder, and its answer to every test image, in order."""

    name: str  # the folder as it was given
    folder: Path
    run: dict[str, Any]
    evaluation: dict[str, Any]
    labels: list[str]
    predicted: list[str]

    @property
    def right(self) -> list[bool]:
        return [label == name for label, name in zip(self.labels, self.predicted, strict=True)]


def compare_runs(
    folders: list[str], rounds: int | None = None, batch_size: int | None = None
) -> dict[str, Any]:
    """Compare two or more run or release folders; each with the first.

    Args:
        rounds: how often the speed of each is measured; None leaves speed out.
        batch_size: images at once when speed is measured; None chooses by the device.

    Returns:
        A JSON value: `test`, `runs`, `pairs`, `speed` (null without), `notes`, `method`.

    Raises:
        UserError: not a finished run, files that do not belong together, other test images.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run given: give two or more, the first is compared with")
    scored = [load_scored(folder) for folder in folders]
    for other in scored[1:]:
        check_same_images(scored[0], other)
    first = scored[0].evaluation
    keys = ("dataset", "source", "dataset_revision", "dataset_fingerprint", "split", "n")
    report = {
        "format": 1,
        "test": {key: first.get(key) for key in keys},
        "runs": [describe(each) for each in scored],
        "pairs": [compare_pair(scored[0], other) for other in scored[1:]],
        "speed": None,
        "notes": notes(scored),
        "method": METHOD,
    }
    if rounds is not None:  # last, since it takes time
        from training.throughput import measure_throughput

        models = [(each.name, each.folder) for each in scored]
        report["speed"] = measure_throughput(models, rounds, batch_size)
    return report


# ---- reading --------------------------------------------------------------------------------------


def load_scored(name: str) -> Scored:
    """Read run.json, evaluation.json and predictions.csv, and see that they belong together.

    Raises:
        UserError: a file is missing or says something else than the others.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(f"{name} is not a folder: give a finished run or a release folder")
    run, evaluation = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
    for record, file in ((run, "run.json"), (evaluation, "evaluation.json")):
        if not isinstance(record, dict) or record.get("format") != 1:
            raise UserError(f"{folder / file} is not of this format: release or train it again")
    if not run.get("finished"):
        raise UserError(
            f"{name} is an unfinished run: continue it with --resume_from_checkpoint last"
        )
    rows = read_predictions(folder)
    scored = Scored(
        name.rstrip("/") or name,
        folder,
        run,
        evaluation,
        [row["label"] for row in rows],
        [row["predicted"] for row in rows],
    )
    _check_predictions(scored)
    return scored


def _check_predictions(scored: Scored) -> None:
    n, top1 = fact(scored, "evaluation.n"), fact(scored, "evaluation.metrics.top1")
    cure = "restore both files as the run wrote them, or make the release again"
    if len(scored.labels) != n:
        raise UserError(
            f"{scored.folder / 'predictions.csv'} has {len(scored.labels)} images and evaluation.json "
            f"{n}: {cure}"
        )
    right = sum(scored.right)
    if abs(right - top1 * n) > 0.5:
        raise UserError(
            f"{scored.folder / 'predictions.csv'} has {right} of {n} right and evaluation.json says "
            f"{top1:.4%}: {cure}"
        )


def fact(scored: Scored, key: str) -> Any:
    """`run.model.id` or `evaluation.n`.

    Raises:
        UserError: the file has no such key.
    """
    file, *path = key.split(".")
    value: Any = getattr(scored, file)
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise UserError(
                f"{scored.folder / file}.json has no {'.'.join(path)}: it was written by another version, "
                "or changed; train or release again"
            )
        value = value[part]
    return value


def check_same_images(first: Scored, other: Scored) -> None:
    """Refuse to compare answers to different questions.

    Raises:
        UserError: content, split, number or labels of the test images differ.
    """
    for key in ("split", "n", "dataset_fingerprint"):
        before, after = (fact(each, f"evaluation.{key}") for each in (first, other))
        if before != after:
            raise UserError(
                f"{other.name} was scored on other test images than {first.name} ({key} "
                f"{str(after)[:16]}, not {str(before)[:16]}): train or score both on the same data"
            )
    if first.labels != other.labels:
        where = next(
            i
            for i, pair in enumerate(zip(first.labels, other.labels, strict=True))
            if len({*pair}) > 1
        )
        raise UserError(
            f"{other.name} and {first.name} do not have the same labels in predictions.csv (image "
            f"{where}: {other.labels[where]} and {first.labels[where]}): restore the files as they were"
        )


# ---- what is compared -----------------------------------------------------------------------------


def describe(scored: Scored) -> dict[str, Any]:
    return {
        "name": scored.name,
        "architecture": fact(scored, "run.model.architecture"),
        "image_size": fact(scored, "run.model.image_size"),
        "num_parameters": fact(scored, "run.model.num_parameters"),
        "top1": fact(scored, "evaluation.metrics.top1"),
        "interval": fact(scored, "evaluation.intervals.top1"),
        "n": fact(scored, "evaluation.n"),
        "model_sha256": fact(scored, "evaluation.model_sha256"),
        "pretrained": origin(scored),
        "num_train": fact(scored, "run.data.num_train"),
        "seeds": {key: fact(scored, f"run.training.{key}") for key in SEEDS},
    }


def origin(scored: Scored) -> str | None:
    """The checkpoint that training began from, with what tells it apart; None from scratch."""
    model, revision = fact(scored, "run.model.id"), fact(scored, "run.model.revision")
    # Of a local folder only the last name is known: `model`, often. Older runs do not have the sum.
    content = revision or scored.run["model"].get("sha256") or "content not recorded"
    short = content if " " in content else content[:12]
    return f"{model} ({short})" if model else None


def compare_pair(first: Scored, other: Scored) -> dict[str, Any]:
    """How much better `other` is than `first`; shares, not percent."""
    pairs = list(zip(first.right, other.right, strict=True))
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    only_first, only_other = pairs.count((True, False)), pairs.count((False, True))
    return {
        "name": other.name,
        "against": first.name,
        "difference": (only_other - only_first) / len(pairs),
        "interval": list(paired_interval(both, only_other, only_first, neither)),
        "both_right": both,
        "only_first_right": only_first,
        "only_this_right": only_other,
        "neither_right": neither,
        "mcnemar_p": mcnemar_exact(only_first, only_other),
    }


def notes(scored: list[Scored]) -> list[str]:
    """What else differs between the runs, and what these numbers do not say."""
    first, said = scored[0], _same_weights(scored)
    for other in scored[1:]:
        said += _other_data(first, other)
        if origin(first) != origin(other):
            said.append(
                f"DIFFERENT PRE-TRAINING: {other.name} starts from {origin(other) or 'random weights'}, "
                f"{first.name} from {origin(first) or 'random weights'}"
            )
    said.append(_seed_note(scored))
    if len(scored) > 2:
        said.append(
            f"{len(scored) - 1} comparisons: the p-values and intervals are of each alone, not corrected "
            "for their number"
        )
    return said


def _same_weights(scored: list[Scored]) -> list[str]:
    sums = [fact(each, "evaluation.model_sha256") for each in scored]
    return [
        f"SAME WEIGHTS: {b.name} and {a.name} are one model (SHA-256 {sums[i][:12]})"
        for (i, a), (k, b) in itertools.combinations(enumerate(scored), 2)
        if sums[i] == sums[k]
    ]


def _other_data(first: Scored, other: Scored) -> list[str]:
    named = {
        "data set": "run.data.dataset",
        "revision": "run.data.revision",
        "training images": "run.data.num_train",
        "content": "run.data.train_fingerprint",
    }
    found = []
    for word, key in named.items():
        before, after = (fact(each, key) for each in (first, other))
        if before != after:
            short = [
                str(value)[:12] if word in ("revision", "content") else value
                for value in (after, before)
            ]
            found.append(f"{word} {short[0]}, not {short[1]}")
    if not found:
        return []
    return [f"DIFFERENT TRAINING DATA: {other.name} and {first.name} ({'; '.join(found)})"]


def _seed_note(scored: list[Scored]) -> str:
    """How many runs there are of each recipe; only several tell how far a seed moves the result."""
    runs: dict[str, set[str]] = {}
    for each in scored:
        runs.setdefault(_recipe(each), set()).add(str(fact(each, "evaluation.model_sha256")))
    most = max(len(weights) for weights in runs.values())
    if most == 1:
        return (
            "ONE RUN OF EACH RECIPE: the intervals say how far other test images would move the numbers, "
            "not how far another seed would; repeat with --seed before a small difference is believed"
        )
    return (
        f"{len(runs)} recipe{'s' * (len(runs) > 1)}, up to {most} runs of one: the spread between runs of "
        "one recipe is the noise of the seed, which no interval here contains"
    )


def _recipe(scored: Scored) -> str:
    recipe = fact(scored, "run.recipe")
    kept = {key: value for key, value in recipe.items() if key not in NOT_THE_RECIPE}
    data = [fact(scored, f"run.data.{key}") for key in ("dataset", "train_fingerprint")]
    return repr((sorted(kept.items()), data, origin(scored)))


# ---- as text ---------------------------------------------------------------------------------------


def render(report: dict[str, Any]) -> str:
    """The report as tables of text."""
    test, speed = report["test"], report["speed"]
    lines = [
        f"test images: {test['dataset']} {test['split']}, n = {test['n']:,}, "
        f"content {test['dataset_fingerprint'][:12]}",
        "",
    ]
    head = ["run", "top-1", "95 % interval", "n", "parameters", "pixels", "network"]
    rows = [_run_row(row) for row in report["runs"]]
    if speed:
        head += ["images/s", "times the first (smallest to largest round)"]
        measured = zip(speed["images_per_second"], speed["times_the_first"], strict=True)
        rows = [
            [
                *row,
                f"{rate['median']:,.1f}",
                "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio),
            ]
            for row, (rate, ratio) in zip(rows, measured, strict=True)
        ]
    lines += table(head, rows)
    against = report["runs"][0]["name"]
    head = ["difference to the first", "points", "95 % interval", "only first right"]
    head += ["only this right", "exact McNemar p"]
    lines += [
        "",
        f"first: {against}",
        *table(head, [_pair_row(row) for row in report["pairs"]]),
        "",
    ]
    if speed:
        lines.append(
            "speed: forward pass with normalisation of random uint8 pixels, {precision}, {device}, "
            "{threads} threads, batch {batch_size}, medians of {rounds} rounds in turn; no decoding".format(
                **speed
            )
        )
    return "\n".join([*lines, report["method"], *(f"! {note}" for note in report["notes"])])


def _run_row(row: dict[str, Any]) -> list[str]:
    low, high = row["interval"]
    return [
        row["name"],
        f"{row['top1']:.2%}",
        f"{100 * low:.2f} to {high:.2%}",
        f"{row['n']:,}",
        f"{row['num_parameters']:,}",
        f"{row['image_size']}",
        row["architecture"].split("ForImageClassification")[0],
    ]


def _pair_row(row: dict[str, Any]) -> list[str]:
    low, high = (100 * bound for bound in row["interval"])
    p = row["mcnemar_p"]
    return [
        row["name"],
        f"{100 * row['difference']:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        f"{row['only_first_right']:,}",
        f"{row['only_this_right']:,}",
        "below 0.0001" if p < 1e-4 else f"{p:.4f}",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell; the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *rows)
    ]
