# SPDX-License-Identifier: Apache-2.0
"""The facts of the card: every gap is named, and what cannot be true is refused."""

import json
import math

import pytest

from model_card.facts import CardFacts, FactError, MissingFactError
from tests.unit.card_files import facts_of, files, format_1

UNUSED = {
    ("run", "recipe", "learning_rate"), ("evaluation", "dataset"), ("evaluation", "seconds"),
    ("evaluation", "images_per_second"), ("run", "training", "augmentation", "crop_scale"),
    ("run", "training", "augmentation", "horizontal_flip"), ("evaluation", "cut"),
    ("evaluation", "abstention", "risk_coverage"),
}  # fmt: skip


def paths(node, path=()):
    """Every path to a leaf, ("run", "seconds", "data") or ("evaluation", "per_class", 0, "n")."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        yield from paths(node[0], (*path, 0))
    else:
        yield path


NEEDED = [p for p in paths(files()) if p not in UNUSED and p[-1] != "f1"]


def at(both, path):
    for key in path:
        both = both[key]
    return both


@pytest.mark.parametrize("path", NEEDED, ids=lambda path: ".".join(map(str, path)))
def test_a_gap_is_named(path):
    both = files()
    del at(both, path[:-1])[path[-1]]
    with pytest.raises(MissingFactError) as error:
        facts_of(both)
    key = ".".join(map(str, path[1:])).replace(".0.", "[0].")
    assert str(error.value).startswith(f"{path[0]}.json has no {key}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path, value", [
    (("run", "data", "source"), "web"), (("run", "data", "num_test"), 25249),
    (("run", "data", "num_train"), 1.5), (("run", "data", "label_names"), ["a", "b"]),
    (("run", "selection", "top1"), 86.2), (("run", "format"), 2), (("run", "command"), " "),
    (("evaluation", "metrics", "top1", "value"), math.nan), (("evaluation", "world_size"), 0),
    (("evaluation", "metrics", "nll", "value"), math.inf),
    (("evaluation", "metrics", "top1", "interval"), [0.9, 0.8]),
    (("evaluation", "dataset_fingerprint"), "cd34" * 16), (("evaluation", "split"), "train"),
    (("evaluation", "dataset_revision"), "main"), (("evaluation", "model_sha256"), "AB"),
    (("evaluation", "per_class", 0, "n"), 3), (("evaluation", "per_class", 0, "recall"), None),
    (("evaluation", "per_class", 0, "precision"), math.nan),
])  # fmt: skip
def test_what_cannot_be_true_is_refused(path, value):
    both = files()
    at(both, path[:-1])[path[-1]] = value
    with pytest.raises(FactError, match=r"^(run|evaluation)\.json[^\n]*$"):
        facts_of(both)


def test_absent_and_broken_files_are_refused(tmp_path):
    with pytest.raises(MissingFactError, match=r"run\.json does not exist: train again"):
        CardFacts.from_folder(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FactError, match="is not JSON"):
        CardFacts.from_folder(tmp_path)


def test_both_ways_of_reading_give_the_same_facts(tmp_path):
    for stem, content in files().items():
        (tmp_path / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    assert CardFacts.from_folder(tmp_path) == facts_of(files())


def test_only_format_2_is_known_here():
    both = files() | {"evaluation": format_1()}
    with pytest.raises(FactError, match="evaluation.json: format is 1, not one of 2"):
        facts_of(both)


def test_metrics_come_in_the_order_of_the_file_whatever_they_are():
    both = files()
    metrics = both["evaluation"]["metrics"]
    brier = {**metrics["nll"], "name": "Brier score", "value": 1.5, "interval": [1.25, 1.75]}
    both["evaluation"]["metrics"] = {"brier": brier, "top1": metrics["top1"]}
    facts = facts_of(both)
    assert [metric.key for metric in facts.metrics] == ["brier", "top1"]
    assert facts.metric("brier").interval == (1.25, 1.75) and not facts.metric("brier").is_share
    assert facts.metric("top1").value == 0.896436 and facts.metric("top1").is_share
    assert facts.metric("ece") is None


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("top1", {"interval": None}, "has no metrics.top1.interval: run `food101 evaluate`"),
        ("top1", {"value": 0.95}, "metrics.top1.value lies outside its interval"),
        ("top5", {"value": 0.99}, "metrics.top5.value lies outside its interval"),
        ("ece", {"value": 1.5}, "not an object with shares from 0 to 1 in .ece"),
        ("top5", {"interval": [0.9, 1.5]}, "not an object with shares from 0 to 1 in .top5"),
        (
            "top5",
            {"interval": [0.9, 0.8]},
            "not an object with a pair [low, high] in .top5.interval",
        ),
        ("nll", {"value": -1.0}, "not an object with a finite number, 0 or more in .nll.value"),
        ("nll", {"unit": ""}, "not an object with a text with something in it in .nll.unit"),
        ("f1", 0.9, "not an object of objects"),  # as format 1 had them
    ],
)
def test_a_metric_that_cannot_be_is_named(key, values, said):
    both = files()
    metrics = both["evaluation"]["metrics"]
    metrics[key] = metrics[key] | values if isinstance(values, dict) else values
    with pytest.raises(FactError) as error:
        facts_of(both)
    assert said in str(error.value) and str(error.value).startswith("evaluation.json")


def test_there_is_no_card_without_a_headline():
    both = files()
    del both["evaluation"]["metrics"]["top1"]
    with pytest.raises(MissingFactError, match="evaluation.json has no metrics.top1: run"):
        facts_of(both)
