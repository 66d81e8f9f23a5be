"""The only place that scores a saved model; writes evaluation.json.

The number on a card is the one a fresh process gets from the released files, so this reads the
saved files, computes in float32, and counts every image once in any number of processes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from inference.food_distance import FoodDistance, distance_of
from training.common.errors import UserError
from training.common.files import write_json, write_text
from training.common.machine import device_name, now, versions
from training.data.splits import Source, Split
from training.evaluation.classes import MostConfused, PerClass
from training.evaluation.classification import FoodMetrics
from training.evaluation.formats import FORMAT
from training.evaluation.intervals import wilson_interval
from training.evaluation.metrics import reported_metrics
from training.evaluation.scoring import score_and_measure
from training.evaluation.section import Scored, Section
from training.evaluation.trust.not_food import RefusedFood
from training.evaluation.trust.sections import Abstention, Calibration, Sets
from training.input.eval_images import decoder_name, evaluation_images
from training.model.config_block import read_block
from training.model.network import Network, label_names_of, load_network
from training.model.weights import weights_sha256

# The parts of evaluation.json beside the metrics, in their order there.
SECTIONS: tuple[Section, ...] = (
    PerClass(),
    MostConfused(),
    Calibration(),
    Abstention(),
    Sets(),
    RefusedFood(),
)


def evaluate_model(
    model: str | Path,
    source: Source,
    split: Split,
    *,
    revision: str | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    seed: int | None = None,
    cache_gb: float = 0.0,
) -> tuple[dict[str, Any], np.ndarray]:
    """Score saved files on a split.

    Args:
        model: folder or Hub id, as saved.
        revision: commit, tag or branch of a Hub id; None is its main branch.
        seed: the training seed, for the record; scoring draws nothing at random. None: not known.
        cache_gb: limit on the decoded images that are kept for later evaluations; 0 keeps none.

    Returns:
        The content of evaluation.json, and float32 logits (num_images, num_classes) in the
        split's order; the same on every process.
    """
    network = load_network(model, revision)
    images = evaluation_images(split, network.preprocessing, cache_gb)
    distance, head = distance_to_food(network)
    started = time.monotonic()
    logits, distances = score_and_measure(network, images, batch_size, num_workers, distance, head)
    seconds = time.monotonic() - started
    scored = Scored(
        logits=logits,
        labels=np.asarray(split.dataset["label"][:]),
        label_names=label_names_of(network.model.config),
        network=network,
        distances=distances,
    )
    report = {
        "format": FORMAT,
        **describe_data(source, split),
        **measure(scored, SECTIONS),
        "seed": seed,
        "precision": "float32",
        "preprocessing": describe_preprocessing(network),
        "model_sha256": weights_sha256(model),
        "device": device_name(),
        "world_size": PartialState().num_processes,
        "batch_size": batch_size,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(split) / seconds, 1),
        "versions": versions(),
        "created": now(),
    }
    return report, logits


def distance_to_food(network: Network) -> tuple[FoodDistance | None, str]:
    """Read what a model tells pictures without food by, and the name of its head; (None, ""): nothing.

    Raises:
        UserError: its config speaks of a file that is not there, or is another one.
    """
    facts = read_block(network.model.config).get("not_food")
    if not facts:
        return None, ""
    try:
        return distance_of(network.model.config, facts), facts["head"]
    except ValueError as error:
        raise UserError(str(error)) from error


def describe_data(source: Source, split: Split) -> dict[str, Any]:
    """Describe the scored images for evaluation.json: data set, split, fingerprint, n.

    Keys: dataset, source, dataset_revision, dataset_fingerprint, split, cut (None, or how the split was
    cut out of another one, see `training.data.splits.Cut`), n, left_out.
    """
    return {
        "dataset": source.dataset,
        "source": source.kind,
        "dataset_revision": source.revision,
        "dataset_fingerprint": split.fingerprint,
        "split": split.name,
        "cut": dataclasses.asdict(split.cut) if split.cut else None,
        "n": len(split),
        "left_out": split.left_out,
    }


def measure(scored: Scored, sections: Sequence[Section]) -> dict[str, Any]:
    """Compute metrics, interval_method and each section of evaluation.json from the answers.

    Raises:
        ValueError: a logit is not finite.
    """
    values = FoodMetrics().compute(predictions=scored.logits, references=scored.labels)
    return {
        "metrics": describe_metrics(values, len(scored.labels), len(scored.label_names)),
        "interval_method": "Wilson score, 95 %",
        **{section.key: section.measure(scored) for section in sections},
    }


def describe_metrics(
    values: dict[str, float], n: int, num_labels: int
) -> dict[str, dict[str, Any]]:
    """Describe each reported metric by its key: {"top1": {"name": ..., "value": ...}, ...}.

    Args:
        values: {"top1": 0.95, ...}, at least the keys of `reported_metrics`.
        n: how many images were scored; a proportion of them gets a 95 % interval.
        num_labels: how many labels the model has; it decides which metrics are reported.
    """
    return {
        metric.key: metric.describe(
            values[metric.key],
            wilson_interval(round(values[metric.key] * n), n) if metric.is_proportion else None,
        )
        for metric in reported_metrics(num_labels)
    }


def write_evaluation(
    folder: Path, report: dict[str, Any], split: Split, logits: np.ndarray
) -> None:
    """Write evaluation.json and predictions.csv (what was predicted for each test image).

    Args:
        report, logits: as `evaluate_model` returned them for `split`.
    """
    names = split.label_names
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    predicted, score_ = logits.argmax(1), (1 / shifted.sum(1))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")  # quotes a label with a comma
    rows.writerow(["position", "label", "predicted", "score"])
    for i, label in enumerate(split.dataset["label"][:]):
        rows.writerow([i, names[label], names[predicted[i]], f"{score_[i]:.6f}"])
    write_text(folder / "predictions.csv", text.getvalue())
    write_json(folder / "evaluation.json", report)


def describe_preprocessing(network: Network) -> dict[str, Any]:
    """Say how images were decoded and resized before they were scored.

    Keys: height, width, shortest_edge and resized (in pixels; None where the processor has no such
    step), resample, image_mean, image_std, rescale_factor, decoder (library and version).
    """
    p = network.preprocessing
    return {
        "height": p.height,
        "width": p.width,
        "shortest_edge": p.shortest_edge,
        "resized": p.resized,
        "resample": p.resample,
        "image_mean": list(p.image_mean),
        "image_std": list(p.image_std),
        "rescale_factor": p.rescale_factor,
        "decoder": decoder_name(),
    }
