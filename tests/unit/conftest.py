"""A toy classifier, with the stock pipeline and ours around it."""

import numpy as np
import pytest
import torch
import transformers
from transformers import ImageClassificationPipeline, ViTConfig, ViTForImageClassification

from inference.food_classification import (
    FoodClassificationPipeline,
    Preprocessing,
)
from tests.unit.pictures import LABELS, encode, photo, square


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
