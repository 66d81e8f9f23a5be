# SPDX-License-Identifier: Apache-2.0
"""Heads that learn side by side on frozen features, the choice among them, and the run around it."""

import json
import math
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import EvalPrediction, pipeline

from tests.unit.toys import tiny_arguments, tiny_network, train, write_recipe
from training import features, probe
from training.config import parse_recipe
from training.errors import UserError
from training.features import image_features
from training.model import head_of, load_network
from training.probe import ProbeTrainer, best_rate, build_probe, scaled_rate
from training.trainer import FoodTrainer

RATES = [0.01, 1.0, 30.0]
TOO_HIGH = 9e39  # for 256 images a step; for 8, the scores leave float32


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "datasets" / "vit-food101"


@pytest.fixture
def probe_for(splits, tmp_path):
    def probe_for(name: str = "run", rates: list[float] = RATES, **values: object) -> ProbeTrainer:
        values = {"tune": "linear_probe", "probe_learning_rates": rates, **values}
        network = tiny_network(hidden_dropout_prob=0.1)  # the seed of the run must not leak in
        return build_probe(network, splits, tiny_arguments(tmp_path / name, **values))

    return probe_for


def heads_of(trainer: ProbeTrainer) -> list[dict[str, torch.Tensor]]:
    return [
        {name: value.detach().clone() for name, value in trainer.model.parameters_of(i).items()}
        for i in range(len(trainer.rates))
    ]


# ---- training ---------------------------------------------------------------------------------


