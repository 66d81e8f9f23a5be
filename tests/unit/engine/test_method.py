# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of the whole network holds, and what is not loaded into it."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeiTConfig, DeiTForImageClassification

from tests.unit.toys import TINY_VIT, tiny_network
from training.common.errors import UserError
from training.engine.method import WholeNetwork, load_weights
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


def test_a_whole_network_comes_back_from_its_files(tmp_path):
    """From the folder that is scored, and from the one file of trained weights."""
    one, two = WholeNetwork(tiny_network(seed=1)), WholeNetwork(tiny_network(seed=2))
    (tmp_path / "checkpoint").mkdir()
    one.save(tmp_path / "checkpoint")
    one.save_state(tmp_path / "state.safetensors")
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    for load in (
        lambda method: method.load(tmp_path / "checkpoint"),
        lambda method: method.load_state(tmp_path / "state.safetensors"),
    ):
        with torch.no_grad():
            for value in two.state().values():  # the tensors themselves
                value.fill_(3)
        assert all((value == 3).all() for value in two.model.state_dict().values())
        load(two)
        assert one.state().keys() == two.state().keys()
        assert all(torch.equal(value, one.state()[name]) for name, value in two.state().items())


def test_weights_that_are_missing_are_not_left_as_they_are(tmp_path):
    method = WholeNetwork(tiny_network())
    state = method.state()
    del state["classifier.bias"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match="classifier.bias"):
        method.load_state(tmp_path / "part.safetensors")


def test_a_whole_network_may_be_sharded_and_ends_as_it_is():
    method = WholeNetwork(tiny_network(), "probe_then_full")
    before = {name: value.clone() for name, value in method.state().items()}
    method.refuse_shards()
    with method.set_aside():
        assert all(torch.equal(value, before[name]) for name, value in method.state().items())
    method.finish()
    assert method.tune == "probe_then_full"
    assert all(torch.equal(value, before[name]) for name, value in method.state().items())


def test_a_damaged_state_is_one_line(tmp_path):
    method, path = WholeNetwork(tiny_network()), tmp_path / "trained_weights.safetensors"
    method.save_state(path)
    method.load_state(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="trained_weights.safetensors is damaged or of another"):
        method.load_state(path)
    WholeNetwork(tiny_network(hidden_size=16)).save_state(path)
    with pytest.raises(UserError, match="damaged or of another network"):
        method.load_state(path)
