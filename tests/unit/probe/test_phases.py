# SPDX-License-Identifier: Apache-2.0
"""Runs with a linear probe, alone or before fine-tuning: interrupted, resumed, released."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, pipeline

from tests.unit.toys import TINY_VIT, tiny_network, tiny_settings, train, write_recipe
from training.common.errors import UserError
from training.engine.trainer import FoodTrainer
from training.evaluation import features
from training.model.network import load_network
from training.probe import phases as probe
from training.probe.arguments import ProbeArguments
from training.probe.logistic_trainer import LogisticTrainer
from training.probe.trainer import ProbeTrainer

RATES = [0.01, 1.0, 30.0]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory) -> Iterator[None]:
    """One place for the features of all runs here: they are of one network and the same images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_run, tiny_data) -> Path:
    """From the weights of `tiny_run`, with dropout: it draws from a stream that all phases share."""
    folder = tmp_path_factory.mktemp("recipe")
    model = shutil.copytree(tiny_run / "model", folder / "backbone")
    config = json.loads((model / "config.json").read_text()) | {"hidden_dropout_prob": 0.1}
    (model / "config.json").write_text(json.dumps(config))
    return write_recipe(
        folder / "tiny.yaml",
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


@pytest.fixture(scope="module")
def probed(recipe, tmp_path_factory) -> Path:
    """A run of a probe alone."""
    run = tmp_path_factory.mktemp("probed") / "run"
    train(recipe, "--output_dir", run)
    return run


def test_a_probe_run_from_its_recipe_to_its_release(
    probed, recipe, tiny_run, tmp_path, monkeypatch
):
    run = probed
    record = json.loads((run / "run.json").read_text())["training"]
    assert record["tune"] == "linear_probe" and record["augmentation"] == {}
    assert (record["optimizer"], record["weight_decay"], record["max_grad_norm"]) == ("sgd", 0, 0)
    chosen = record["probe"]["learning_rate"]
    tried = [row["learning_rate"] for row in record["probe"]["selection_top1"]]
    assert chosen in tried and record["learning_rate"] == chosen * 8 / 256
    assert set(RATES) <= set(tried) and tried == sorted(tried)
    assert not list(run.glob("wider-*"))
    before, after = weights(tiny_run), weights(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert equal(load_file(run / "release" / "model.safetensors"), after)
    card = (run / "release" / "README.md").read_text()
    assert f"learning rate {chosen:g} of {len(tried)}, chosen on the selection slice" in card
    stock = pipeline("image-classification", model=str(run / "release"), device="cpu")
    report = json.loads((run / "evaluation.json").read_text())
    assert len(stock(str(run / "example.jpg"))) == 3 and report["n"] == 18
    monkeypatch.setattr(features, "compute_features", None)  # another run with the same network
    train(recipe, "--output_dir", tmp_path / "second")
    assert equal(weights(tmp_path / "second"), after)


def test_an_interrupted_probe_is_resumed(probed, recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 5, ProbeTrainer)
        train(recipe, "--output_dir", tmp_path / "cut")
    with pytest.raises(UserError, match="holds an unfinished run"):
        train(recipe, "--output_dir", tmp_path / "cut")
    train(recipe, "--output_dir", tmp_path / "cut", "--resume_from_checkpoint", "last")
    assert equal(weights(tmp_path / "cut"), weights(probed))


LPFT = ["--probe_epochs", "2", "--learning_rate", "1e-3", "--num_train_epochs", "2"]
LPFT += ["--mixup", "0.8", "--drop_path", "0.2", "--ema_decay", "0.9"]


@pytest.fixture(scope="module", params=["probe_then_full", "probe_then_lora"])
def tune(request) -> str:
    return request.param


@pytest.fixture
def lpft(recipe, tune, tmp_path):
    """lpft(name, *further) -> the folder of a run with both phases."""

    def lpft(name: str, *further: object) -> Path:
        train(recipe, "--output_dir", tmp_path / name, "--tune", tune, *LPFT, *further)
        return tmp_path / name

    return lpft


@pytest.fixture(scope="module")
def whole(recipe, tune, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run with both phases, and the weights with which its second one began."""
    run, seen = tmp_path_factory.mktemp("whole") / "run", {}
    real = FoodTrainer.train

    def spy(self, *args, **kwargs):
        if type(self) is FoodTrainer:
            seen.update({k: v.clone() for k, v in self.model.state_dict().items()})
        return real(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FoodTrainer, "train", spy)
        train(recipe, "--output_dir", run, "--tune", tune, *LPFT)
    return run, seen


def test_a_probe_comes_first_and_its_head_is_begun_with(whole, tune, recipe, tmp_path):
    run, begun = whole
    head = load_file(run / "probe" / "head.safetensors")
    assert torch.equal(begun["classifier.weight"], head["weight"])
    train(recipe, "--output_dir", tmp_path / "alone", "--num_train_epochs", "2")
    assert equal(load_file(tmp_path / "alone" / "head.safetensors"), head)  # the same probe
    record = json.loads((run / "run.json").read_text())
    assert record["seconds"]["probe"] > 0 and record["training"]["learning_rate"] == 1e-3
    result = json.loads((run / "probe" / "probe.json").read_text())
    assert record["training"]["probe"] == result and result["epochs"] == 2
    end, adapts = load_network(run / "model").model.state_dict(), tune == "probe_then_lora"
    before = {name.replace(".base_layer", ""): value for name, value in begun.items()}
    moved = {name for name in end if not torch.equal(end[name], before[name])}
    adapted = {name for name in end if name.endswith(("q_proj.weight", "v_proj.weight"))}
    adapted |= {"classifier.weight", "classifier.bias"}
    assert moved == (adapted if adapts else set(end)) and record["training"]["tune"] == tune
    assert (record["training"]["lora"] is not None) == adapts
    card = (run / "release" / "README.md").read_text()
    trained = " parameters" if adapts else "| Trained | all weights"
    assert f"{trained}, after 2 epochs of a linear head on frozen features; its learning" in card
    assert ("| Trained | LoRA, rank 16, alpha 16, on `q_proj`, `v_proj`, and" in card) == adapts


def test_a_probe_before_something_else_finds_the_features_of_one_alone(
    probed, lpft, tune, monkeypatch
):
    """They are of the network itself, whatever the second phase puts into it."""
    monkeypatch.setattr(features, "compute_features", None)
    head = load_file(lpft("run", "--probe_epochs", "3") / "probe" / "head.safetensors")
    assert equal(head, load_file(probed / "head.safetensors"))


@pytest.mark.parametrize(("phase", "step"), [(ProbeTrainer, 5), (FoodTrainer, 1), (FoodTrainer, 5)])
def test_an_interruption_in_either_phase_changes_nothing(whole, lpft, monkeypatch, phase, step):
    name = "probe"  # as the folder of the first phase
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, step, phase)
        lpft(name)
    with pytest.raises(UserError, match="holds an unfinished run"):
        lpft(name)
    if phase is FoodTrainer:  # the first phase is over
        monkeypatch.setattr(probe, "build_probe", None)
    resumed = lpft(name, "--resume_from_checkpoint", "last")
    assert equal(weights(resumed), weights(whole[0]))
    assert (resumed / "probe" / "probe.json").read_text() == (
        whole[0] / "probe" / "probe.json"
    ).read_text()


def test_a_resume_from_another_folder_takes_the_probe_along(
    whole, lpft, tune, tmp_path, monkeypatch
):
    whole = shutil.copytree(whole[0], tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(probe, "build_probe", None)
        copy = lpft("copy", "--resume_from_checkpoint", whole / "checkpoint-4")
    assert equal(weights(copy), weights(whole))
    assert json.loads((copy / "run.json").read_text())["training"]["probe"]["epochs"] == 2
    early = lpft("early", "--resume_from_checkpoint", whole / "probe" / "checkpoint-4")
    assert equal(weights(early), weights(whole))
    shutil.rmtree(whole / "probe")
    with pytest.raises(UserError, match=f"no probe/probe.json beside it, .* with tune {tune}$"):
        lpft("orphan", "--resume_from_checkpoint", whole / "checkpoint-4")


# ---- by logistic regression -----------------------------------------------------------------------

LOGISTIC = ["--probe_learning_rates", "null"]


@pytest.fixture(scope="module")
def fitted(recipe, tmp_path_factory) -> Path:
    """A run of a probe alone, for few images."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    train(recipe, "--output_dir", run, *LOGISTIC, "--total_train_batch_size", "256")
    return run


def test_a_logistic_probe_from_its_recipe_to_its_release(fitted, tiny_run):
    record = json.loads((fitted / "run.json").read_text())
    trained, chosen = record["training"], record["selection"]
    result = json.loads((fitted / "probe.json").read_text())
    assert trained["probe"] == result and result["solver"] == "logistic_regression"
    assert trained["steps"] == result["steps"] == chosen["best_step"] > 0
    assert trained["learning_rate"] is trained["total_train_batch_size"] is None
    assert (chosen["metric"], chosen["top1"]) == ("nll", result["top1"])
    assert chosen["cross_validation"] == {"folds": 5, "images": result["num_images"]}
    data = record["data"]
    assert result["num_images"] == data["num_train"] + data["num_selection"]
    before, after = weights(tiny_run), weights(fitted)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert torch.equal(after["classifier.weight"], load_file(fitted / "head.safetensors")["weight"])
    card = (fitted / "release" / "README.md").read_text()
    for words in (
        f"logistic regression, L2 strength {result['strength']:.3g} of {len(result['strengths'])}, chosen by",
        f"5-fold cross-validation over all {result['num_images']} labelled",
        "its own scores of the selection images say nothing",
        "learned from as well, after a cross-validation |",
        "| Optimiser | L-BFGS in float64",
    ):
        assert words in card
    assert "| Global batch |" not in card and "| Learning rate |" not in card


def test_an_interrupted_logistic_probe_begins_again_and_ends_the_same(
    fitted, recipe, tmp_path, monkeypatch
):
    argv = [recipe, "--output_dir", tmp_path / "cut", *LOGISTIC, "--total_train_batch_size", "256"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LogisticTrainer, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(*argv)
    monkeypatch.setattr(features, "compute_features", None)  # they are in the cache
    train(*argv)
    assert equal(weights(tmp_path / "cut"), weights(fitted))


def test_a_logistic_head_before_fine_tuning_is_resumed(recipe, tune, tmp_path, monkeypatch):
    def lpft(name: str, *further: object) -> Path:
        words = [*LOGISTIC, "--tune", tune, "--learning_rate", "1e-3", *further]
        train(recipe, "--output_dir", tmp_path / name, *words, "--label_smoothing_factor", "0.1")
        return tmp_path / name

    whole = lpft("whole")
    result = json.loads((whole / "probe" / "probe.json").read_text())
    record = json.loads((whole / "run.json").read_text())
    assert result["fitted_on"] == "train" and result["num_images"] == record["data"]["num_train"]
    assert record["selection"]["cross_validation"] is None
    assert record["training"]["learning_rate"] == 1e-3
    card = (whole / "release" / "README.md").read_text()
    assert ", after a linear head on frozen features; logistic regression, L2" in card
    assert ("Merged: the files hold plain weights" in card) == (tune == "probe_then_lora")
    assert "The checkpoint was chosen by" in card
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 1, FoodTrainer)
        lpft("cut")
    monkeypatch.setattr(probe, "build_probe", None)  # the first phase is over
    assert equal(weights(lpft("cut", "--resume_from_checkpoint", "last")), weights(whole))


def test_few_steps_are_said(splits, tmp_path, caplog):
    settings = tiny_settings(tmp_path, tune="linear_probe", num_train_epochs=3)
    probe.build_probe(tiny_network(), splits, settings, ProbeArguments(RATES))
    assert caplog.messages == [
        "6 steps of SGD are few for a linear head: give --num_train_epochs 500 for 1,000, or probe_solver "
        "logistic_regression"
    ]


# ---- arguments and networks of a probe ------------------------------------------------------------


def test_a_network_without_one_linear_head_is_refused_by_either_phase(splits, tune, tmp_path):
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}}
    two_heads = DeiTForImageClassificationWithTeacher(DeiTConfig(**TINY_VIT, **labels))
    network = dataclasses.replace(tiny_network(), model=two_heads)
    settings = tiny_settings(tmp_path, tune=tune)
    with pytest.raises(UserError, match="a linear probe of DeiT.* is not known"):
        probe.build_probe(network, splits, settings, ProbeArguments())
    with pytest.raises(UserError, match="a linear probe of DeiT.* is not known"):
        probe.build_after_probe(network, splits, settings)


def test_a_probe_has_arguments_of_its_own_and_leaves_the_recipes_alone(tmp_path):
    given = tiny_settings(
        tmp_path, dataloader_num_workers=2, weight_decay=0.1, gradient_checkpointing=True
    ).training
    before = given.to_dict()
    changed = probe.probe_arguments(given, ProbeArguments([0.01, 0.64]))
    assert (changed.optim.value, changed.weight_decay, changed.max_grad_norm) == ("sgd", 0, 0)
    assert changed.learning_rate == 0.64 * 8 / 256 and changed.tf32 is False
    assert not changed.gradient_checkpointing
    assert not getattr(changed, "activation_checkpointing", False)
    workers = (changed.dataloader_num_workers, changed.dataloader_prefetch_factor)
    assert (workers, changed.dataloader_persistent_workers) == ((0, None), False)
    first = probe.first_phase(given, ProbeArguments(probe_epochs=2.5), tmp_path / "probe")
    assert (first.output_dir, first.num_train_epochs) == (str(tmp_path / "probe"), 2.5)
    assert (first.max_steps, first.warmup_steps, first.lr_scheduler_kwargs) == (-1, 0, None)
    assert first.load_best_model_at_end and first.early_stopping_patience is None
    assert given.to_dict() == before
