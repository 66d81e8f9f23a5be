# SPDX-License-Identifier: Apache-2.0
"""Heads that learn side by side on frozen features, the choice among them, and the run around it."""

import json
import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import EvalPrediction

from tests.unit.toys import tiny_network, tiny_settings
from training.common.errors import UserError
from training.evaluation.features import image_features
from training.model.head import head_of
from training.probe import trainer as probe
from training.probe.arguments import ProbeArguments
from training.probe.phases import build_probe
from training.probe.trainer import ProbeTrainer, best_rate, log_rates, scaled_rate

RATES = [0.01, 1.0, 30.0]
LAST = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
NO_SCORE = {"eval_strategy": "no", "load_best_model_at_end": False}
TOO_HIGH = 9e39  # for 256 images a step; for 8, the scores leave float32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets" / "vit-food101"


@pytest.fixture
def probe_for(splits, tmp_path):
    def probe_for(name: str = "run", rates: list[float] = RATES, **values: object) -> ProbeTrainer:
        values = {"tune": "linear_probe", **values}
        network = tiny_network(hidden_dropout_prob=0.1)  # the seed of the run must not leak in
        settings = tiny_settings(tmp_path / name, **values)
        return build_probe(network, splits, settings, ProbeArguments(rates))

    return probe_for


def heads_of(trainer: ProbeTrainer) -> list[dict[str, torch.Tensor]]:
    return [
        {name: value.detach().clone() for name, value in trainer.model.parameters_of(i).items()}
        for i in range(len(trainer.rates))
    ]


def test_a_schedule_with_a_lowest_rate_falls(probe_for, splits):
    """transformers takes it as a share of the optimizer's own default rate."""
    lowest = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-3}}
    probe = probe_for(rates=[0.1, 1.0], max_steps=10, **lowest)
    probe.create_optimizer_and_scheduler(10)
    first = [group["lr"] for group in probe.optimizer.param_groups]
    for _ in range(10):
        probe.optimizer.step()
        probe.lr_scheduler.step()
    last = [group["lr"] for group in probe.optimizer.param_groups]
    share = 1e-3 / probe.args.learning_rate
    assert last == pytest.approx([rate * share for rate in first]) and share < 0.1


# ---- training ---------------------------------------------------------------------------------


def test_each_head_is_what_it_would_be_alone(probe_for):
    together = probe_for("together", num_train_epochs=3, **LAST)
    together.train()
    for i, rate in enumerate(RATES):
        alone = probe_for(f"alone{i}", [rate], num_train_epochs=3, **LAST)
        alone.train()
        (only,) = heads_of(alone)
        for name, value in heads_of(together)[i].items():
            torch.testing.assert_close(value, only[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"label_smoothing_factor": 0.1, "warmup_steps": 2}])
