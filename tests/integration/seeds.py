"""What the loopback Hub serves under the two ids of the real run, small but of the real shape."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (Path(__file__).parent / "food101_names.txt").read_text().split()  # in the Hub's order
DATASET, MODEL = "ethz/food101", "google/vit-base-patch16-224-in21k"


def jpeg(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A small JPEG of smooth noise; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def dataset_files(folder: Path, train: int = 4, test: int = 2) -> Path:
    """food101's layout: parquet with embedded bytes, splits train and validation, class blocks."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=NAMES)})
    (folder / "data").mkdir(parents=True)
    for split, count, offset in (("train", train, 0), ("validation", test, 100_000)):
        rows = [(label, offset + label * count + i) for label in range(101) for i in range(count)]
        columns = {
            "image": [{"bytes": jpeg(seed), "path": f"{seed}.jpg"} for _, seed in rows],
            "label": [label for label, _ in rows],
        }
        data = Dataset.from_dict(columns, features=features)
        data.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


def checkpoint_files(folder: Path) -> Path:
    """in21k's layout: a ViTModel with a pooler and no classifier, config without label names."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    ViTModel(config, add_pooling_layer=True).save_pretrained(folder)
    processor = {
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": 32,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# ViT\n")
    return folder
