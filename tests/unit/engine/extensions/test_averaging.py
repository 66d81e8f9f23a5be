# SPDX-License-Identifier: Apache-2.0
"""The moving average of the weights: its values, what is scored and kept, and the resume."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.unit.toys import score_as, tiny_network, tiny_settings
from training.common.errors import UserError
from training.engine.extensions.averaging import MovingAverage, WeightAverage, warmed_up
from training.engine.method import load_weights
from training.engine.trainer import BaseTrainer, FoodTrainer
from training.engine.wiring import build_trainer

TRAINED_WEIGHTS = MovingAverage.file

EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9,
              "eval_strategy": "steps", "eval_steps": 1}  # fmt: skip
LAST = {**EVERY_STEP, "eval_strategy": "no", "load_best_model_at_end": False}


@pytest.fixture
def trainer_for(splits, tmp_path):
    def trainer_for(name: str = "run", seed: int = 0, **values: object) -> FoodTrainer:
        arguments = tiny_settings(tmp_path / name, **{"ema_decay": 0.5, **values})
        return build_trainer(tiny_network(seed=seed), splits, arguments)

    return trainer_for


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def averaged(folder: Path) -> dict[str, torch.Tensor]:
    """What `from_pretrained` of a checkpoint gives."""
    model = tiny_network(seed=9).model
    load_weights(model, folder)
    return weights(model)


# ---- the arithmetic ---------------------------------------------------------------------------


def test_the_average_is_its_definition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average, wanted = WeightAverage(model, 0.4), weights(model)
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 2))  # moves the statistics and counts the batch
        average.update(step)
        decay = min(0.4, (1 + step) / (10 + step))
        for name, value in weights(model).items():
            if value.is_floating_point():
                wanted[name] = decay * wanted[name] + (1 - decay) * value
            else:
                wanted[name] = value
    live = weights(model)
    with average.in_model():
        inside = weights(model)
    assert same(weights(model), live)
    for name, value in wanted.items():
        assert torch.allclose(inside[name], value), name
    assert inside["1.num_batches_tracked"] == 5
    assert not torch.allclose(inside["0.weight"], live["0.weight"])


def test_the_warm_up_forgets_the_first_weights():
    assert [warmed_up(0.999, step) for step in (1, 8)] == [2 / 11, 0.5]
    assert warmed_up(0.999, 100_000) == 0.999


def test_what_is_swapped_comes_back_after_an_error():
    model = nn.Linear(2, 2)
    average, live = WeightAverage(model, 0.5), weights(model)
    with torch.no_grad():
        model.weight.add_(1)
    with pytest.raises(ZeroDivisionError), average.in_model():
        assert torch.equal(model.weight, live["weight"])
        _ = 1 / 0
    assert torch.equal(model.weight, live["weight"] + 1)


# ---- in training ------------------------------------------------------------------------------


def test_the_weights_go_on_training_as_without_an_average(trainer_for, tmp_path):
    plain = trainer_for("plain", ema_decay=None, **LAST)
    plain.train()
    trainer = trainer_for("ema", **LAST)
    start = weights(trainer.model)
    trainer.train()
    average = start
    for step in range(1, 5):
        folder = tmp_path / "ema" / f"checkpoint-{step}"
        trained = load_file(folder / TRAINED_WEIGHTS)
        assert same(trained, averaged(tmp_path / "plain" / f"checkpoint-{step}"))
        decay = warmed_up(0.5, step)
        average = {name: decay * average[name] + (1 - decay) * trained[name] for name in average}
        kept = averaged(folder)
        assert all(torch.allclose(kept[name], average[name], atol=1e-6) for name in average)
    assert not torch.allclose(kept["classifier.weight"], trained["classifier.weight"], atol=1e-5)
    # Without a best checkpoint to load, the model ends with the last average.
    assert same(weights(trainer.model), kept) and not trainer.active
    assert not (tmp_path / "plain" / "checkpoint-4" / TRAINED_WEIGHTS).exists()


def test_the_average_is_scored_and_the_best_of_it_kept(trainer_for, tmp_path, monkeypatch):
    trainer = trainer_for(**EVERY_STEP)
    scored = score_as(trainer, [0.5, 0.9, 0.7, 0.7, 0.1], monkeypatch)
    trainer.train()
    for step, seen in enumerate(scored, 1):
        assert same(seen, averaged(tmp_path / "run" / f"checkpoint-{step}")), step
    assert trainer.state.best_global_step == 2
    assert same(weights(trainer.model), scored[1])
    trainer.evaluate()  # after training there is nothing left to swap
    assert same(scored[4], scored[1])


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_for, tmp_path):
    """From the end of an epoch and from its middle: trained weights and average."""
    values = {**LAST, "total_train_batch_size": 6, "drop_path": 0.3, "layer_decay": 0.7}
    whole = trainer_for("whole", **values)
    whole.train()
    assert whole.state.global_step == 6
    for checkpoint in (3, 4):
        resumed = trainer_for(f"from{checkpoint}", seed=5, **values)  # other weights
        folder = tmp_path / "whole" / f"checkpoint-{checkpoint}"
        resumed.train(resume_from_checkpoint=str(folder))
        one, two = (tmp_path / name / "checkpoint-6" for name in ("whole", f"from{checkpoint}"))
        for name in ("model.safetensors", TRAINED_WEIGHTS):
            assert (one / name).read_bytes() == (two / name).read_bytes(), (checkpoint, name)
        assert same(weights(whole.model), weights(resumed.model))


@pytest.mark.parametrize(("before", "after"), [(None, 0.5), (0.5, None)])
def test_a_checkpoint_of_the_other_kind_is_refused(trainer_for, tmp_path, before, after):
    trainer_for("one", ema_decay=before, max_steps=1, **LAST).train()
    with pytest.raises(UserError, match=f"ema_decay and the recipe has {after}"):
        trainer_for("two", ema_decay=after, **LAST).train(
            resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1")
        )


def test_an_average_of_parts_is_refused(trainer_for, monkeypatch):
    monkeypatch.setattr(BaseTrainer, "is_sharded", True)
    with pytest.raises(UserError, match="ema_decay 0.9 with FSDP or DeepSpeed"):
        trainer_for(ema_decay=0.9)
    trainer_for(ema_decay=None)
