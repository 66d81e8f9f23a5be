"""The only place that scores a saved model; writes evaluation.json.

The number on a card is the one a fresh process gets from the released files, so this reads the
saved files, computes in float32, and counts every image once in any number of processes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Subset

from training import __version__
from training.data import Source, Split
from training.files import sha256_file, write_json, write_text
from training.intervals import wilson_interval
from training.metrics import SUMMARY, FoodMetrics
from training.model import Network, label_names_of, load_network
from training.pixel_cache import CachedImages, decoder_name, evaluation_images
from training.progress import with_progress
from training.step import tf32
from training.transforms import EvalImages, collate

LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface_hub",
    "numpy",
    "pillow",
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


def score(
    network: Network, images: EvalImages | CachedImages, batch_size: int, num_workers: int
) -> np.ndarray:
    """float32 logits (num_images, num_classes), each image once, in order, on every process.

    `num_workers` processes decode; cached images are read without any.
    """
    state = PartialState()
    on_gpu = state.device.type == "cuda"
    model = network.model.to(state.device)
    with state.split_between_processes(list(range(len(images)))) as positions:
        loader = DataLoader(
            Subset(images, positions),
            batch_size=batch_size,
            num_workers=0 if isinstance(images, CachedImages) else num_workers,
            collate_fn=collate,
            pin_memory=on_gpu,
        )
        own = torch.empty((len(positions), model.config.num_labels), pin_memory=on_gpu)
        done, keep_up = 0, one_batch_ahead(state.device)
        with torch.inference_mode(), full_float32():
            for batch in with_progress(loader, "scored", "images", len(images)):
                pixels = batch["pixel_values"].to(state.device, non_blocking=True)
                logits = model(pixel_values=network.preprocessing.normalize(pixels)).logits
                own[done : done + len(logits)].copy_(logits, non_blocking=on_gpu)
                done += len(logits)
                keep_up()
        if on_gpu:
            torch.cuda.synchronize(state.device)
    # gather_object concatenates lists in rank order; the shares are consecutive.
    logits = np.concatenate(gather_object([own.numpy()]))
    if len(logits) != len(images):
        raise RuntimeError(f"{len(logits)} images were scored, not {len(images)}")
    return logits


def one_batch_ahead(device: torch.device) -> Callable[[], None]:
    """To be called after each batch: wait on a GPU until the batch before it is done.

    Waiting for the batch itself would let the GPU idle while the next one is read; never waiting
    would let pinned batches pile up in the host's memory.
    """
    if device.type != "cuda":
        return lambda: None
    events: deque[torch.cuda.Event] = deque()

    def wait() -> None:
        events.append(torch.cuda.Event())
        events[-1].record()
        if len(events) > 1:
            events.popleft().synchronize()

    return wait


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Training may allow TF32; the reported number is computed without it, convolutions too."""
    with tf32(False):
        yield


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


def device_name() -> str:
    device = PartialState().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    installed = {name: version(name) for name in LIBRARIES}
    return {"vit-food101": __version__, "python": platform.python_version(), **installed}


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
