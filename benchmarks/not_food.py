# SPDX-License-Identifier: Apache-2.0
"""Which score tells pictures without food: eight of them, on a linear probe and on fine-tuned networks.

    python benchmarks/not_food.py --backbone ../shared/vit-small --dataset ../shared/food10-256
    python benchmarks/not_food.py --table --write docs/not_food.md    # prints what is recorded

A network is fine-tuned without two of the dishes, for some pairs (`not_food_networks`); `--model RUN`
adds finished runs, whose unknown dishes are those of `--dataset` that they were not trained on. The
probe is logistic regression on the untouched backbone's features; for each of its pairs head and
statistics are fitted again without the two. Each score is fitted on training features, its threshold
keeps 95 % of the selection images, and is measured on

    drawn       pictures that `no_food` draws, so many of each kind; against the test images
    near        test images of the unknown dishes; against the test images of the others
    right       wrong answers against right ones, of the test images of known dishes

A finished network is recorded at once; features are kept with the project's other caches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from machine import environment
from no_food import KINDS, draw
from not_food_networks import FINETUNE, finetuned_without, pairs_of
from not_food_scores import Fitted, auroc, passed, scores
from pages import Marks, UsageError
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from training_runs import ROOT, record, recorded

from training.common.files import read_json
from training.data.arguments import DataArguments
from training.data.loading import load_split, load_splits
from training.data.splits import Split
from training.evaluation.features import image_features
from training.model.arguments import ModelArguments
from training.model.create import build_network
from training.model.head import head_of
from training.model.network import Network, label_names_of, load_network

MARKS = Marks.of("not_food.py")
RESULTS = ROOT / "benchmarks" / "results" / "not_food.json"
CACHE_GB = 16.0
SHRINKAGES = ("oas", "ledoit_wolf", "none")
STRENGTH = 0.01  # C of the probe's logistic regression on standardised features


class Measured:
    """Features of one network: training, selection and test images, and the drawn pictures."""

    def __init__(self, network: Network, parts: dict[str, Split], drawn: Split, test: Split):
        self.labels = {name: names_of(split) for name, split in {**parts, "test": test}.items()}
        self.features = {
            name: image_features(network, split, CACHE_GB, 0).double().numpy()
            for name, split in {**parts, "test": test, "drawn": drawn}.items()
        }
        self.kinds = names_of(drawn)

    def rows(
        self, known: list[str], head: tuple[np.ndarray, np.ndarray] | None, shrinkage: str
    ) -> dict[str, dict[str, float]]:
        """Fit all scores on the known dishes and measure them: score -> {"plates": AUROC, ...}.

        Args:
            head: weight and bias; None fits a logistic regression.
        """
        inside = {name: np.isin(each, known) for name, each in self.labels.items()}
        features = {name: self.features[name][inside[name]] for name in inside}
        labels = {name: np.searchsorted(known, self.labels[name][inside[name]]) for name in inside}
        if head is None:
            head = probe(features["train"], labels["train"])
        fitted = Fitted(features["train"], labels["train"], *head)
        logits = {name: fitted.logits(each) for name, each in features.items()}
        right = logits["test"].argmax(1) == labels["test"]
        unknown = self.features["test"][~inside["test"]]
        strange = {kind: self.features["drawn"][self.kinds == kind] for kind in KINDS}
        strange |= {"drawn": self.features["drawn"], **({"near": unknown} if len(unknown) else {})}
        found = {}
        for name, score in scores(fitted, shrinkage).items():
            food, held = (score(features[part], logits[part]) for part in ("test", "selection"))
            row = {"food refused": 1 - passed(held, food)}
            for kind, each in strange.items():
                values = score(each, fitted.logits(each))
                row |= {kind: auroc(food, values), f"{kind}, passed": passed(held, values)}
            found[name] = {**row, "wrong": auroc(food[right], food[~right])}
        found["max probability"]["top1"] = float(right.mean())
        return found

    def counts(self, known: list[str]) -> dict[str, int]:
        """How many images of each part are of known dishes, of unknown ones, and drawn."""
        inside = {name: int(np.isin(each, known).sum()) for name, each in self.labels.items()}
        near = len(self.labels["test"]) - inside["test"]
        return {**inside, "near": near, "drawn": len(self.kinds)}


def probe(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit logistic regression on standardised features; weight and bias for the features as they are."""
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(scaler.transform(features), labels)
    weight = fitted.coef_ / scaler.scale_
    return weight, fitted.intercept_ - weight @ scaler.mean_


