# SPDX-License-Identifier: Apache-2.0
"""A temperature in the head's weights, and what the config says of it."""

import json

import numpy as np
import pytest
import torch
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, pipeline

from tests.unit.pictures import photo
from tests.unit.toys import LABELS, tiny_network
from training.evaluation.trust.held_out import HeldOut
from training.evaluation.trust.promises import fold, settle, write_trust
from training.model.config_block import merge_block, read_block
from training.model.head import divide_scores, heads_of
from training.model.network import load_network


def answers(n: int, scale: float = 4.0, seed: int = 0) -> HeldOut:
    """Scores that are `scale` times as sure as they are right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, 3))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) < chances.cumsum(1)).argmax(1)
    content = np.array([f"{i:064x}" for i in range(n)])
    return HeldOut((logits * scale).astype(np.float32), labels, content, "selection")


def test_a_temperature_from_enough_images():
    values = settle(answers(2000), calibrate=True)
    assert values["temperature"] == pytest.approx(4, rel=0.1)
    assert values["held_out"] == {"n": 2000, "source": "selection"}
    assert list(values["thresholds"]) == ["0.8", "0.85", "0.9", "0.95", "0.98", "0.99"]
    assert 0 < values["sets"]["0.9"] < 1 and json.dumps(values, allow_nan=False)


@pytest.mark.parametrize(("n", "calibrate"), [(99, True), (100, False)])
def test_none_from_few_images_or_where_it_is_not_wanted(n, calibrate):
    values = settle(answers(n), calibrate)
    assert values["temperature"] is None and values["held_out"]["n"] == n


def test_thresholds_are_of_divided_scores():
    sure = answers(2000, scale=1.0)
    plain, divided = settle(sure, True), settle(sure.divided(1 / 4), True)
    assert divided["temperature"] == pytest.approx(4 * plain["temperature"], rel=1e-3)
    for key in ("thresholds", "sets"):
        assert divided[key] == pytest.approx(plain[key], abs=1e-3)


def test_no_image_promises_nothing():
    values = settle(answers(5).without([f"{i:064x}" for i in range(5)]), True)
    assert values["temperature"] is None and values["sets"] == {}
    assert set(values["thresholds"].values()) == {None}


def test_a_saved_model_is_divided_and_says_so(tmp_path):
    network, folder = tiny_network(), tmp_path / "model"
    network.model.save_pretrained(folder)
    network.processor.save_pretrained(folder)
    before = pipeline("image-classification", str(folder), device="cpu")(photo(), top_k=3)
    values = settle(answers(500, scale=2.5), True)
    write_trust(folder, load_network(folder), values)
    after = load_network(folder)
    assert read_block(after.model.config)["temperature"] == values["temperature"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    stock = pipeline("image-classification", str(folder), device="cpu")(photo(), top_k=3)
    assert [row["label"] for row in stock] == [row["label"] for row in before]
    logs = np.log([row["score"] for row in before]) / values["temperature"]
    expected = np.exp(logs) / np.exp(logs).sum()
    assert [row["score"] for row in stock] == pytest.approx(expected, abs=1e-6)


def test_both_heads_of_a_distilled_network_are_divided():
    config = DeiTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DeiTForImageClassificationWithTeacher(config).eval()
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        before = model(pixel_values=pixels).logits
        divide_scores(model, 3.0)
        after = model(pixel_values=pixels).logits
    assert len(heads_of(model)) == 2 and torch.allclose(after * 3, before, atol=1e-6)


def test_scores_that_do_not_follow_the_head_are_refused(monkeypatch):
    network = tiny_network()
    forward = network.model.forward

    def bounded(**inputs):
        output = forward(**inputs)
        output.logits = torch.tanh(output.logits * 100)
        return output

    monkeypatch.setattr(network.model, "forward", bounded)
    with pytest.raises(RuntimeError, match="set calibrate false"):
        fold(network, 3.0)


def test_a_new_training_begins_without_a_promise(tmp_path):
    network = tiny_network()
    merge_block(network.model.config, temperature=2.0, thresholds={"0.95": 0.5})
    network.model.save_pretrained(tmp_path / "old")
    network.processor.save_pretrained(tmp_path / "old")
    from training.model.arguments import ModelArguments
    from training.model.create import build_network

    again = build_network(ModelArguments(model=str(tmp_path / "old")), LABELS, seed=0)
    assert again.head == "kept"
    assert not {"temperature", "thresholds"} & set(read_block(again.model.config))