def test_a_head_is_what_plain_torch_makes_of_it(probe_for, splits, more):
    """SGD with momentum on a cosine, at the rate times batch / 256, in the order of the seed."""
    trainer = probe_for(num_train_epochs=3, **LAST, **more)
    expected = [torch.nn.Linear(32, 3) for _ in RATES]
    for head in expected:
        head.load_state_dict(head_of(trainer.network.model).state_dict())
    trainer.train()
    inputs = image_features(trainer.network, splits.originals, 0, 0)
    targets = torch.tensor(splits.originals.dataset["label"][:])
    warmup, steps = more.get("warmup_steps", 0), 6
    for head, rate in zip(expected, RATES, strict=True):
        optimizer = torch.optim.SGD(head.parameters(), rate * 8 / 256, momentum=0.9)
        for step in range(steps):
            if step % 2 == 0:
                order = np.random.default_rng((0, step // 2)).permutation(len(inputs))
            factor = step / warmup if step < warmup else (
                1 + math.cos(math.pi * (step - warmup) / (steps - warmup))
            ) / 2  # fmt: skip
            optimizer.param_groups[0]["lr"] = rate * 8 / 256 * factor
            rows = torch.from_numpy(order[step % 2 * 8 : step % 2 * 8 + 8])
            loss = torch.nn.functional.cross_entropy(
                head(inputs[rows]),
                targets[rows],
                label_smoothing=more.get("label_smoothing_factor", 0),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for ours, theirs in zip(heads_of(trainer), expected, strict=True):
        torch.testing.assert_close(ours["weight"], theirs.weight.data, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours["bias"], theirs.bias.data, rtol=1e-4, atol=1e-5)


def test_accumulated_batches_are_one_big_batch(probe_for):
    runs = []
    for device in (8, 4):
        trainer = probe_for(
            f"by{device}", per_device_train_batch_size=device, logging_steps=1, **LAST
        )
        assert trainer.args.gradient_accumulation_steps == 8 // device
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        runs.append((heads_of(trainer), losses))
    assert runs[1][1] == pytest.approx(runs[0][1], abs=2e-4)
    for one, two in zip(runs[0][0], runs[1][0], strict=True):
        torch.testing.assert_close(one["weight"], two["weight"], rtol=1e-4, atol=1e-6)


def test_one_diverging_head_harms_no_other(probe_for, tmp_path):
    sane = probe_for("sane", logging_steps=1)
    sane.train()
    wild = probe_for("wild", [RATES[0], 500.0, *RATES[1:]], logging_steps=1)
    wild.rates[1] = TOO_HIGH  # a recipe may not have it
    wild.train()
    ours = heads_of(wild)
    for expected, found in zip(heads_of(sane), [ours[0], *ours[2:]], strict=True):
        torch.testing.assert_close(found["weight"], expected["weight"], rtol=1e-5, atol=1e-6)
    result = json.loads((tmp_path / "wild" / "probe.json").read_text())
    assert result["learning_rate"] != TOO_HIGH
    assert {"learning_rate": TOO_HIGH, "top1": None} in result["selection_top1"]
    logged = [
        [row["loss"] for row in run.state.log_history if "loss" in row] for run in (sane, wild)
    ]
    assert (
        logged[1] == pytest.approx(logged[0], abs=2e-4) and len(logged[0]) == 4
    )  # means of the sane


@pytest.mark.parametrize("strategy", ["epoch", "no"])
def test_no_head_left_stops_the_run(probe_for, strategy, tmp_path):
    more = {"load_best_model_at_end": False} if strategy == "no" else {}
    trainer = probe_for("run", [500.0], eval_strategy=strategy, save_strategy=strategy, **more)
    trainer.rates = [TOO_HIGH]
    with pytest.raises(UserError, match="lower probe_learning_rates"):
        trainer.train()
    assert not (tmp_path / "run" / "probe.json").exists()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_heads_and_features_are_float32_in_any_precision(probe_for, precision, monkeypatch):
    """Bit for bit the heads of a run without mixed precision."""
    exact = probe_for("exact", **LAST)
    exact.train()
    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    try:
        trainer = probe_for("mixed", **LAST)
        assert trainer.accelerator.mixed_precision == precision
        trainer.train()
    finally:
        AcceleratorState._reset_state(True)
    for ours, expected in zip(heads_of(trainer), heads_of(exact), strict=True):
        assert torch.equal(ours["weight"], expected["weight"])


@pytest.mark.parametrize(("limit_gb", "step"), [(0.0, 2), (1.0, 2), (1.0, 6)])
def test_a_resumed_probe_ends_like_one_that_was_never_interrupted(
    probe_for, tmp_path, limit_gb, step
):
    """Also where every step was done and the result was not yet written."""
    whole = probe_for("whole", num_train_epochs=3, save_total_limit=9)
    whole.eval_cache_gb = limit_gb
    whole.train()
    resumed = probe_for("resumed", num_train_epochs=3)
    resumed.eval_cache_gb = limit_gb
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    for ours, expected in zip(heads_of(resumed), heads_of(whole), strict=True):
        assert torch.equal(ours["weight"], expected["weight"])
    head, expected = (head_of(trainer.network.model) for trainer in (resumed, whole))
    assert torch.equal(head.weight, expected.weight) and torch.equal(head.bias, expected.bias)
    results = [(tmp_path / run / "probe.json").read_text() for run in ("resumed", "whole")]
    assert results[0] == results[1]


def test_a_checkpoint_of_something_else_is_refused(probe_for, trainer_for, tmp_path):
    saved = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, **NO_SCORE}
    probe_for("two", RATES[:2], **saved).train()
    trainer_for("full", **saved).train()
    for name in ("two", "full"):
        with pytest.raises(UserError, match=f"{name}/checkpoint-1 does not hold 3 heads"):
            probe_for("run").train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-1"))


# ---- the choice -------------------------------------------------------------------------------


def test_the_best_of_epochs_and_heads_is_in_the_network(probe_for, monkeypatch, tmp_path):
    trainer = probe_for(num_train_epochs=3)
    top1 = iter(
        [(0.1, 0.2, 0.3), (0.2, 0.9, 0.4), (0.8, 0.1, 0.1)]
    )  # the second head, second epoch
    scored = iter(())

    def metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        nonlocal scored
        value = next(scored, None)
        if value is None:
            scored = iter(next(top1))
            value = next(scored)
        return {"top1": value, "top5": 1.0, "macro_f1": value, "nll": 1.0, "ece": 0.1}

    monkeypatch.setattr(probe, "classification_metrics", metrics)
    seen = []
    evaluate = trainer.evaluate
    monkeypatch.setattr(
        trainer, "evaluate", lambda *a, **k: seen.append(heads_of(trainer)) or evaluate(*a, **k)
    )
    trainer.train()
    head = head_of(trainer.network.model)
    assert torch.equal(head.weight, seen[1][1]["weight"])
    assert torch.equal(head.bias, seen[1][1]["bias"])
    result = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert (result["learning_rate"], result["top1"], result["step"]) == (1.0, 0.9, 4)
    assert [row["top1"] for row in result["selection_top1"]] == [0.2, 0.9, 0.4]


def test_the_last_heads_are_kept_where_the_recipe_says_so(probe_for, tmp_path):
    trainer = probe_for(**LAST)
    assert trainer.train().global_step == 4  # what Trainer returns
    result = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert result["step"] == 4 and 0 <= result["top1"] <= 1
    i = RATES.index(result["learning_rate"])
    assert torch.equal(head_of(trainer.network.model).weight, heads_of(trainer)[i]["weight"])


def test_a_best_rate_at_the_edge_widens_the_grid(probe_for, tmp_path, caplog):
    """A head of a further pass is what it would be alone."""
    narrow = probe_for("narrow", [1e-4, 1e-3], num_train_epochs=9)
    narrow.train()
    found = json.loads((tmp_path / "narrow" / "probe.json").read_text())
    rate, tried = found["learning_rate"], [row["learning_rate"] for row in found["selection_top1"]]
    assert rate > 1e-3 and tried == sorted(tried) and {1e-4, 1e-3, 0.01, 0.1, 1.0} <= set(tried)
    words = "probe_learning_rates, 0.001, is at the edge of the grid: the grid is widened by 0.01, 0.1, 1"
    assert words in caplog.text
    alone = probe_for("alone", [rate], num_train_epochs=9)
    alone.train()
    ours, theirs = (head_of(trainer.network.model).weight for trainer in (narrow, alone))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert alone.kept_scores()["eval_top1"] == found["top1"] == narrow.kept_scores()["eval_top1"]
    assert narrow.facts()["learning_rate"] == found["scaled_learning_rate"]
    assert not list((tmp_path / "narrow").glob("wider-*"))


def test_widening_ends_where_every_further_head_diverges(probe_for, monkeypatch, caplog):
    trainer = probe_for("run", RATES)
    monkeypatch.setattr(probe, "beyond", lambda best, rates: [500.0])
    real = trainer._further

    def further(rates: list[float], number: int) -> ProbeTrainer:
        made = real(rates, number)
        made.rates = [TOO_HIGH]
        return made

    monkeypatch.setattr(trainer, "_further", further)
    trainer.train()
    assert "is at the edge of the grid: and beyond it: " in caplog.messages[-1]
    assert trainer.kept_scores()["eval_probe_learning_rate"] in RATES


@pytest.mark.parametrize(
    ("best", "rates", "further"),
    [
        (0.1, [0.01, 0.1], [1.0, 10.0, 100.0]),
        (0.01, [0.1, 0.01], [1e-3, 1e-4, 1e-5]),
        (0.1, [0.05, 0.1, 0.02], [0.2, 0.4, 0.8]),
        (0.1, [0.01, 0.1, 1.0], []),
        (0.1, [0.1], []),
        (1e5, [1e4, 1e5], []),
    ],
)
def test_rates_beyond_the_edge(best, rates, further):
    assert probe.beyond(best, rates) == further


@pytest.mark.parametrize(
    ("metric", "best"), [("top1", 0.1), ("nll", 0.2), ("loss", 0.2), ("ece", 0.3)]
)
def test_ties_go_to_the_lower_nll(metric, best):
    rows = {0.3: (0.8, 0.7, 0.1), 0.1: (0.8, 0.6, 0.3), 0.05: (0.8, 0.6, 0.2), 0.2: (0.7, 0.5, 0.2)}
    names = ("top1", "nll", "ece")
    scores = {rate: dict(zip(names, values, strict=True)) for rate, values in rows.items()}
    best = 0.05 if best == 0.1 else best  # of equals in all, the lower rate
    assert best_rate(scores, metric) == best


def test_a_line_for_each_head_marks_the_chosen_one(caplog):
    caplog.set_level("INFO")
    rows = [{"learning_rate": 0.01, "top1": 0.5}, {"learning_rate": 30.0, "top1": None}]
    log_rates({"learning_rate": 0.01, "selection_top1": rows})
    assert caplog.messages == [
        "learning rate 0.01: selection top-1 50.00%, chosen",
        "learning rate 30: selection top-1 not finite",
    ]


def test_the_loss_is_the_chosen_heads(probe_for):
    trainer = probe_for()
    trainer.train()
    rows = [row for row in trainer.state.log_history if "eval_top1" in row]
    assert all(row["eval_loss"] == row["eval_nll"] for row in rows)
    assert {f"eval_top1_lr_{rate}" for rate in RATES} <= set(rows[0])
    prediction = EvalPrediction(np.full((2, 3, 3), np.nan), np.zeros(2, int))
    with pytest.raises(UserError, match="no head has finite scores"):
        trainer.score_heads(prediction)


def test_the_rate_is_scaled_by_the_global_batch(tmp_path):
    arguments = tiny_settings(tmp_path, total_train_batch_size=512).training
    assert scaled_rate(0.01, arguments) == 0.02