def names_of(split: Split) -> np.ndarray:
    return np.array([split.label_names[label] for label in split.dataset["label"][:]])


def drawn_pictures(count: int, folder: Path) -> Split:
    """Draw `count` pictures of each kind as PNG files, or find them drawn."""
    target = folder / f"drawn-{count}"
    for kind in KINDS:
        (target / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = target / kind / f"{number:03}.png"
            if not path.is_file():
                Image.fromarray(draw(kind, number)).save(path)
    return load_split(DataArguments(dataset=str(target)), "train")[1]


def networks(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and measurement of each network that is not recorded yet."""
    done = {row["network"] for row in recorded(args.json)}
    drawn = drawn_pictures(args.drawn, args.work)
    _, test = load_split(DataArguments(dataset=str(args.dataset)), "validation")
    dishes = sorted(test.label_names)
    if args.backbone and "probe" not in done:
        yield "probe", measure_probe(args, drawn, test, dishes)
    if args.backbone:
        for pair in pairs_of(dishes, args.trained_pairs):
            if f"finetune-{'+'.join(pair)}" not in done:
                run = finetuned_without(args.backbone, args.dataset, pair, args.work, args.threads)
                yield run.name, measure_run(run, args.dataset, drawn, test)
    for run in map(Path, args.model):
        if run.name not in done:
            yield run.name, measure_run(run, args.dataset, drawn, test)


def measure_probe(
    args: argparse.Namespace, drawn: Split, test: Split, dishes: list[str]
) -> dict[str, Any]:
    splits = load_splits(DataArguments(dataset=str(args.dataset)), quiet=True)
    model = ModelArguments(model=str(args.backbone), image_size=FINETUNE["image_size"])
    network = build_network(model, splits.label_names, seed=0)
    parts = {"train": splits.originals, "selection": splits.selection}
    measured = Measured(network, parts, drawn, test)
    pairs = pairs_of(dishes, args.pairs)
    known = [[each for each in dishes if each not in pair] for pair in pairs]
    return {
        "kind": "probe",
        "n": measured.counts(dishes),
        "scores": measured.rows(dishes, None, "oas"),
        "shrinkage": {each: measured.rows(dishes, None, each) for each in SHRINKAGES[1:]},
        "pairs": [
            {"dishes": pair, "scores": measured.rows(its, None, "oas")}
            for pair, its in zip(pairs, known, strict=True)
        ],
    }


def measure_run(run: Path, dataset: Path, drawn: Split, test: Split) -> dict[str, Any]:
    """Measure a finished run on its own split of its own data, and on the dishes that it lacks.

    Args:
        dataset: where its data are, if they are no longer where it found them.

    Raises:
        UsageError: the data there have other dishes.
    """
    recipe = read_json(run / "run.json")["recipe"]
    own = Path(recipe["dataset"])
    dataset = own if own.is_dir() else dataset
    keys = ("selection_split", "test_split", "selection_fraction", "split_seed")
    splits = load_splits(
        DataArguments(dataset=str(dataset), **{key: recipe[key] for key in keys}), quiet=True
    )
    network = load_network(run / "model")
    if splits.label_names != label_names_of(network.model.config):
        raise UsageError(f"{dataset.name} has other dishes than {run.name}: give its own --dataset")
    parts = {"train": splits.originals, "selection": splits.selection}
    measured = Measured(network, parts, drawn, test)
    layer = head_of(network.model)
    head = (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
    known = sorted(splits.label_names)
    order = [splits.label_names.index(each) for each in known]
    head = (head[0][order], head[1][order])
    return {
        "kind": "fine-tuned",
        "n": measured.counts(known),
        "steps": read_json(run / "run.json")["training"]["steps"],
        "scores": measured.rows(known, head, "oas"),
        "shrinkage": {each: measured.rows(known, head, each) for each in SHRINKAGES[1:]},
    }


# ---- the table ---------------------------------------------------------------------------------


def page_part(rows: list[dict[str, Any]]) -> str:
    """The tables of the probe and of the fine-tuned networks, then shrinkage."""
    parts = [
        table([row for row in rows if row["kind"] == kind])
        for kind in ("fine-tuned", "probe")
        if any(row["kind"] == kind for row in rows)
    ]
    return "\n\n".join([*parts, shrinkage_table(rows)])


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: AUROC, and in brackets the share that passes as food; means over networks."""
    n, first = rows[0]["n"], rows[0]
    near = [pair["scores"] for row in rows for pair in row.get("pairs", [])]
    near += [row["scores"] for row in rows if "near" in row["scores"]["max probability"]]
    top1 = mean(row["scores"]["max probability"]["top1"] for row in rows)
    each_kind = n["drawn"] // len(KINDS)
    if first["kind"] == "probe":
        what = f"**Linear probe** of all dishes; near: {len(near)} pairs held out"
    else:
        what = f"**Fine-tuned** for {first['steps']} steps, {len(rows)} networks, each without two dishes"
    lines = [
        f"{what}. Fitted on {n['train']:,} training images, threshold from {n['selection']} selection "
        f"images, against {n['test']} test images of food; right in {top1:.1%}. {each_kind} drawn "
        f"pictures of each kind. AUROC (share that passes as food where 95 % of food is kept).",
        "",
        f"| score | {' | '.join(KINDS)} | all drawn | unknown dish (range) | wrong answers | food refused |",
        f"| --- |{' --- |' * (len(KINDS) + 4)}",
    ]
    for name in first["scores"]:
        its = [row["scores"][name] for row in rows]
        cells = [f"{mean(r[k] for r in its):.3f}" for k in KINDS]
        passing = mean(r["drawn, passed"] for r in its)
        cells.append(f"{mean(r['drawn'] for r in its):.3f} ({passing:.0%})")
        values = [each[name]["near"] for each in near]
        passing = mean(each[name]["near, passed"] for each in near) if near else 0
        cells.append(
            f"{mean(values):.3f} ({min(values):.2f} to {max(values):.2f}; {passing:.0%})"
            if near
            else ""
        )
        cells.append(f"{mean(r['wrong'] for r in its):.3f}")
        cells.append(f"{mean(r['food refused'] for r in its):.1%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shrinkage_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: Mahalanobis with the covariance shrunk in several ways, all drawn pictures."""
    lines = [
        "Mahalanobis by how its covariance is shrunk: all drawn pictures, AUROC.",
        "",
        f"| network | n | {' | '.join(SHRINKAGES)} |",
        f"| --- | --- |{' --- |' * len(SHRINKAGES)}",
    ]
    for row in rows:
        ways = {"oas": row["scores"], **row["shrinkage"]}
        cells = [f"{ways[each]['Mahalanobis']['drawn']:.4f}" for each in SHRINKAGES]
        lines.append(f"| {row['network']} | {row['n']['train']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ---- the command -------------------------------------------------------------------------------


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--dataset", metavar="DIR", type=Path, help="with train/ and validation/")
    p.add_argument("--backbone", metavar="DIR", type=Path, help="what is probed and fine-tuned")
    p.add_argument("--model", metavar="RUN", nargs="+", default=[], help="finished runs")
    p.add_argument("--pairs", type=int, default=15, help="of dishes, for the probe")
    p.add_argument("--trained_pairs", type=int, default=3, help="of dishes, for fine-tuning")
    p.add_argument("--drawn", type=int, default=40, help="pictures of each kind")
    p.add_argument("--threads", type=int, default=0, help="of a training; default: torch's choice")
    p.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        default=Path.home() / ".cache" / "vit-food101" / "not_food",
        help="pictures and runs",
    )
    p.add_argument("--json", metavar="FILE", type=Path, default=RESULTS)
    p.add_argument("--table", action="store_true", help="print the tables and measure nothing")
    p.add_argument("--write", metavar="PAGE", type=Path, help="put the tables into that page")
    args = p.parse_args(argv)
    if not args.table and not (args.dataset and (args.backbone or args.model)):
        p.error("give --dataset, and --backbone or --model; or --table")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return MARKS.publish(lambda: run(args), args.write)


def run(args: argparse.Namespace) -> str:
    if not args.table:
        for name, row in networks(args):
            record({"network": name, **row, "environment": environment()}, args.json)
            print(f"{name}: recorded", flush=True)
    return page_part(recorded(args.json))


if __name__ == "__main__":
    sys.exit(main())
