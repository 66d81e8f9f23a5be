# SPDX-License-Identifier: Apache-2.0
"""How far a map of what an answer rests on can be trusted: twelve ways to make one, on one network.

    python benchmarks/explain.py RUN --dataset ../shared/food10       # measures what is missing, records
    python benchmarks/explain.py --table --write docs/explain.md      # prints what is recorded

Photographs that the run trained on, selected by or was scored on are left out, by content and by name.
Each method is measured by four things (`explain_measures`):

    dropping    the true dish's probability without the best patches and with them alone; their tokens
                are left out, nothing grey is put there; over photographs that are answered rightly
    two dishes  middle halves of two photographs beside each other, where the network's best two
                answers are the two dishes: does the map of a dish lie on its half
    random      rank correlation with the map of the same network with a random head, and with random
                last blocks too: near 1, the map does not show what the network has learnt
    cost        time over that of the network's own forward pass, one image, one thread

Patches are ordered by a method's signed scores; the other measures take the map as it is drawn, with what
speaks against the dish left out. A finished method is recorded at once.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explain_measures import (
    BLOCKS,
    DROPPED,
    KEPT,
    PASSES,
    REPEATS,
    ROUNDS,
    WEIGHTS,
    Pairs,
    cost,
    insertion_deletion,
    interval,
    maps,
    pointing,
    randomisation,
    two_dishes,
)
from explain_methods import DISCARDED, METHODS, SPREAD, Subject
from machine import environment, one_core
from pages import Marks, UsageError
from training_runs import ROOT, change
from witness import labelled

from inference.food_explain import grid_of
from inference.food_images import Preprocessing, decode_image
from training.common.files import read_json
from training.model.network import label_names_of, load_network

MARKS = Marks.of("explain.py")
RESULTS = ROOT / "benchmarks" / "results" / "explain.json"
OURS = "AttnLRP, odds"  # what `classify(image, explain=True)` draws
SPLIT = "validation"
RANDOMISED = 20  # photographs of the test with random weights
FEWEST = 40  # rightly answered photographs, or pictures of two dishes, that a table is made of


# ---- photographs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photographs:
    """What a network is asked about, as it takes it."""

    pixel_values: torch.Tensor
    labels: torch.Tensor
    found: int
    left_out: dict[str, int]  # cause -> how many


def unseen(paths: list[tuple[Path, str]], used: Path) -> tuple[list, dict[str, int]]:
    """Leave out photographs that a run has used, whether as these files or in another size.

    Args:
        paths: photographs with their labels.
        used: the run's images.csv.

    Returns:
        The others, and how many were left out by which cause.
    """
    with open(used, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    contents = {row["sha256"] for row in rows}
    names = {(row["label"], Path(row["path"]).stem) for row in rows}
    left, causes = [], {"content": 0, "name": 0}
    for path, label in paths:
        if hashlib.sha256(path.read_bytes()).hexdigest() in contents:
            causes["content"] += 1
        elif (label, path.stem) in names:
            causes["name"] += 1
        else:
            left.append((path, label))
    return left, causes


def photographs_of(
    dataset: Path, used: Path, label_names: list[str], preprocessing: Preprocessing
) -> Photographs:
    """Decode the photographs of a data set's held-out part that the run has not used.

    Raises:
        UsageError: there are none, or they have labels that the network does not know.
    """
    paths = labelled(dataset / SPLIT)
    if strange := sorted({label for _, label in paths} - set(label_names)):
        raise UsageError(f"the network does not know {', '.join(strange[:3])}: give its own dishes")
    left, causes = unseen(paths, used)
    if not left:
        raise UsageError(f"{dataset.name}/{SPLIT} has no photograph that the run has not used")
    pixels = torch.stack([preprocessing.crop(decode_image(path.read_bytes())) for path, _ in left])
    labels = torch.tensor([label_names.index(label) for _, label in left])
    return Photographs(preprocessing.normalize(pixels), labels, len(paths), causes)


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Questions:
    """One network with what it is asked; every method is measured on the same."""

    subject: Subject
    right: Photographs  # those that are answered rightly, in a seeded order
    pairs: Pairs
    facts: dict[str, Any]  # what a reader must know, and what two recorded methods must share

    def measure(self, name: str) -> dict[str, Any]:
        """Measure one method."""
        method, by_label = METHODS[name]
        subject, pixel_values, labels = self.subject, self.right.pixel_values, self.right.labels
        scores = maps(method, subject, pixel_values, labels)
        few = pixel_values[:RANDOMISED], labels[:RANDOMISED]
        with one_core():
            took = cost(method, subject, pixel_values, labels)
        return {
            "by_label": by_label,
            "dropping": insertion_deletion(scores, subject, pixel_values, labels),
            "pointing": pointing(method, subject, self.pairs),
            "random": randomisation(method, subject, *few),
            "cost": took,
            "environment": environment(),
        }


def questions_of(model: Path, dataset: Path) -> Questions:
    """Load a network and prepare what every method is asked.

    Args:
        model: a run, or the model's folder in it.

    Raises:
        UsageError: it is no finished run, or the photographs are too few.
    """
    run = model if (model / "run.json").is_file() else model.resolve().parent
    if not (run / "run.json").is_file() or not (run / "images.csv").is_file():
        raise UsageError(f"{model} is in no finished run: nothing says what it was trained on")
    network = load_network(run / "model")
    subject = Subject.of(network.model)
    its = photographs_of(
        dataset, run / "images.csv", label_names_of(network.model.config), network.preprocessing
    )
    chances = torch.cat([subject.logits(each) for each in its.pixel_values.split(64)]).softmax(-1)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(its.labels)))
    order = order[(chances.argmax(1) == its.labels)[order]]
    right = Photographs(its.pixel_values[order], its.labels[order], its.found, its.left_out)
    if len(right.labels) < FEWEST or len(its.labels.unique()) < 2:
        raise UsageError(
            f"{len(right.labels)} photographs are answered rightly, {FEWEST} of two dishes or more are "
            "needed: give more photographs"
        )
    pairs = two_dishes(subject, its.pixel_values, its.labels)
    if len(pairs.labels) < FEWEST:
        raise UsageError(
            f"the network sees both dishes in {len(pairs.labels)} pictures of two, {FEWEST} are needed: "
            "give more photographs"
        )
    facts = {
        "network": facts_of(run, subject, its),
        "photographs": {
            "dataset": dataset.name,
            "split": SPLIT,
            "found": its.found,
            "left_out": its.left_out,
            "right": len(right.labels),
            "probability": float(chances[order].gather(1, right.labels[:, None]).mean()),
            "pictures": len(pairs.labels),
            "pictures_tried": pairs.tried,
            "randomised": RANDOMISED,
        },
        "protocol": {
            "dropped": list(DROPPED),
            "kept": list(KEPT),
            "passes": PASSES,
            "blocks": BLOCKS,
            "weights": WEIGHTS,
            "rounds": ROUNDS,
            "repeats": REPEATS,
            "discarded": DISCARDED,
            "spread": SPREAD,
        },
    }
    return Questions(subject, right, pairs, facts)


def facts_of(run: Path, subject: Subject, its: Photographs) -> dict[str, Any]:
    """Say which network it is and what it has learnt from."""
    record = read_json(run / "run.json")
    weights = (run / "model" / "model.safetensors").read_bytes()
    return {
        "name": run.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "architecture": record["model"]["architecture"],
        "parameters": record["model"]["num_parameters"],
        "started_from": record["model"]["id"],
        "tune": record["training"]["tune"],
        "train_images": record["data"]["num_train"],
        "selection_images": record["data"]["num_selection"],
        "dishes": len(record["data"]["label_names"]),
        "image_size": record["model"]["image_size"],
        "grid": list(grid_of(subject.parts, its.pixel_values)),
    }


def add(content: dict[str, Any], facts: dict[str, Any], name: str, row: dict[str, Any]) -> dict:
    """Put a method's row into what is recorded.

    Raises:
        UsageError: what is recorded was measured on something else.
    """
    if content and {key: content[key] for key in facts} != facts:
        raise UsageError(
            "what is recorded is of another network, other photographs or another protocol: "
            "give another file with --json, or delete it"
        )
    return {**facts, "methods": {**content.get("methods", {}), name: row}}


# ---- the table -----------------------------------------------------------------------------------


def page_part(content: dict[str, Any]) -> str:
    """Print what is recorded in Markdown, best insertion minus deletion first."""
    network, photographs = content["network"], content["photographs"]
    rows = sorted(content["methods"].items(), key=lambda item: -item[1]["dropping"]["difference"])
    asking = {name: row for name, row in rows if row["by_label"]}
    rank, ours = [name for name, _ in rows].index(OURS) + 1, content["methods"][OURS]
    left_out = sum(photographs["left_out"].values())
    lines = [
        f"Network `{network['name']}`: {network['architecture']}, {network['parameters'] / 1e6:.1f} million "
        f"parameters, started from `{network['started_from']}`, {network['tune']} on "
        f"{network['train_images']} photographs of {network['dishes']} dishes, {network['selection_images']} "
        f"more to select; {network['image_size']} px, {network['grid'][0]} x {network['grid'][1]} patches. "
        f"Asked about {photographs['dataset']}/{photographs['split']}: {photographs['found']} photographs, "
        f"{left_out} of them left out because the run had used them; {photographs['right']} are answered "
        f"rightly, the right dish's mean probability {photographs['probability']:.2f}. Two dishes: "
        f"{photographs['pictures']} of {photographs['pictures_tried']} pictures, "
        f"{2 * photographs['pictures']} questions. Random weights: {photographs['randomised']} photographs, "
        f"{content['protocol']['weights']} seeds.",
        "",
        f"{OURS}, which is what `explain=True` draws, is number {rank} of {len(rows)} by insertion minus "
        f"deletion. Best: {best(asking, 'dropping', 'difference')} by insertion minus deletion, "
        f"{best(asking, 'pointing', 'side')} by side, {best(asking, 'pointing', 'shift')} by shift.",
        "",
        "| method | asks for a dish | drop 20 / 50 % | keep 10 / 25 % | ins - del (95 %) | against ours (95 %) "
        "| side | shift | random head | + 3 blocks | cost |",
        f"| --- |{' --- |' * 10}",
    ]
    for name, row in rows:
        dropping, pointed = row["dropping"], row["pointing"]
        behind = np.subtract(dropping["each"], ours["dropping"]["each"]).tolist()
        cells = [
            f"**{name}**" if name == OURS else name,
            "yes" if row["by_label"] else "no",
            " / ".join(f"{dropping['dropped'][f'{share:g}']:.2f}" for share in DROPPED),
            " / ".join(f"{dropping['kept'][f'{share:g}']:.2f}" for share in KEPT),
            ranged(dropping["difference"], dropping["interval"]),
            "" if name == OURS else ranged(float(np.mean(behind)), interval(behind)),
            f"{pointed['side']:.2f} ± {pointed['side_error']:.2f}",
            f"{pointed['shift']:+.2f} ± {pointed['shift_error']:.2f}",
            f"{row['random']['head']:.2f}",
            f"{row['random']['blocks']:.2f}",
            f"{row['cost']['ratio']:.1f} ({row['cost']['smallest']:.1f} to {row['cost']['largest']:.1f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def best(rows: dict[str, dict[str, Any]], part: str, key: str) -> str:
    """Name the methods with the largest value, to the two digits that are printed."""
    values = {name: round(row[part][key], 2) for name, row in rows.items()}
    top = max(values.values())
    return " and ".join(f"{name} ({top:.2f})" for name, value in values.items() if value == top)


def ranged(value: float, bounds: list[float]) -> str:
    return f"{value:+.2f} ({bounds[0]:+.2f} to {bounds[1]:+.2f})"


# ---- the command ---------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "model", nargs="?", type=Path, metavar="RUN", help="a finished run, or its model/"
    )
    p.add_argument("--dataset", metavar="DIR", type=Path, help=f"with {SPLIT}/")
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--table", action="store_true", help="print the table and measure nothing")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the table into that page")
    args = p.parse_args(argv)
    if not args.table and not (args.model and args.dataset):
        p.error("give a run and --dataset; or --table")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return MARKS.publish(lambda: run(args), args.write)


def run(args: argparse.Namespace) -> str:
    """Measure what is not recorded, record it, and return the table."""
    if not args.table:
        questions = questions_of(args.model, args.dataset)
        done = recorded(args.json).get("methods", {})
        for name in (name for name in METHODS if name not in done):
            row = questions.measure(name)
            change(
                args.json,
                lambda content, name=name, row=row: add(content, questions.facts, name, row),
            )
            print(f"{name}: recorded", flush=True)
    content = recorded(args.json)
    if OURS not in content.get("methods", {}):
        raise UsageError(f"nothing is recorded in {args.json.name}: give a run and --dataset")
    return page_part(content)


def recorded(results: Path) -> dict[str, Any]:
    """Read what is recorded; {} of no file."""
    return read_json(results) if results.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
