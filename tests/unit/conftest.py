"""A toy classifier with pipelines around it; toy images to train on, and a place for their caches."""

import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import transformers
from transformers import ImageClassificationPipeline, ViTConfig, ViTForImageClassification

from inference.food_classification import FoodClassificationPipeline
from inference.food_images import Preprocessing
from tests.unit.pictures import LABELS, encode, photo, square
from tests.unit.toys import jpeg, tiny_network, tiny_settings, write_image_folder
from training.data import reduced as cache
from training.data import shards
from training.data.arguments import DataArguments
from training.data.loading import load_split, load_splits
from training.data.shards import reduce_short_side
from training.data.splits import Split, Splits
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer


@pytest.fixture(autouse=True)
def log_level():
    """The product's entry points set it for their process; a test that calls one does so for the next."""
    for package in ("training", "inference"):
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    # As it comes, a fresh model says nearly the same of every image: larger weights, centred.
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, id2label=dict(enumerate(LABELS)), initializer_range=0.3,
        label2id={label: i for i, label in enumerate(LABELS)},
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    ours = Preprocessing.from_processor(transformers.ViTImageProcessor(size=square(32)))
    pixels = torch.stack([ours.crop(np.asarray(photo(seed=seed))) for seed in range(100, 116)])
    with torch.inference_mode():
        model.classifier.bias -= model(pixel_values=ours.normalize(pixels)).logits.mean(0)
    return model


@pytest.fixture(scope="module")
def processor():
    return transformers.ViTImageProcessor(size=square(32))


@pytest.fixture(scope="module")
def classify(model, processor):
    return FoodClassificationPipeline(model=model, image_processor=processor, device="cpu")


@pytest.fixture(scope="module")
def stock(model, processor):
    return ImageClassificationPipeline(model=model, image_processor=processor, device="cpu")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dinner.png"
    path.write_bytes(encode(photo(), "PNG"))
    return path


# ---- training on toy images ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> Splits:
    """18 images to train on, 6 to select."""
    root = write_image_folder(tmp_path_factory.mktemp("data") / "dishes", train=8, validation=1)
    return load_splits(DataArguments(dataset=str(root), selection_fraction=0.25))


@pytest.fixture
def trainer_for(splits, tmp_path):
    def trainer_for(name: str = "run", seed: int = 0, **values: object) -> FoodTrainer:
        settings = tiny_settings(tmp_path / name, **values)
        return build_trainer(tiny_network(seed=seed), splits, settings)

    return trainer_for


# ---- caches of reduced training images ------------------------------------------------------------


@pytest.fixture(scope="module")
def dishes(tmp_path_factory) -> Path:
    """24 training images, one of them too small to be reduced."""
    root = write_image_folder(tmp_path_factory.mktemp("folder") / "dishes", train=8, validation=2)
    (root / "train" / "pizza" / "7.jpg").write_bytes(jpeg(7, (18, 30)))
    return root


@pytest.fixture(scope="module")
def split(dishes) -> Split:
    return load_split(DataArguments(dataset=str(dishes)), "train")[1]


@pytest.fixture
def place(monkeypatch, tmp_path) -> Path:
    """An empty place for caches; shards of 4 rows, so that there are 6; one process."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(shards, "SHARD_ROWS", 4)
    monkeypatch.setattr(shards, "GROUP_ROWS", 3)
    monkeypatch.setattr(cache, "usable_cores", lambda: 1)
    return tmp_path / "hf" / "vit-food101"


@pytest.fixture
def reduced(monkeypatch) -> list[bytes]:
    """Every image that is reduced in this process from here on."""
    seen = []
    real = reduce_short_side
    monkeypatch.setattr(
        shards, "reduce_short_side", lambda data, n: seen.append(data) or real(data, n)
    )
    return seen
