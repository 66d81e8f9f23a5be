"""Finished runs beside each other, on the same test images: what `food101 compare` answers.

Accuracy is compared image by image: two models that see the same photographs mostly fail on the
same ones, and what tells them apart are the images that only one gets right. torch is not
imported here: how fast the models are is measured apart, in `speed`.
"""

from __future__ import annotations

import itertools
from typing import Any

from training.common.errors import UserError
from training.compare.scored import ScoredRun, check_same_images, fact, load_scored
from training.config.keys import FREE_KEYS, default_values
from training.evaluation.intervals import mcnemar_exact, paired_interval

METHOD = (
    "Wilson score intervals of top-1; differences by Newcombe's method 10 for paired proportions "
    "(Statistics in Medicine 17, 1998, 2635-2650); exact two-sided McNemar test"
)

# Two runs that differ in these alone are the same recipe, trained twice. Data and checkpoint are
# compared by what run.json says of them: a release names a local folder by its last part only.
SEEDS = ("seed", "data_seed")

NOT_THE_RECIPE = {*SEEDS, *FREE_KEYS, "logging_dir", "dataset", "model"}


def compare_runs(folders: list[str]) -> dict[str, Any]:
    """Compare two or more run or release folders; each with the first.

    Returns:
        A JSON value with the keys format, test (which images), runs (see `describe`), pairs (see
        `compare_pair`), speed (None, for the caller to set to what `measure_throughput` returns),
        notes (sentences) and method.

    Raises:
        UserError: fewer than two folders, not a finished run, files that do not belong together, or
            other test images.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run given: give two or more, the first is compared with")
    scored = [load_scored(folder) for folder in folders]
    for other in scored[1:]:
        check_same_images(scored[0], other)
    first = scored[0].evaluation
    keys = ("dataset", "source", "dataset_revision", "dataset_fingerprint", "split", "n")
    return {
        "format": 1,
        "test": {key: first.get(key) for key in keys},
        "runs": [describe(each) for each in scored],
        "pairs": [compare_pair(scored[0], other) for other in scored[1:]],
        "speed": None,
        "notes": notes(scored),
        "method": METHOD,
    }


# ---- what is compared -----------------------------------------------------------------------------


def describe(scored: ScoredRun) -> dict[str, Any]:
    """Return a run's facts for the comparison: architecture, size, top-1, pretraining, seeds.

    Keys: name, architecture, image_size, num_parameters, top1 and its interval, n, model_sha256,
    pretrained (see `origin`), num_train, seeds.
    """
    return {
        "name": scored.name,
        "architecture": fact(scored, "run.model.architecture"),
        "image_size": fact(scored, "run.model.image_size"),
        "num_parameters": fact(scored, "run.model.num_parameters"),
        "top1": fact(scored, "evaluation.metrics.top1.value"),
        "interval": fact(scored, "evaluation.metrics.top1.interval"),
        "n": fact(scored, "evaluation.n"),
        "model_sha256": fact(scored, "evaluation.model_sha256"),
        "pretrained": origin(scored),
        "num_train": fact(scored, "run.data.num_train"),
        "seeds": {key: fact(scored, f"run.training.{key}") for key in SEEDS},
    }


def origin(scored: ScoredRun) -> str | None:
    """Name the checkpoint that training began from; None: it began from scratch.

    "google/vit-base-patch16-224-in21k (b4569560a39a)": with its revision or content, cut to 12 digits.
    """
    model, revision = fact(scored, "run.model.id"), fact(scored, "run.model.revision")
    # Of a local folder only the last name is known, often `model`. Older runs lack the SHA-256.
    content = revision or scored.run["model"].get("sha256") or "content not recorded"
    short = content if " " in content else content[:12]
    return f"{model} ({short})" if model else None


def compare_pair(first: ScoredRun, other: ScoredRun) -> dict[str, Any]:
    """Compare the answers of `other` with those of `first`, image by image.

    Keys: name (of `other`), against (name of `first`), difference of top-1 (positive: `other` is
    better) and its interval, counts both_right, only_first_right, only_this_right, neither_right, and
    mcnemar_p. Shares from 0 to 1, not percent.
    """
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


def notes(scored: list[ScoredRun]) -> list[str]:
    """Write sentences on what else differs between the runs, and what these numbers do not say."""
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


def _same_weights(scored: list[ScoredRun]) -> list[str]:
    """Write a sentence for each pair of runs that are one model."""
    sums = [fact(each, "evaluation.model_sha256") for each in scored]
    return [
        f"SAME WEIGHTS: {b.name} and {a.name} are one model (SHA-256 {sums[i][:12]})"
        for (i, a), (k, b) in itertools.combinations(enumerate(scored), 2)
        if sums[i] == sums[k]
    ]


def _other_data(first: ScoredRun, other: ScoredRun) -> list[str]:
    """Write a sentence on the training data, or none where they are the same."""
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


def _seed_note(scored: list[ScoredRun]) -> str:
    """Write how many runs there are of each recipe: only several tell how far a seed moves top-1."""
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


def _recipe(scored: ScoredRun) -> str:
    """Make a text that is the same for two runs of one recipe and one data set, whatever the seed."""
    # An older record lacks the keys that came later; such a run went as with their defaults.
    recipe = default_values() | fact(scored, "run.recipe")
    kept = {key: _plain(value) for key, value in recipe.items() if key not in NOT_THE_RECIPE}
    data = [fact(scored, f"run.data.{key}") for key in ("dataset", "train_fingerprint")]
    return repr((sorted(kept.items()), data, origin(scored)))


def _plain(value: Any) -> Any:
    """Write numbers as floats, inside lists and mappings too: 0 and 0.0 are one value of a key."""
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
