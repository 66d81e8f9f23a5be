# SPDX-License-Identifier: Apache-2.0
"""A linear probe by transformers and scikit-learn alone, to hold the project's own against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import ViTModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

FOLDS = 5
STRENGTHS = np.logspace(-6, 2, 17)  # scikit-learn's C: the inverse of the penalty
BATCH = 50


def witness_of(
    model: Path, train: list[tuple[Path, str]], test: list[tuple[Path, str]], seed: int
) -> dict[str, Any]:
    """Fit a logistic regression on the class tokens of labelled photographs; score it on others.

    The strength is chosen by 5-fold cross-validation, by the likelihood.

    Args:
        model: folder of a ViT, with the processor of its size.
        train, test: photographs and their labels.
    """
    features, labels = class_tokens(model, [path for path, _ in train]), [y for _, y in train]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fit = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        scoring="neg_log_loss",
        max_iter=10_000,
        use_legacy_attributes=False,
        l1_ratios=(0,),
    )
    fit = make_pipeline(StandardScaler(), fit).fit(features, labels)
    right = fit.predict(class_tokens(model, [path for path, _ in test])) == np.array(
        [y for _, y in test]
    )
    return {"top1": float(right.mean()), "n": len(test), "C": float(fit[-1].C_)}


def labelled(folder: Path) -> list[tuple[Path, str]]:
    """List the photographs of a folder with a folder for each label."""
    return [(path, path.parent.name) for path in sorted(folder.glob("*/*"))]


def class_tokens(model: Path, paths: list[Path]) -> np.ndarray:
    """Compute float32 (num_images, width): the class token after the last norm."""
    network = ViTModel.from_pretrained(model, dtype=torch.float32, add_pooling_layer=False).eval()
    processor = AutoImageProcessor.from_pretrained(model)
    found = []
    with torch.inference_mode():
        for start in range(0, len(paths), BATCH):
            images = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
            pixels = processor(images, return_tensors="pt")
            tokens = network(**pixels).last_hidden_state
            found.append(tokens[:, 0].numpy())
    return np.concatenate(found)
