# SPDX-License-Identifier: Apache-2.0
"""A released model that tells what may be no food."""

import copy

import numpy as np
import pytest

from inference.food_classification import FoodClassificationPipeline
from tests.unit.pictures import photo
from training.evaluation.trust.not_food import settle
from training.hub.contents import CUSTOM_PIPELINES, code_sources
from training.model.config_block import merge_block


@pytest.fixture(scope="module")
def told_folder(tmp_path_factory, model, processor):
    """A model that was fitted on some of the pictures, with its file and code, as a release has them."""
    images = [photo(seed=seed) for seed in range(9)]
    where = tmp_path_factory.mktemp("told")
    model = copy.deepcopy(model)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, model.config.hidden_size)).astype(np.float32)
    found = settle(features, np.arange(200) % 4, features[:60] * 2, "classifier", 200)
    classify = FoodClassificationPipeline(model=model, image_processor=processor, device="cpu")
    found.write(where)
    # Some of the pictures on each side.
    merge_block(model.config, not_food=found.facts)
    model.config._name_or_path = str(where)
    own = [measured(classify, image) for image in images]
    thresholds = {"0.01": None, "0.02": max(own), "0.05": sorted(own)[4], "0.1": sorted(own)[1]}
    merge_block(model.config, not_food={**found.facts, "thresholds": thresholds})
    model.config.custom_pipelines = CUSTOM_PIPELINES
    model.save_pretrained(where)
    processor.save_pretrained(where)
    for path in code_sources():
        (where / path.name).write_bytes(path.read_bytes())
    return where


def measured(classify, image) -> float:
    facts = classify.model.config.food_classification["not_food"]
    inputs = classify.preprocess(image)
    return float(classify.forward(inputs, not_food=facts)["distance"])