def test_each_head_is_what_it_would_be_alone(probe_for):
    together = probe_for("together", num_train_epochs=3, load_best_model_at_end=False)
    together.train()
    for i, rate in enumerate(RATES):
        alone = probe_for(f"alone{i}", [rate], num_train_epochs=3, load_best_model_at_end=False)
        alone.train()
        (only,) = heads_of(alone)
        for name, value in heads_of(together)[i].items():
            torch.testing.assert_close(value, only[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("more", [{}, {"label_smoothing_factor": 0.1, "warmup_steps": 2}])
def test_a_head_is_what_plain_torch_makes_of_it(probe_for, splits, more):
    """SGD with momentum on a cosine, at the rate times batch / 256, in the order of the seed."""
    trainer = probe_for(num_train_epochs=3, load_best_model_at_end=False, **more)
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
        trainer = probe_for(f"by{device}", per_device_train_batch_size=device, logging_steps=1)
        assert trainer.args.gradient_accumulation_steps == 8 // device
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        runs.append((heads_of(trainer), losses))
    assert runs[1][1] == pytest.approx(runs[0][1], abs=2e-4)
    for one, two in zip(runs[0][0], runs[1][0], strict=True):
        torch.testing.assert_close(one["weight"], two["weight"], rtol=1e-4, atol=1e-6)


def test_one_diverging_head_harms_no_other(probe_for, tmp_path):
    sane = probe_for("sane")
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
    assert all(math.isfinite(row["loss"]) for row in wild.state.log_history if "loss" in row)


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
    """The sum of the weights is compared with that of a run without mixed precision."""
    exact = probe_for("exact")
    exact.train()
    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    try:
        trainer = probe_for("mixed")
        assert trainer.accelerator.mixed_precision == precision
        trainer.train()
    finally:
        AcceleratorState._reset_state(True)
    for ours, expected in zip(heads_of(trainer), heads_of(exact), strict=True):
        assert torch.equal(ours["weight"], expected["weight"])


@pytest.mark.parametrize("limit_gb", [0.0, 1.0])
def test_a_resumed_probe_ends_like_one_that_was_never_interrupted(probe_for, tmp_path, limit_gb):
    whole = probe_for("whole", num_train_epochs=3, save_total_limit=9)
    whole.eval_cache_gb = limit_gb
    whole.train()
    resumed = probe_for("resumed", num_train_epochs=3)
    resumed.eval_cache_gb = limit_gb
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name in ("model.safetensors", "../head.safetensors"):
        ours, expected = (
            load_file(tmp_path / run / "checkpoint-6" / name) for run in ("resumed", "whole")
        )
        assert all(torch.equal(value, ours[key]) for key, value in expected.items())
    results = [(tmp_path / run / "probe.json").read_text() for run in ("resumed", "whole")]
    assert results[0] == results[1]


def test_a_checkpoint_of_something_else_is_refused(probe_for, trainer_for, tmp_path):
    probe_for("two", RATES[:2]).train()
    trainer_for("full").train()
    for name in ("two", "full"):
        with pytest.raises(UserError, match=f"{name}/checkpoint-4 does not hold 3 heads"):
            probe_for("run").train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-4"))


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
    values = {"load_best_model_at_end": False, "eval_strategy": "no", "save_strategy": "no"}
    trainer = probe_for(**values)
    trainer.train()
    result = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert result["step"] == 4 and 0 <= result["top1"] <= 1
    i = RATES.index(result["learning_rate"])
    assert torch.equal(head_of(trainer.network.model).weight, heads_of(trainer)[i]["weight"])


@pytest.mark.parametrize(
    ("metric", "best"), [("top1", 0.1), ("nll", 0.2), ("loss", 0.2), ("ece", 0.3)]
)
def test_ties_go_to_the_lower_nll(metric, best):
    rows = {0.3: (0.8, 0.7, 0.1), 0.1: (0.8, 0.6, 0.3), 0.05: (0.8, 0.6, 0.2), 0.2: (0.7, 0.5, 0.2)}
    names = ("top1", "nll", "ece")
    scores = {rate: dict(zip(names, values, strict=True)) for rate, values in rows.items()}
    best = 0.05 if best == 0.1 else best  # of equals in all, the lower rate
    assert best_rate(scores, metric) == best


def test_the_loss_is_the_chosen_heads(probe_for):
    trainer = probe_for()
    trainer.train()
    rows = [row for row in trainer.state.log_history if "eval_top1" in row]
    assert all(row["eval_loss"] == row["eval_nll"] for row in rows)
    assert {f"eval_top1_lr_{rate}" for rate in RATES} <= set(rows[0])
    prediction = EvalPrediction(np.full((2, 3, 3), np.nan), np.zeros(2, int))
    with pytest.raises(UserError, match="no head has finite scores"):
        trainer.score_heads(prediction)


# ---- whole runs -------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path, tiny_run, tiny_data) -> Path:
    """From the weights of `tiny_run`, with dropout: it draws from a stream that all phases share."""
    model = shutil.copytree(tiny_run / "model", tmp_path / "backbone")
    config = json.loads((model / "config.json").read_text()) | {"hidden_dropout_prob": 0.1}
    (model / "config.json").write_text(json.dumps(config))
    return write_recipe(
        tmp_path / "tiny.yaml",
        dataset=tiny_data,
        model=model,
        model_config=None,
        learning_rate=None,
        tune="linear_probe",
        num_train_epochs=3,
        probe_learning_rates=RATES,
    )


def kill_at(monkeypatch, step: int, trainer: type[FoodTrainer]) -> None:
    real = trainer.training_step

    def training_step(self, *args, **kwargs):
        if type(self) is trainer and self.state.global_step == step:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", training_step)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_probe_run_from_its_recipe_to_its_release(recipe, tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(recipe, "--output_dir", run)
    record = json.loads((run / "run.json").read_text())["training"]
    assert record["tune"] == "linear_probe" and record["augmentation"] == {}
    assert (record["optimizer"], record["weight_decay"], record["max_grad_norm"]) == ("sgd", 0, 0)
    chosen = record["probe"]["learning_rate"]
    assert chosen in RATES and record["learning_rate"] == chosen * 8 / 256
    assert len(record["probe"]["selection_top1"]) == len(RATES)
    before, after = weights(tiny_run), weights(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert equal(load_file(run / "release" / "model.safetensors"), after)
    card = (run / "release" / "README.md").read_text()
    assert f"learning rate {chosen:g} of 3, chosen on the selection slice" in card
    stock = pipeline("image-classification", model=str(run / "release"), device="cpu")
    report = json.loads((run / "evaluation.json").read_text())
    assert len(stock(str(run / "example.jpg"))) == 3 and report["n"] == 18
    monkeypatch.setattr(features, "compute_features", None)  # another run with the same network
    train(recipe, "--output_dir", tmp_path / "second")
    assert equal(weights(tmp_path / "second"), after)


def test_an_interrupted_probe_is_resumed(recipe, tmp_path, monkeypatch):
    train(recipe, "--output_dir", tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 5, ProbeTrainer)
        train(recipe, "--output_dir", tmp_path / "cut")
    with pytest.raises(UserError, match="holds an unfinished run"):
        train(recipe, "--output_dir", tmp_path / "cut")
    train(recipe, "--output_dir", tmp_path / "cut", "--resume_from_checkpoint", "last")
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


LPFT = ["--tune", "probe_then_full", "--probe_epochs", "2", "--learning_rate", "1e-3"]
LPFT += ["--num_train_epochs", "2", "--mixup", "0.8", "--drop_path", "0.2", "--ema_decay", "0.9"]


@pytest.fixture
def lpft(recipe, tmp_path):
    """lpft(name, *further) -> the folder of a run with both phases."""

    def lpft(name: str, *further: object) -> Path:
        train(recipe, "--output_dir", tmp_path / name, *LPFT, *further)
        return tmp_path / name

    return lpft


def test_probe_then_full_is_probe_and_then_full(lpft, recipe, tmp_path, monkeypatch):
    seen = []
    real = FoodTrainer.train

    def spy(self, *args, **kwargs):
        if type(self) is FoodTrainer:
            seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return real(self, *args, **kwargs)

    monkeypatch.setattr(FoodTrainer, "train", spy)
    run = lpft("run")
    head = load_file(run / "probe" / "head.safetensors")
    assert torch.equal(seen[0]["classifier.weight"], head["weight"])
    train(recipe, "--output_dir", tmp_path / "alone", "--num_train_epochs", "2")
    assert equal(load_file(tmp_path / "alone" / "head.safetensors"), head)  # the same probe
    record = json.loads((run / "run.json").read_text())
    assert record["seconds"]["probe"] > 0 and record["training"]["learning_rate"] == 1e-3
    result = json.loads((run / "probe" / "probe.json").read_text())
    assert record["training"]["probe"] == result and result["epochs"] == 2
    start = load_network(run / "model").model.state_dict()
    assert sum(not torch.equal(start[name], seen[0][name]) for name in start) == len(start)
    card = (run / "release" / "README.md").read_text()
    assert "all weights, after 2 epochs of a linear head on frozen features" in card


@pytest.mark.parametrize(("phase", "step"), [(ProbeTrainer, 5), (FoodTrainer, 1), (FoodTrainer, 5)])
def test_an_interruption_in_either_phase_changes_nothing(lpft, monkeypatch, phase, step):
    whole = lpft("whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, step, phase)
        lpft("cut")
    with pytest.raises(UserError, match="holds an unfinished run"):
        lpft("cut")
    if phase is FoodTrainer:  # the first phase is over
        monkeypatch.setattr(probe, "build_probe", None)
    resumed = lpft("cut", "--resume_from_checkpoint", "last")
    assert equal(weights(resumed), weights(whole))
    assert (resumed / "probe" / "probe.json").read_text() == (
        whole / "probe" / "probe.json"
    ).read_text()


def test_a_resume_from_another_folder_takes_the_probe_along(lpft, monkeypatch):
    whole = lpft("whole")
    with monkeypatch.context() as patch:
        patch.setattr(probe, "build_probe", None)
        copy = lpft("copy", "--resume_from_checkpoint", whole / "checkpoint-4")
    assert equal(weights(copy), weights(whole))
    assert json.loads((copy / "run.json").read_text())["training"]["probe"]["epochs"] == 2
    early = lpft("early", "--resume_from_checkpoint", whole / "probe" / "checkpoint-4")
    assert equal(weights(early), weights(whole))
    shutil.rmtree(whole / "probe")
    with pytest.raises(UserError, match="no probe/probe.json beside it"):
        lpft("orphan", "--resume_from_checkpoint", whole / "checkpoint-4")


# ---- what is refused --------------------------------------------------------------------------


def refused(recipe: Path, *words: str) -> str:
    with pytest.raises(UserError) as error:
        parse_recipe([str(recipe), *words])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        "learning_rate 1e-3", "weight_decay 0.05", "max_grad_norm 1", "optim adamw_torch",
        "adam_beta2 0.99", "probe_epochs 3", "auto_augment randaugment", "color_jitter 0.3",
        "random_erasing 0.2", "mixup 0.8", "cutmix 1.0", "drop_path 0.1", "layer_decay 0.7",
        "ema_decay 0.99", "gradient_checkpointing true", "reduced_decoding strict",
        "train_short_side 256",
    ],
)  # fmt: skip
def test_what_cannot_act_is_refused_by_name(recipe, words):
    key, value = words.split()
    assert f"tune linear_probe has no use for {key}:" in refused(recipe, f"--{key}", value)


def test_all_of_them_in_one_line(recipe):
    message = refused(recipe, "--learning_rate", "1", "--mixup", "0.8", "--max_grad_norm", "1")
    assert "no use for max_grad_norm, learning_rate, mixup:" in message


@pytest.mark.parametrize(
    "words",
    [
        "weight_decay 0", "max_grad_norm 0", "optim sgd", "label_smoothing_factor 0.1",
        "warmup_steps 3", "lr_scheduler_type linear", "loss generalized_cross_entropy",
        "head_init_scale 0", "early_stopping_patience 3", "mixup 0", "crop_scale 0.5 1",
    ],
)  # fmt: skip
def test_what_acts_or_changes_nothing_is_taken(recipe, words):
    key, *values = words.split()
    parse_recipe([str(recipe), f"--{key}", *values])


def test_a_probe_of_random_weights_is_refused(recipe):
    for tune in ("linear_probe", "probe_then_full"):
        assert "give `model`" in refused(recipe, "--model", "null", "--tune", tune)


def test_keys_of_a_probe_without_one_are_refused(recipe):
    message = refused(recipe, "--tune", "full")
    assert "probe_learning_rates with tune full: it is for linear_probe" in message


@pytest.mark.parametrize(
    "rates", [["0"], ["-1"], ["nan"], ["inf"], ["1e300"], ["0.1", "0.1"], ["lots"]]
)
def test_impossible_rates(recipe, rates):
    assert "probe_learning_rates" in refused(recipe, "--probe_learning_rates", *rates)


def test_the_rate_is_scaled_by_the_global_batch(tmp_path):
    arguments = tiny_arguments(tmp_path, total_train_batch_size=512)
    assert scaled_rate(0.01, arguments) == 0.02
