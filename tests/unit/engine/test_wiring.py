# SPDX-License-Identifier: Apache-2.0
"""The trainer of a recipe: its extensions and their order, its method, and what is refused."""

import dataclasses

import datasets
import numpy as np
import pytest
import torch
from transformers import EvalPrediction, ResNetConfig, ResNetForImageClassification

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
)
from training.common.errors import UserError
from training.engine.arguments import ExtensionArguments
from training.engine.extensions.average_last import AverageLast
from training.engine.extensions.averaging import MovingAverage
from training.engine.extensions.drop_path import DropPath
from training.engine.extensions.erasing import Erasing
from training.engine.extensions.layer_decay import LayerDecay
from training.engine.extensions.mixing import Mixing
from training.engine.lora import LoRA
from training.engine.method import WholeNetwork
from training.engine.wiring import EXTENSIONS, build_method, build_trainer, selection_metrics
from training.evaluation.metrics import SUMMARY
from training.input.eval_images import CachedImages, EvalImages
from training.model.network import Network


def test_fewer_images_than_a_batch_are_refused(trainer_for):
    with pytest.raises(UserError, match="total_train_batch_size 19 is more than the 18 training"):
        trainer_for(total_train_batch_size=19)
    trainer_for(total_train_batch_size=18)


def test_few_images_are_trained_on_for_min_steps(trainer_for, caplog):
    """18 images in batches of 6: 3 steps an epoch."""
    caplog.set_level("INFO")
    longer = trainer_for("longer", total_train_batch_size=6, num_train_epochs=2, min_steps=8)
    assert "min_steps 8: 2.67 epochs of 3 steps, not 2" in caplog.text
    given = trainer_for("given", total_train_batch_size=6, max_steps=8)
    for trainer in (longer, given):
        trainer.train()
        assert trainer.state.global_step == 8
    weights = [each.network.model.state_dict() for each in (longer, given)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("keys", [{"num_train_epochs": 3}, {"max_steps": 2}])
def test_min_steps_shorten_nothing_and_max_steps_go_over_them(trainer_for, caplog, keys):
    caplog.set_level("INFO")
    args = trainer_for(total_train_batch_size=6, min_steps=9, **keys).args
    assert args.max_steps == keys.get("max_steps", -1) and "min_steps" not in caplog.text


def test_a_network_without_checkpointing_is_refused(splits, tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    ours = tiny_network()
    other = Network(ResNetForImageClassification(config), ours.processor, ours.preprocessing,
                    None, None, "new")  # fmt: skip
    with pytest.raises(UserError, match="gradient_checkpointing: ResNet.* does not support it"):
        build_trainer(other, splits, tiny_settings(tmp_path, gradient_checkpointing=True))
    build_trainer(other, splits, tiny_settings(tmp_path))


ALL = {"ema_decay": 0.9, "mixup": 0.8, "random_erasing": 0.5, "drop_path": 0.1, "layer_decay": 0.7}


def test_extensions_are_on_as_the_recipe_asks_and_in_their_order(trainer_for):
    assert trainer_for().extensions == []
    order = [LayerDecay, DropPath, Erasing, Mixing, MovingAverage]
    assert [type(each) for each in trainer_for(**ALL).extensions] == order
    assert [type(each) for each in trainer_for(average_last=2).extensions] == [AverageLast]
    for key, kind in {
        **dict(
            zip(sorted(ALL), (DropPath, MovingAverage, LayerDecay, Mixing, Erasing), strict=True)
        ),
        "cutmix": Mixing,
    }.items():
        (only,) = trainer_for(**{key: ALL.get(key, 1.0)}).extensions
        assert type(only) is kind, key


def test_what_the_extensions_need_is_drawn_by_the_workers(trainer_for):
    """Each from a stream of its own."""
    item = trainer_for(**ALL).train_dataset.__getitems__([0, 1])[0]
    assert {"erase_box", "mix_lambda", "mix_box", "drop_path"} <= set(item)
    plain = trainer_for().train_dataset.__getitems__([0, 1])[0]
    assert not {"erase_box", "mix_lambda", "mix_box", "drop_path"} & set(plain)
    streams = [each.draws.stream for each in trainer_for(**ALL).extensions if each.draws]
    assert len({*streams}) == len(streams) == 3


def test_the_trainer_knows_of_every_extension_whether_it_is_on(trainer_for):
    offered = trainer_for(ema_decay=0.9).offered
    assert tuple(offered) == EXTENSIONS
    assert (offered[MovingAverage], offered[AverageLast]) == (0.9, None)
    keys = {field.name for field in dataclasses.fields(ExtensionArguments)}
    assert {kind.key for kind in EXTENSIONS if kind.file} <= keys  # the message needs the value


def test_the_selection_slice_is_decoded_once_where_a_cache_is_allowed(
    splits, tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    settings = tiny_settings(tmp_path / "run")
    plain = build_trainer(tiny_network(), splits, settings)
    assert isinstance(plain.eval_dataset, EvalImages)
    assert not (tmp_path / "cache").exists()
    cached = build_trainer(tiny_network(), splits, settings, eval_cache_gb=1.0)
    assert isinstance(cached.eval_dataset, CachedImages)
    assert len(plain.eval_dataset) == len(cached.eval_dataset) == 6


def test_the_method_is_the_recipes(tmp_path):
    network = tiny_network()
    method = build_method(network, tiny_settings(tmp_path, tune="probe_then_full"))
    assert isinstance(method, WholeNetwork) and method.tune == "probe_then_full"
    assert method.model is network.model
    for tune in ("lora", "probe_then_lora"):
        method = build_method(tiny_network(), tiny_settings(tmp_path, tune=tune))
        assert isinstance(method, LoRA) and method.tune == tune


def test_the_metrics_of_a_selection_are_those_of_the_summary():
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    scores = selection_metrics()(EvalPrediction(logits, np.array([0, 1, 2, 2])))
    assert tuple(scores) == tuple(SUMMARY) and scores["top1"] == 0.75
