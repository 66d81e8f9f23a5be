# SPDX-License-Identifier: Apache-2.0
"""Small things to train and test on: JPEGs, folders, recipes and networks."""

import dataclasses
import io
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from PIL import Image

# Sorted, as a folder numbers them; food101 itself has cheesecake before cheese_plate.
LABELS = ["cheese_plate", "cheesecake", "pizza"]
COLOURS = {"cheese_plate": (200, 60, 60), "cheesecake": (60, 200, 60), "pizza": (60, 60, 200)}
TINY_VIT = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
RECIPE = {
    "model_config": TINY_VIT,
    "selection_fraction": 0.25,
    "num_train_epochs": 2,
    "total_train_batch_size": 8,
    "learning_rate": 1e-3,
    "dataloader_num_workers": 0,
    "use_cpu": True,
    "report_to": ["none"],
}


def jpeg(
    seed: int, size: tuple[int, int] = (40, 36), colour=(128, 128, 128), orientation: int = 1
) -> bytes:
    """JPEG bytes of a coloured gradient with noise; `orientation` is only written as a tag."""
    rng = np.random.default_rng(seed)
    width, height = size
    shade = np.linspace(0.4, 1.2, width)[None, :, None] * np.linspace(0.6, 1, height)[:, None, None]
    pixels = np.array(colour) * shade + rng.normal(0, 6, (height, width, 3))
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=92, exif=exif
    )
    return buffer.getvalue()


def write_image_folder(
    root: Path, train: int = 4, validation: int = 2, labels: list[str] = LABELS
) -> Path:
    """`root`/{train,validation}/LABEL/N.jpg, so many a label."""
    for split_seed, (split, count) in enumerate((("train", train), ("validation", validation))):
        for number, label in enumerate(labels):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 10_000 * split_seed + 100 * number + i
                # Near enough to each other that a short training does not get all of them right.
                jitter = np.random.default_rng(seed).normal(0, 45, 3)
                colour = COLOURS.get(label, (128, 128, 128)) + jitter
                (folder / f"{i}.jpg").write_bytes(jpeg(seed, colour=colour))
    return root


def write_recipe(path: Path, **values: Any) -> Path:
    """The toy recipe with `values` over it."""
    values = {
        key: str(value) if isinstance(value, Path) else value for key, value in values.items()
    }
    path.write_text(yaml.safe_dump({**RECIPE, **values}), encoding="utf-8")
    return path


def train(*argv: object) -> None:
    """`python -m training.train ARGV`, in this process."""
    from training.train import main

    words = [str(word) for word in argv]
    with mock.patch.object(sys, "argv", ["train.py", *words]):  # the run records its command
        main(words)


def tiny_settings(output_dir: Path, **values: Any) -> Any:
    """Settings of the toy recipe; each of `values` goes to the class that has a key of its name."""
    from training.engine.arguments import ExtensionArguments, LossArguments, MethodArguments
    from training.engine.training_arguments import FineTuningArguments, Settings
    from training.input.arguments import Augmentation

    recipe = {k: v for k, v in RECIPE.items() if k not in ("model_config", "selection_fraction")}
    left = {**recipe, **values, "output_dir": str(output_dir)}
    made = {}
    for name, kind in (
        ("augmentation", Augmentation),
        ("loss", LossArguments),
        ("method", MethodArguments),
        ("extensions", ExtensionArguments),
    ):
        own = {field.name for field in dataclasses.fields(kind)} & left.keys()
        made[name] = kind(**{key: left.pop(key) for key in own})
    return Settings(FineTuningArguments(**left), **made)


def tiny_arguments(output_dir: Path, **values: Any) -> Any:
    """FineTuningArguments of the toy recipe."""
    return tiny_settings(output_dir, **values).training


def tiny_network(labels: list[str] = LABELS, seed: int = 0, **config: Any) -> Any:
    """A small ViT from scratch with its processor."""
    from training.model.arguments import ModelArguments
    from training.model.create import build_network

    return build_network(ModelArguments(model_config={**TINY_VIT, **config}), labels, seed)


def score_as(trainer: Any, top1: list[float], monkeypatch: Any) -> list[dict[str, Any]]:
    """Let each scoring say the next of `top1`; the list fills with the weights that were scored."""
    values, scored = iter(top1), []

    def compute_metrics(_prediction: object) -> dict[str, float]:
        state = trainer.model.state_dict()
        scored.append({name: value.detach().clone() for name, value in state.items()})
        return {"top1": next(values), "nll": 1.0}

    monkeypatch.setattr(trainer, "compute_metrics", compute_metrics)
    return scored


def originals(split: Any) -> list[bytes]:
    """The files of a folder's split."""
    return [Path(row["image"]["path"]).read_bytes() for row in split.dataset]


def images(dataset: Any) -> list[bytes]:
    """The embedded bytes."""
    return [row["image"]["bytes"] for row in dataset]
