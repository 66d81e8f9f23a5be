# SPDX-License-Identifier: Apache-2.0
"""A run and a release as commit 2b68a76 wrote them, before evaluation.json had other than format 1.

tests/fixtures/ has the text that they consist of. The weights are not kept: the run started from
weights that `draw_weights` draws, with a learning rate of 0, so that it ended with the same ones.
Nor are the images: `toys.write_image_folder` draws them.
"""

import shutil
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from tests.unit.toys import LABELS
from training.common.files import read_json, sha256_file, write_json

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
DATASET, START, RUN = "dishes", "start", "runs/old"  # all seen from the folder where it ran
SIZE, PATCH, WIDTH, HIDDEN = 32, 16, 16, 32
SEED = 33_900  # of 400 that were tried: 15 of 18 right, and no test image a near tie
RECIPE = {
    "dataset": DATASET,
    "model": START,
    "selection_fraction": 0.25,
    "max_steps": 4,
    "total_train_batch_size": 8,
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "logging_steps": 2,
    "dataloader_num_workers": 0,
    "use_cpu": True,
    "report_to": ["none"],
}


def write_old_place(root: Path, images: Path) -> Path:
    """Lay out what the recipe names under `root`: images, checkpoint, recipe; return the recipe."""
    shutil.copytree(images, root / DATASET)
    write_start(root / START)
    (root / "old.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return root / "old.yaml"


def restore_run(folder: Path) -> Path:
    """Copy the old run and draw its weights; it has no release/ and no checkpoint."""
    shutil.copytree(FIXTURES / "old_run", folder)
    write_weights(folder / "model")
    return folder


def restore_release(folder: Path) -> Path:
    """Copy the old release and draw its weights."""
    shutil.copytree(FIXTURES / "old_release", folder)
    weights = write_weights(folder)
    # Another version of safetensors may lay out the same tensors in another way.
    sums = read_json(folder / "release.json")
    write_json(folder / "release.json", {**sums, weights.name: sha256_file(weights)})
    return folder


# ---- the checkpoint that it started from -----------------------------------------------------


def write_start(folder: Path) -> None:
    """Write a ViT of one layer for the toy labels, as transformers would save it."""
    from transformers import ViTConfig, ViTImageProcessor

    config = ViTConfig(
        architectures=["ViTForImageClassification"],
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=HIDDEN,
        hidden_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    config.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    processor = ViTImageProcessor(size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder)
    write_weights(folder)


def write_weights(folder: Path) -> Path:
    """Write model.safetensors; return its path."""
    path = folder / "model.safetensors"
    save_file(draw_weights(), path, metadata={"format": "pt"})
    return path


def draw_weights() -> dict[str, np.ndarray]:
    """Draw each tensor evenly from -0.5 to 0.5, norms from 0.5 to 1.5: the same on every machine."""
    names = sorted(SHAPES)
    return {name: _draw(SEED + i, name, SHAPES[name]) for i, name in enumerate(names)}


def _draw(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape) - 0.5
    is_norm = "layernorm" in name and name.endswith("weight")
    return (values + is_norm).astype(np.float32)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


_LAYER = "vit.encoder.layer.0"
# Names as they stand in files on the Hub; inside of transformers they have changed.
SHAPES = {
    "vit.embeddings.cls_token": (1, 1, WIDTH),
    "vit.embeddings.position_embeddings": (1, 1 + (SIZE // PATCH) ** 2, WIDTH),
    "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
    "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
    **_linear(f"{_LAYER}.attention.attention.query", WIDTH, WIDTH),
    **_linear(f"{_LAYER}.attention.attention.key", WIDTH, WIDTH),
    **_linear(f"{_LAYER}.attention.attention.value", WIDTH, WIDTH),
    **_linear(f"{_LAYER}.attention.output.dense", WIDTH, WIDTH),
    **_linear(f"{_LAYER}.intermediate.dense", HIDDEN, WIDTH),
    **_linear(f"{_LAYER}.output.dense", WIDTH, HIDDEN),
    **_norm(f"{_LAYER}.layernorm_before"),
    **_norm(f"{_LAYER}.layernorm_after"),
    **_norm("vit.layernorm"),
    **_linear("classifier", len(LABELS), WIDTH),
}
