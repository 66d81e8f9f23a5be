# SPDX-License-Identifier: Apache-2.0
"""What enters the head: of every kind of network, computed once, never that of other weights."""

import dataclasses
import hashlib
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ResNetConfig,
    ViTConfig,
)

from tests.unit.toys import LABELS, TINY_VIT, tiny_network
from training.common.errors import UserError
from training.evaluation import features
from training.evaluation.features import (
    Features,
    check_head,
    features_key,
    head_input,
    image_features,
)
from training.evaluation.scoring import score
from training.input.eval_images import EvalImages
from training.model.head import head_of
from training.model.network import Network

labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
CONFIGS = {
    "vit": ViTConfig(**TINY_VIT, **labels),
    "deit": DeiTConfig(**TINY_VIT, **labels),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **labels),
    "convnext": ConvNextConfig(
        num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], drop_path_rate=0.1, **labels
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder that the cache would make."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets" / "vit-food101"


def with_model(model: torch.nn.Module) -> Network:
    return dataclasses.replace(tiny_network(), model=model)


def network_of(kind: str) -> Network:
    torch.manual_seed(0)
    if kind == "deit":  # a config alone does not say with which of two heads
        return with_model(DeiTForImageClassification(CONFIGS[kind]))
    return with_model(AutoModelForImageClassification.from_config(CONFIGS[kind]))


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*.npy")) if cache.is_dir() else []


def refuse(*args: object) -> None:
    raise AssertionError("computed again")


# ---- what a feature is ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_head_of_a_feature_is_the_network_of_the_image(splits, kind):
    network = network_of(kind)
    check_head(network, "a linear probe", "give another model, or tune full")
    found = image_features(network, splits.originals, 0, 0)
    assert found.dtype == torch.float32
    assert found.shape == (len(splits.train), head_of(network.model).in_features)
    images = EvalImages(splits.originals.dataset, network.preprocessing)
    logits = score(network, images, batch_size=5, num_workers=0)
    with torch.no_grad():
        ours = head_of(network.model)(found).numpy()
    assert np.ptp(logits) > 1e-3
    np.testing.assert_allclose(ours, logits, atol=1e-5)


def test_a_batch_of_features_has_the_labels_of_its_images():
    """The sampler puts the epoch above the position."""
    dataset = Features([2, 0, 1])
    dataset.features = torch.arange(6.0).reshape(3, 2)
    batch = dataset.__getitems__([2, 3, 7])
    assert batch["features"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert batch["labels"].tolist() == [1, 2, 0] and batch["labels"].dtype == torch.int64
    assert len(dataset) == 3


def test_a_feature_of_vit_is_the_class_token_after_the_last_norm(splits):
    network = tiny_network()
    network.model.eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), head_input(network.model) as seen:
        network.model(pixel_values=pixels)
        token = network.model.vit(pixels).last_hidden_state[:, 0]
    assert torch.equal(seen[0], token) and not network.model.classifier._forward_pre_hooks


def test_the_other_tokens_are_not_kept(splits, monkeypatch):
    """On a CPU a feature of ViT is a view of the whole sequence."""
    seen = []
    real = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda arrays: seen.extend(arrays) or real(arrays))
    image_features(tiny_network(), splits.selection, 0, 0)
    assert len(seen) > 1 and all(array.base is None for array in seen)


def test_dropout_and_training_mode_leave_features_alone(splits):
    network = tiny_network(hidden_dropout_prob=0.5)
    network.model.train()
    first = image_features(network, splits.selection, 0, 0)
    network.model.train()
    assert torch.equal(image_features(network, splits.selection, 0, 0), first)


def test_a_network_without_one_linear_head_is_refused():
    config = DeiTConfig(**TINY_VIT, **labels)
    network = with_model(DeiTForImageClassificationWithTeacher(config))  # the mean of two heads
    with pytest.raises(UserError, match="DeiTForImageClassificationWithTeacher is not known"):
        check_head(network, "a linear probe", "give another model, or tune full")


