# SPDX-License-Identifier: Apache-2.0
"""The trainer of a recipe: its extensions and their order, its method, and what is refused."""

import pytest
from transformers import ResNetConfig, ResNetForImageClassification

from tests.unit.toys import (
    tiny_network,
    tiny_settings,
)
from training.common.errors import UserError
from training.engine.wiring import build_trainer
from training.model.network import Network


def test_fewer_images_than_a_batch_are_refused(trainer_for):
    with pytest.raises(UserError, match="total_train_batch_size 19 is more than the 18 training"):
        trainer_for(total_train_batch_size=19)
    trainer_for(total_train_batch_size=18)


def test_an_unknown_metric_is_refused_before_the_first_step(trainer_for):
    with pytest.raises(UserError, match="metric_for_best_model is acc: give one of top1, .*, loss"):
        trainer_for(metric_for_best_model="acc")
    trainer_for(metric_for_best_model="eval_nll")


def test_a_network_without_checkpointing_is_refused(splits, tmp_path):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    ours = tiny_network()
    other = Network(ResNetForImageClassification(config), ours.processor, ours.preprocessing,
                    None, None, "new")  # fmt: skip
    with pytest.raises(UserError, match="gradient_checkpointing: ResNet.* does not support it"):
        build_trainer(other, splits, tiny_settings(tmp_path, gradient_checkpointing=True))
    build_trainer(other, splits, tiny_settings(tmp_path))
