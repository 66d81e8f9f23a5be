"""What a run and its evaluation leave behind, for the tests of the card."""

import copy
import json

from model_card.facts import CardFacts

DIGEST, COMMIT = "ab12" * 16, "0123456789abcdef0123456789abcdef01234567"
LABELS = ["cheesecake", "cheese_plate", "nan"]  # not sorted; the last one is also a Python word
VERSIONS = {"vit-food101": "0.1.0", "transformers": "5.23.0", "torch": "2.13.0", "python": "3.11.7"}

RUN = {
    "format": 1, "recipe_name": "vit_base_food101", "recipe": {"learning_rate": 2e-4},
    "command": "food101 train vit_base_food101 --output_dir /home/me/runs/first",
    "started": "2026-11-22T18:00:00Z", "finished": "2026-11-22T21:12:10Z",
    "seconds": {"data": 3.14, "train": 732.0, "total": 11530.0},
    "model": {
        "id": "google/vit-base-patch16-224-in21k", "revision": COMMIT,
        "architecture": "ViTForImageClassification", "num_parameters": 85876325,
        "image_size": 224, "patch_size": 16, "license": "apache-2.0",
        "head_init_scale": 1.0,
    },
    "data": {
        "dataset": "ethz/food101", "source": "hub", "revision": COMMIT, "fingerprint": DIGEST,
        "train_split": "train", "test_split": "validation", "num_train": 71962,
        "num_selection": 3788, "num_test": 25250, "selection_fraction": 0.05, "split_seed": 0,
        "left_out": {"train": 7, "test": 0}, "identical_train_test": 0, "label_names": LABELS,
    },
    "training": {
        "world_size": 2, "device": "NVIDIA H100 80GB HBM3", "mixed_precision": "bf16",
        "total_train_batch_size": 512, "per_device_train_batch_size": 128,
        "gradient_accumulation_steps": 2, "num_train_epochs": 10.0, "steps": 1400,
        "learning_rate": 2e-4, "lr_scheduler_type": "cosine", "warmup_steps": 0.1,
        "weight_decay": 0.05, "optimizer": "adamw_torch_fused", "label_smoothing_factor": 0.0,
        "loss": {"name": "cross_entropy", "q": None},
        "seed": 0, "data_seed": 3, "images_per_second": 1234.5,
        "optimization": {"layer_decay": 1.0, "drop_path": 0.0, "ema_decay": None,
                         "early_stopping_patience": None},
        "stopped_early": False,
        "augmentation": {"crop_scale": [0.08, 1.0], "horizontal_flip": 0.5},
    },
    "selection": {"metric": "top1", "top1": 0.8625, "n": 3788, "best_step": 1260,
                  "best_epoch": 9.0},
    "versions": VERSIONS, "code_sha256": DIGEST,
}  # fmt: skip
METRICS = {
    "top1": {"name": "Top-1 accuracy", "value": 0.896436, "interval": [0.8926, 0.9001],
             "unit": "share", "hub_type": "accuracy", "less_is_better": False},
    "top5": {"name": "Top-5 accuracy", "value": 0.98, "interval": [0.9782, 0.9817],
             "unit": "share", "hub_type": "top_5_accuracy", "less_is_better": False},
    "macro_f1": {"name": "Macro F1", "value": 0.896, "interval": None,
                 "unit": "share", "hub_type": "f1", "less_is_better": False},
    "nll": {"name": "Negative log-likelihood", "value": 0.41234, "interval": None,
            "unit": "nats per image", "hub_type": "nll", "less_is_better": True},
    "ece": {"name": "Expected calibration error", "value": 0.0231, "interval": None,
            "unit": "share", "hub_type": "ece", "less_is_better": True},
}  # fmt: skip
HELD_OUT = {"n": 3787, "source": "selection"}


def measures(nll, ece):
    """nll, brier and ece as a part of an evaluation has them."""
    values = {"nll": nll, "brier": 0.15, "ece": ece}
    return {key: {"value": v, "interval": [v * 0.9, v * 1.1]} for key, v in values.items()}