def test_damaged_weights_are_named(splits):
    network = tiny_network()
    network.model.vit.layernorm.weight.data[0] = torch.nan
    with pytest.raises(UserError, match="not finite numbers"):
        image_features(network, splits.selection, 1.0, 0)


def test_an_image_that_was_replaced_is_refused(splits):
    changed = dataclasses.replace(splits.selection, content=("0" * 64,) * len(splits.selection))
    with pytest.raises(UserError, match="image 0 of selection is not the one that was checked"):
        image_features(tiny_network(), changed, 1.0, 0)


# ---- the cache --------------------------------------------------------------------------------


def test_the_second_time_they_are_read(splits, cache, monkeypatch, caplog):
    first = image_features(tiny_network(), splits.selection, 1.0, 0)
    assert len(kept(cache)) == 1 and kept(cache)[0].startswith("features-")
    monkeypatch.setattr(features, "compute_features", refuse)
    caplog.set_level(logging.INFO)
    assert torch.equal(image_features(tiny_network(), splits.selection, 1.0, 0), first)
    assert caplog.messages == [f"features of 6 selection images: from {cache / kept(cache)[0]}"]


def test_another_head_has_the_same_features(splits):
    network = tiny_network()
    key = features_key(network, splits.selection.content)
    torch.nn.init.normal_(network.model.classifier.weight)
    assert features_key(network, splits.selection.content) == key
    more = tiny_network(labels=[*LABELS, "sushi"])  # as many other labels as somebody likes
    more.model.vit.load_state_dict(network.model.vit.state_dict())
    assert features_key(more, splits.selection.content) == key


@pytest.mark.parametrize(
    "what", ["weight", "buffer", "config", "normalisation", "pixels", "images"]
)
def test_what_decides_a_feature_is_in_its_name(splits, what):
    network, content = network_of("resnet"), splits.selection.content
    key = features_key(network, content)
    if what == "weight":
        next(network.model.parameters()).data[0] += 1e-6
    elif what == "buffer":
        next(network.model.buffers()).data[0] += 1e-6
    elif what == "config":
        network.model.config.hidden_act = "gelu"
    elif what == "images":
        content = content[::-1]
    else:
        value = {"normalisation": {"image_mean": (0.4,) * 3}, "pixels": {"resample": "bicubic"}}[
            what
        ]
        changed = dataclasses.replace(network.preprocessing, **value)
        network = dataclasses.replace(network, preprocessing=changed)
    assert features_key(network, content) != key


def test_no_cache_and_too_small_a_cache(splits, cache, caplog):
    image_features(tiny_network(), splits.selection, 0, 0)
    assert not cache.exists()
    image_features(tiny_network(), splits.selection, 1e-9, 0)
    assert kept(cache) == [] and "eval_cache_gb is 1e-09" in caplog.text


def test_a_damaged_file_is_made_again(splits, cache):
    first = image_features(tiny_network(), splits.selection, 1.0, 0)
    path = cache / kept(cache)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(image_features(tiny_network(), splits.selection, 1.0, 0), first)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size == 128 + first.nbytes and digest


def test_killed_while_writing(splits, cache, caplog):
    """No half file under the final name; the next run cleans up, and goes on."""
    computed = image_features(tiny_network(), splits.selection, 0, 0).numpy()

    def die() -> None:
        def slowly(path, shape, dtype, parts):
            path.with_name(f".{path.name}").write_bytes(b"half")
            time.sleep(60)

        features.write_array = slowly
        features.compute_features = lambda *_: computed  # torch's threads do not survive a fork
        image_features(tiny_network(), splits.selection, 1.0, 0)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    deadline = time.monotonic() + 30
    while not list(cache.glob(".features-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(cache.glob(".features-*")) and not [n for n in kept(cache) if n[0] != "."]
    with caplog.at_level(logging.INFO):
        image_features(tiny_network(), splits.selection, 1.0, 0)
    assert not list(cache.glob(".features-*")) and len(kept(cache)) == 1
