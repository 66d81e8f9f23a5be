# SPDX-License-Identifier: Apache-2.0
"""Activations that are computed again, and nothing else changes."""

import warnings

import pytest

from training.engine.trainer import FoodTrainer

NO_CHECKPOINTS = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}


def losses(trainer: FoodTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.slow
def test_checkpointing_computes_twice_and_learns_the_same(trainer_for):
    runs = {}
    for wanted in (False, True):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*_checkpointing.*")  # of an old name
            trainer = trainer_for(
                str(wanted), gradient_checkpointing=wanted, logging_steps=1, **NO_CHECKPOINTS
            )
            calls: list[int] = []
            layer = trainer.model.vit.layers[0]
            layer.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
            trainer.train()
        assert layer.gradient_checkpointing == wanted
        runs[wanted] = losses(trainer), len(calls)
    assert layer._gradient_checkpointing_func.keywords == {"use_reentrant": False}
    (plain, once), (checkpointed, twice) = runs[False], runs[True]
    assert checkpointed == pytest.approx(plain, abs=1e-5) and len(plain) == 4
    assert (once, twice) == (4, 8)
