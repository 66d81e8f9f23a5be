# SPDX-License-Identifier: Apache-2.0
"""The mean of the weights at the last k scorings: what is scored, kept, and resumed from."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.adapted import same, weights
from tests.unit.toys import score_as, tiny_network, tiny_settings
from training.common.errors import UserError
from training.engine.extensions.average_last import AverageLast
from training.engine.method import load_weights
from training.engine.trainer import BaseTrainer, FoodTrainer
from training.engine.wiring import build_trainer

EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9,
              "eval_strategy": "steps", "eval_steps": 1}  # fmt: skip
LAST = {**EVERY_STEP, "load_best_model_at_end": False}


@pytest.fixture
def trainer_for(splits, tmp_path):
    def trainer_for(name: str = "run", seed: int = 0, **values: object) -> FoodTrainer:
        settings = tiny_settings(tmp_path / name, **{"average_last": 3, **LAST, **values})
        return build_trainer(tiny_network(seed=seed), splits, settings)

    return trainer_for


def saved(folder: Path) -> dict[str, torch.Tensor]:
    """What `from_pretrained` of a checkpoint gives."""
    model = tiny_network(seed=9).model
    load_weights(model, folder)
    return weights(model)


def mean(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([state[name] for state in states]).double().mean(0).float()
        for name in states[0]
    }


def files(run: Path) -> list[int]:
    """The steps whose weights are kept."""
    return sorted(int(path.stem.split("-")[1]) for path in (run / "average_last").iterdir())


def test_the_mean_is_scored_saved_and_kept_and_training_goes_on_as_without_it(
    trainer_for, tmp_path, monkeypatch
):
    trainer_for("plain", average_last=None).train()
    trainer = trainer_for("run")
    scored = score_as(trainer, [0.1] * 9, monkeypatch)
    trainer.train()
    trained = [saved(tmp_path / "plain" / f"checkpoint-{step}") for step in range(1, 5)]
    for step in range(1, 5):
        wanted = mean(trained[max(0, step - 3) : step])
        folder = tmp_path / "run" / f"checkpoint-{step}"
        assert same(scored[step - 1], wanted), step
        assert same(saved(folder), wanted)
        assert same(load_file(folder / AverageLast.file), trained[step - 1])
    assert same(weights(trainer.model), wanted)  # without a best checkpoint to load, the last mean
    assert not trainer.active


def test_the_best_mean_is_loaded(trainer_for, monkeypatch):
    trainer = trainer_for(load_best_model_at_end=True)
    scored = score_as(trainer, [0.1, 0.9, 0.2, 0.3], monkeypatch)
    trainer.train()
    assert same(weights(trainer.model), scored[1])


@pytest.mark.parametrize("more", [{}, {"mixup": 0.8, "drop_path": 0.3}])
@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trainer_for, tmp_path, more):
    """In its own folder after a kill behind a scoring, and from an older checkpoint elsewhere."""
    whole = trainer_for("whole", **more)
    whole.train()
    run = tmp_path / "whole"
    killed = shutil.copytree(run, tmp_path / "killed")
    shutil.rmtree(killed / "checkpoint-4")  # step-4.safetensors is of the scoring before it
    for name, checkpoint in (("killed", killed / "checkpoint-3"), ("new", run / "checkpoint-2")):
        resumed = trainer_for(name, seed=5, **more)  # other first weights
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert same(weights(whole.model), weights(resumed.model)), name
        for file in ("model.safetensors", AverageLast.file):
            one, two = (each / "checkpoint-4" / file for each in (run, tmp_path / name))
            assert one.read_bytes() == two.read_bytes(), (name, file)


def test_files_are_kept_as_long_as_a_checkpoint_needs_them(trainer_for, tmp_path):
    trainer_for("run", average_last=2, save_total_limit=1).train()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-4"]
    assert files(tmp_path / "run") == [3, 4]
    trainer_for("more", average_last=2, save_total_limit=2).train()
    assert files(tmp_path / "more") == [2, 3, 4]
    # Nothing to resume from: only what the mean needs.
    trainer_for("none", average_last=2, save_strategy="no").train()
    assert files(tmp_path / "none") == [3, 4]


def test_weights_that_are_gone_are_named(trainer_for, tmp_path):
    trainer_for("run").train()
    (tmp_path / "run" / "average_last" / "step-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"needs the weights of step 2, and .*is not there"):
        trainer_for("two").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))


def test_a_run_that_never_scores_is_refused(trainer_for):
    with pytest.raises(UserError, match="average_last 3 with eval_strategy no: nothing"):
        trainer_for(eval_strategy="no")


@pytest.mark.parametrize(("before", "after"), [(None, 3), (3, None)])
def test_a_checkpoint_of_the_other_kind_is_refused(trainer_for, tmp_path, before, after):
    trainer_for("one", average_last=before, max_steps=1).train()
    with pytest.raises(UserError, match=f"average_last and the recipe has {after}"):
        trainer_for("two", average_last=after).train(
            resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-1")
        )


def test_adapters_are_averaged_and_merged(trainer_for, tmp_path):
    lora = {"tune": "lora", "lora_rank": 2, "learning_rate": 0.02}
    trainer = trainer_for("lora", **lora)
    trainer.train()
    assert not any("lora" in name for name in trainer.model.state_dict())
    states = [
        load_file(tmp_path / "lora" / "average_last" / f"step-{step}.safetensors")
        for step in (2, 3, 4)
    ]
    assert any("lora_A" in name for name in states[0])
    assert torch.equal(trainer.model.classifier.weight, mean(states)["classifier.weight"])


def test_what_makes_no_sense_is_refused(trainer_for, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="average_last is 1: give at least 2, or leave it out"):
        tiny_settings(tmp_path, average_last=1)
    with pytest.raises(UserError, match="average_last 3 with ema_decay 0.9: .* leave one of them"):
        tiny_settings(tmp_path, average_last=3, ema_decay=0.9)
    monkeypatch.setattr(BaseTrainer, "is_sharded", True)
    with pytest.raises(UserError, match="average_last 3 with FSDP or DeepSpeed"):
        trainer_for()
