# SPDX-License-Identifier: Apache-2.0
"""LoRA's checkpoints: what they hold, an exact resume, the best of them, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from tests.unit.adapted import LORA, adapted, same, shake, trained_names, weights
from tests.unit.toys import score_as, tiny_network
from training.common.errors import UserError
from training.engine.checkpoints import LORA_WEIGHTS
from training.engine.extensions.averaging import MovingAverage
from training.engine.lora import LoRA

EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9,
              "eval_strategy": "steps", "eval_steps": 1}  # fmt: skip
LAST = {**EVERY_STEP, "eval_strategy": "no", "load_best_model_at_end": False}


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_for, tmp_path, ema_decay):
    """From the end of an epoch and from its middle, with all that is drawn and all that is kept."""
    values = {**LORA, **LAST, "total_train_batch_size": 6, "drop_path": 0.3, "layer_decay": 0.7,
              "lora_dropout": 0.2, "ema_decay": ema_decay, "mixup": 0.8}  # fmt: skip
    whole = trainer_for("whole", **values)
    whole.train()
    assert whole.state.global_step == 6
    files = [LORA_WEIGHTS, *([MovingAverage.file] if ema_decay else [])]
    for checkpoint in (3, 4):
        resumed = trainer_for(f"from{checkpoint}", **values)
        shake(resumed.model)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{checkpoint}"))
        one, two = (tmp_path / name / "checkpoint-6" for name in ("whole", f"from{checkpoint}"))
        for name in files:
            assert same(load_file(one / name), load_file(two / name)), (checkpoint, name)
        assert same(weights(whole.model), weights(resumed.model))
    if ema_decay:  # the average is another thing than what is trained
        assert not same(load_file(one / LORA_WEIGHTS), load_file(one / MovingAverage.file))


def test_a_checkpoint_is_the_adapters_and_the_head(trainer_for, tmp_path):
    trainer = trainer_for(**LORA, **LAST)
    names = trained_names(trainer.model) | {"vit.embeddings.position_embeddings"}
    trainer.train()
    folder = tmp_path / "run" / "checkpoint-4"
    assert set(load_file(folder / LORA_WEIGHTS)) == names
    assert not (folder / "model.safetensors").exists() and (folder / "complete").is_file()
    state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    assert len(state) == len(names) - 1


def test_buffers_are_in_a_checkpoint(tmp_path):
    """BatchNorm's statistics move though its weights are frozen."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).requires_grad_(False)
    model[2].requires_grad_(True)
    state = LoRA(SimpleNamespace(model=model), None).state()
    buffers = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert set(state) == buffers | {"2.weight", "2.bias"}


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_the_best_adapters_and_head_are_kept(trainer_for, tmp_path, monkeypatch, ema_decay):
    trainer = trainer_for(**LORA, **EVERY_STEP, ema_decay=ema_decay)
    scored = score_as(trainer, [0.5, 0.9, 0.7, 0.7, 0.1], monkeypatch)
    trainer.train()
    trainer.evaluate()  # the merged network
    best = load_file(tmp_path / "run" / "checkpoint-2" / LORA_WEIGHTS)
    assert all(torch.equal(scored[1][name], value) for name, value in best.items())
    assert not torch.equal(scored[3]["classifier.weight"], best["classifier.weight"])
    reference, adapters = adapted(tmp_path)
    adapters.load(tmp_path / "run" / "checkpoint-2")
    adapters.finish()
    assert same(weights(trainer.model), weights(reference)) and same(scored[4], weights(reference))


@pytest.mark.parametrize(("before", "after"), [("lora", "full"), ("full", "lora")])
def test_a_checkpoint_of_the_other_kind_is_refused(trainer_for, tmp_path, before, after):
    trainer_for("one", tune=before, max_steps=1, **LAST).train()
    with pytest.raises(
        UserError, match=f"adapters of LoRA and the recipe has tune {after}: resume"
    ):
        trainer_for("two", tune=after, **LAST).train(
            resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1")
        )


def test_a_checkpoint_of_other_adapters_or_weights_is_refused(trainer_for, tmp_path):
    trainer_for("one", **LORA, **LAST, max_steps=1).train()
    folder = str(tmp_path / "one" / "checkpoint-1")
    for values in ({"lora_rank": 2}, {"lora_target_modules": ["q_proj"]}):
        with pytest.raises(UserError, match="checkpoint-1 holds other adapters"):
            trainer_for("two", **{**LORA, **LAST, **values}).train(resume_from_checkpoint=folder)
    with pytest.raises(UserError, match="checkpoint-1 was trained on other frozen weights"):
        trainer_for("three", seed=1, **LORA, **LAST).train(resume_from_checkpoint=folder)


def test_positions_of_another_size_may_be_rounded_otherwise(tmp_path):
    """They are interpolated, on whatever processor there is; the checkpoint's are taken."""
    _, adapters = adapted(tmp_path)
    adapters.save_state(tmp_path / LORA_WEIGHTS)
    network = tiny_network()
    with torch.no_grad():
        network.model.vit.embeddings.position_embeddings.mul_(1 + 1e-6)
    model, other = adapted(tmp_path, network)
    other.load_state(tmp_path / LORA_WEIGHTS)
    wanted = tiny_network().model.vit.embeddings.position_embeddings
    assert torch.equal(model.vit.embeddings.position_embeddings, wanted)


def test_half_a_file_is_not_loaded(tmp_path):
    model, adapters = adapted(tmp_path)
    adapters.save_state(tmp_path / LORA_WEIGHTS)
    with safe_open(tmp_path / LORA_WEIGHTS, "pt") as file:
        metadata = file.metadata()
    part = dict(list(load_file(tmp_path / LORA_WEIGHTS).items())[:-1])
    save_file(part, tmp_path / "part.safetensors", metadata)
    before = weights(model)
    with pytest.raises(UserError, match="holds other adapters"):
        adapters.load_state(tmp_path / "part.safetensors")
    assert same(before, weights(model))
