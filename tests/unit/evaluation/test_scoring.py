# SPDX-License-Identifier: Apache-2.0
"""Logits of every image, once and in order."""

import numpy as np
import pytest
import torch

from tests.unit.toys import tiny_network
from training.evaluation import scoring
from training.evaluation.scoring import one_batch_ahead, score
from training.input.eval_images import EvalImages


@pytest.fixture(scope="module")
def network():
    network = tiny_network()
    network.model.eval()
    return network


@pytest.fixture
def images(split, network) -> EvalImages:
    return EvalImages(split.dataset, network.preprocessing)


def test_logits_are_those_of_the_network_image_by_image(network, images):
    logits = score(network, images, batch_size=5, num_workers=0)
    assert logits.shape == (24, 3) and logits.dtype == np.float32
    with torch.inference_mode():
        for position in (0, 4, 5, 23):  # at the edges of the batches
            pixels = network.preprocessing.normalize(images[position]["pixel_values"][None])
            expected = network.model(pixel_values=pixels).logits[0].numpy()
            assert logits[position] == pytest.approx(expected, abs=1e-5)
    assert np.ptp(logits, axis=0).min() > 1e-3  # different images, different answers


def test_the_batch_size_does_not_matter(network, images):
    one, other = (score(network, images, batch_size=size, num_workers=0) for size in (1, 24))
    assert one == pytest.approx(other, abs=1e-5)


def test_an_image_that_was_lost_on_the_way_is_noticed(network, images, monkeypatch):
    monkeypatch.setattr(scoring, "gather_object", lambda shares: [shares[0][:-1]])
    with pytest.raises(RuntimeError, match="23 images were scored, not 24"):
        score(network, images, batch_size=8, num_workers=0)


def test_nothing_waits_on_a_cpu():
    assert one_batch_ahead(torch.device("cpu"))() is None