EVALUATION = {
    "format": 2, "dataset": "ethz/food101", "source": "hub", "dataset_revision": COMMIT,
    "dataset_fingerprint": DIGEST, "split": "validation", "cut": None, "n": 25250,
    "left_out": 0, "metrics": METRICS,
    "interval_method": "Wilson score, 95 %",
    "per_class": [
        {"label": "nan", "n": 20000, "recall": 0.95, "precision": 0.9, "f1": 0.92},
        {"label": "cheesecake", "n": 5250, "recall": 0.5, "precision": None, "f1": 0.5},
        {"label": "cheese_plate", "n": 0, "recall": None, "precision": 0.0, "f1": 0.0},
    ],
    "most_confused": [{"label": "cheesecake", "predicted": "cheese_plate", "n": 12}],
    "calibration": {
        "temperature": 1.25, "held_out": dict(HELD_OUT), "bins": 15, "before": measures(0.45, 0.04),
        "after": measures(0.41234, 0.0231), "ece_if_perfect": 0.006,
    },
    "abstention": {
        "held_out": dict(HELD_OUT), "confidence": 0.95, "aurc": 0.02, "risk_coverage": [[1.0, 0.1]],
        "targets": [
            {"target": 0.95, "threshold": 0.6, "n": 22000, "answered": 0.8713, "accuracy": 0.955,
             "interval": [0.9522, 0.9577]},
        ],
    },
    "sets": {
        "held_out": dict(HELD_OUT),
        "sets": [
            {"promised": 0.9, "coverage": 0.902, "mean_size": 1.1, "empty": 0.001,
             "worst_label_coverage": 0.8},
        ],
    },
    "not_food": {
        "score": "mahalanobis", "n_fitted": 20000, "n_held_out": 3787,
        "shares": [
            {"promised": 0.05, "threshold": 431.2, "refused": 0.051, "interval": [0.0484, 0.0538]},
        ],
    },
    "seed": 0, "precision": "float32",
    "preprocessing": {
        "height": 224, "width": 224, "resample": "bilinear", "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "rescale_factor": 0.00392156862745098,
        "decoder": "pillow 13.0.0",
    },
    "model_sha256": DIGEST, "device": "cpu", "world_size": 1, "batch_size": 64,
    "seconds": 12.3, "images_per_second": 100.0, "versions": VERSIONS,
    "created": "2026-11-22T21:12:00Z",
}  # fmt: skip

# The same as format 1 had it, under two keys; nothing else differs.
METRICS_1 = {
    "metrics": {"top1": 0.896436, "top5": 0.98, "macro_f1": 0.896, "nll": 0.41234, "ece": 0.0231},
    "intervals": {"top1": [0.8926, 0.9001], "top5": [0.9782, 0.9817]},
}


def format_1(evaluation=EVALUATION):
    """A copy of an evaluation as the first version wrote it."""
    metrics = evaluation["metrics"].items()
    old = {}
    for key, value in copy.deepcopy(evaluation).items():
        old[key] = value
        if key == "metrics":
            old["metrics"] = {name: metric["value"] for name, metric in metrics}
            intervals = {name: metric["interval"] for name, metric in metrics}
            old["intervals"] = {name: list(pair) for name, pair in intervals.items() if pair}
    return old | {"format": 1}


def files(kind="hub"):
    """Fresh copies of the two files, {"run": ..., "evaluation": ...}, for one kind of data."""
    both = {"run": copy.deepcopy(RUN), "evaluation": copy.deepcopy(EVALUATION)}
    if kind != "hub":
        name = {"sample": "sample", "local": "food10"}[kind]
        both["run"]["data"] |= {"dataset": name, "source": kind, "revision": None}
        both["evaluation"] |= {"dataset": name, "source": kind, "dataset_revision": None}
    if kind == "sample":
        scratch = {"id": None, "revision": None, "license": None, "weight_init": "normal"}
        both["run"]["model"] |= scratch
    return both


def facts_of(both):
    """The facts on the card, after the way through JSON text."""
    both = json.loads(json.dumps(both))
    return CardFacts.from_json(both["run"], both["evaluation"])
