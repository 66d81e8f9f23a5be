"""The only place that scores a saved model; writes evaluation.json.

The number on a card is the one a fresh process gets from the released files, so this reads the
saved files, computes in float32, and counts every image once in any number of processes.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from training.common.files import sha256_file, write_json, write_text
from training.common.machine import device_name, now, versions
from training.data.splits import Source, Split
from training.evaluation.intervals import wilson_interval
from training.evaluation.metrics import SUMMARY, FoodMetrics
from training.evaluation.scoring import score
from training.input.eval_images import decoder_name, evaluation_images
from training.model.network import Network, label_names_of, load_network


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
        seed: the training seed, for the record; scoring draws nothing at random.
        cache_gb: limit on the decoded images that are kept for later evaluations; 0 keeps none.

    Returns:
        The content of evaluation.json, and float32 logits (num_images, num_classes) in the
        split's order; the same on every process.
    """
    network = load_network(model, revision)
    images = evaluation_images(split, network.preprocessing, cache_gb)
    started = time.monotonic()
    logits = score(network, images, batch_size, num_workers)
    seconds = time.monotonic() - started
    labels = np.asarray(split.dataset["label"][:])
    metrics = FoodMetrics().compute(predictions=logits, references=labels)
    report = {
        "format": 1,
        "dataset": source.dataset,
        "source": source.kind,
        "dataset_revision": source.revision,
        "dataset_fingerprint": split.fingerprint,
        "split": split.name,
        "n": len(split),
        "left_out": split.left_out,
        **summarize(metrics, label_names_of(network.model.config), len(split)),
        "seed": seed,
        "precision": "float32",
        "preprocessing": describe_preprocessing(network),
        "model_sha256": model_sha256(model),
        "device": device_name(),
        "world_size": PartialState().num_processes,
        "batch_size": batch_size,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(split) / seconds, 1),
        "versions": versions(),
        "created": now(),
    }
    return report, logits


def summarize(metrics: dict[str, Any], label_names: list[str], n: int) -> dict[str, Any]:
    """The reported part of the metrics: headline numbers, intervals, classes, confusions."""
    confusion = np.asarray(metrics["confusion"])
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = [
        divmod(int(i), len(label_names)) for i in np.argsort(-wrong, axis=None, kind="stable")[:10]
    ]
    return {
        "metrics": {key: metrics[key] for key in SUMMARY},
        "intervals": {
            key: list(wilson_interval(round(metrics[key] * n), n)) for key in ("top1", "top5")
        },
        "interval_method": "Wilson score, 95 %",
        "per_class": [
            per_class(metrics, confusion, i, label) for i, label in enumerate(label_names)
        ],
        "most_confused": [
            {"label": label_names[i], "predicted": label_names[j], "n": int(wrong[i, j])}
            for i, j in pairs
            if wrong[i, j]
        ],
    }


def per_class(metrics: dict[str, Any], confusion: np.ndarray, i: int, label: str) -> dict[str, Any]:
    """Scores of class `i`; null where there is nothing to divide by."""
    n, answers = metrics["count"][i], int(confusion[:, i].sum())
    return {
        "label": label,
        "n": n,
        "recall": metrics["recall"][i] if n else None,
        "precision": metrics["precision"][i] if answers else None,
        "f1": metrics["f1"][i] if n else None,
    }


def write_evaluation(
    folder: Path, report: dict[str, Any], split: Split, logits: np.ndarray
) -> None:
    """Write evaluation.json and predictions.csv (what was predicted for each test image)."""
    names = [row["label"] for row in report["per_class"]]
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


def model_sha256(model: str | Path) -> str | None:
    weights = Path(model) / "model.safetensors"
    return sha256_file(weights) if weights.is_file() else None
