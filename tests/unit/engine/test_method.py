# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of the whole network holds, and what is not loaded into it."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeiTConfig, DeiTForImageClassification

from tests.unit.toys import TINY_VIT, tiny_network
from training.common.errors import UserError
from training.engine.method import load_weights
from training.engine.trainer import FoodTrainer


def weights(trainer: FoodTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def test_load_weights_restores_every_tensor(trainer_for, tmp_path):
    """Trainer's own loading matches names non-strictly, and no encoder weight would match."""
    trainer = trainer_for(max_steps=2, save_steps=2, save_strategy="steps", eval_strategy="no",
                          load_best_model_at_end=False)  # fmt: skip
    trainer.train()
    trained = weights(trainer)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert (checkpoint / "complete").is_file()
    # The trap itself: the file's names are not the model's.
    assert set(load_file(checkpoint / "model.safetensors")) != set(trained)
    fresh = tiny_network(seed=9).model
    assert all(not torch.equal(v, trained[k]) for k, v in fresh.state_dict().items() if v.std() > 0)
    load_weights(fresh, checkpoint)
    assert all(torch.equal(v, trained[k]) for k, v in fresh.state_dict().items())


def test_checkpoints_of_something_else_are_refused(tmp_path):
    model = tiny_network().model
    tiny_network(hidden_size=48).model.save_pretrained(tmp_path / "wider")
    with pytest.raises(UserError, match="wider is of another network: .*size mismatch"):
        load_weights(model, tmp_path / "wider")
    DeiTForImageClassification(DeiTConfig(**TINY_VIT, num_labels=3)).save_pretrained(
        tmp_path / "deit"
    )
    with pytest.raises(UserError, match=r"\['DeiTForImage\w+'\] and not ViTForImage"):
        load_weights(model, tmp_path / "deit")  # its encoder would be drawn at random
    (tmp_path / "heads").mkdir()
    save_file({"weights.0": torch.zeros(3, 32)}, tmp_path / "heads" / "model.safetensors")
    with pytest.raises(UserError, match="heads holds no whole network .a linear probe's"):
        load_weights(model, tmp_path / "heads")
