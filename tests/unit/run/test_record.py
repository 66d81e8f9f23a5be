# SPDX-License-Identifier: Apache-2.0
"""What run.json says."""

import dataclasses
import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.toys import (
    LABELS,
    tiny_network,
    tiny_settings,
    write_image_folder,
)
from training.data.arguments import DataArguments
from training.data.loading import load_splits
from training.engine.arguments import (
    ExtensionArguments,
    LossArguments,
    MethodArguments,
    TrainerKeys,
)
from training.engine.trainer import FoodTrainer
from training.engine.wiring import build_trainer
from training.input.arguments import Augmentation
from training.model.arguments import ModelArguments
from training.run import record
from training.run.record import (
    batch_line,
    code_sha256,
    command_line,
    describe_data,
    describe_further,
    describe_model,
    describe_selection,
    describe_step,
    describe_training,
    input_line,
    package_sources,
    step_line,
    trained_line,
    warn_of_small_images,
)


def test_run_json(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["finished"] >= record["started"]
    assert record["recipe"]["learning_rate"] == 1e-3
    data, training = record["data"], record["training"]
    assert (data["num_train"], data["num_selection"], data["num_test"]) == (36, 12, 18)
    assert (training["world_size"], training["mixed_precision"]) == (1, "no")
    assert (training["total_train_batch_size"], training["steps"]) == (8, 8)
    assert training["images_per_second"] > 0
    assert training["stopped_early"] is False and training["optimization"]["ema_decay"] is None
    assert record["selection"]["n"] == 12 and record["selection"]["best_step"] in (4, 8)
    assert re.fullmatch("[0-9a-f]{64}", record["code_sha256"])


@pytest.mark.parametrize(
    ("keys", "epochs"),
    [({"num_train_epochs": 5}, 5), ({"max_steps": 7}, 2.33), ({"min_steps": 8}, 2.67)],
)
def test_the_epochs_are_those_of_the_schedule(trainer_for, keys, epochs):
    """18 images in batches of 6; the card says how long a run was by these."""
    trainer = trainer_for(total_train_batch_size=6, **{"num_train_epochs": 1, **keys})
    recipe = recipe_of(
        method=MethodArguments(),
        loss=LossArguments(),
        augmentation=Augmentation(),
        training=trainer.args,
    )
    assert describe_training(recipe, trainer)["num_train_epochs"] == epochs


def test_selection_and_history_agree(tiny_run):
    record = json.loads((tiny_run / "run.json").read_text())
    rows = json.loads((tiny_run / "log_history.json").read_text())
    scores = {row["step"]: row["eval_top1"] for row in rows if "eval_top1" in row}
    assert record["selection"]["top1"] == max(scores.values())
    assert scores[record["selection"]["best_step"]] == max(scores.values())


@pytest.mark.parametrize("save_strategy", ["no", "epoch"])
def test_without_loading_the_best_the_last_is_selected(
    trainer_for_selection, monkeypatch, save_strategy
):
    """The record must describe the weights that are kept."""
    trainer = trainer_for_selection(save_strategy=save_strategy, load_best_model_at_end=False)
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    selection = describe_selection(trainer)
    assert selection["best_step"] == trainer.state.global_step == 2
    assert (selection["top1"], selection["best_epoch"]) == (0.5, 2.0)


def test_loading_the_best_is_recorded(trainer_for_selection, monkeypatch):
    trainer = trainer_for_selection()
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    selection = describe_selection(trainer)
    assert (selection["best_step"], selection["top1"], selection["best_epoch"]) == (1, 0.9, 1.0)


def test_a_best_checkpoint_that_is_gone_is_not_recorded(trainer_for_selection, monkeypatch):
    """A resume elsewhere finds the step noted, and its folder gone: the last weights are kept."""
    trainer = trainer_for_selection()
    top1 = iter([0.9, 0.5])
    monkeypatch.setattr(trainer, "compute_metrics", lambda _: {"top1": next(top1)})
    trainer.train()
    trainer.state.best_model_checkpoint = None
    selection = describe_selection(trainer)
    assert (selection["best_step"], selection["top1"]) == (2, 0.5)


@pytest.fixture
def trainer_for_selection(tmp_path):
    """Two epochs of one step each."""

    def trainer_for_selection(**values: object) -> FoodTrainer:
        root = write_image_folder(tmp_path / "dishes", train=4, validation=1)
        splits = load_splits(DataArguments(dataset=str(root), selection_fraction=0.25))
        return build_trainer(tiny_network(), splits, tiny_settings(tmp_path / "run", **values))

    return trainer_for_selection


def test_the_sha256_of_the_code_is_stable_and_sees_a_change(tmp_path, monkeypatch):
    assert code_sha256() == code_sha256()
    for package in ("training", "inference", "model_card"):
        shutil.copytree(record.package_folder(package), tmp_path / package)
    monkeypatch.setattr(record, "package_folder", lambda package: tmp_path / package)
    before = code_sha256()
    (tmp_path / "training" / "__pycache__" / "x.cpython.pyc").parent.mkdir(exist_ok=True)
    (tmp_path / "training" / "__pycache__" / "x.cpython.pyc").write_bytes(b"x")
    assert code_sha256() == before
    with (tmp_path / "inference" / "food_classification.py").open("a") as file:
        file.write("# changed\n")
    assert code_sha256() != before
    monkeypatch.setattr(record, "package_folder", lambda package: tmp_path / "empty")
    with pytest.raises(RuntimeError, match="no sources of training"):
        code_sha256()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "--seed", "1"], "food101 train sample --seed 1"),
        (["a", "--output_dir", "/data/runs/x/"], "food101 train a --output_dir x"),
        (
            ["/home/me/a.yaml", "--output_dir", "/data/runs/x"],
            "food101 train a.yaml --output_dir x",
        ),
        (["a", "--output_dir=/data/runs/x", "--seed=1"], "food101 train a --output_dir=x --seed=1"),
        (["a", "--dataset", "two words"], "food101 train a --dataset 'two words'"),
    ],
)
def test_the_command_has_no_path_of_this_machine(monkeypatch, words, expected):
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    assert command_line() == expected


# ---- facts of the network, the data and the training ---------------------------------------------


def recipe_of(**parts: object) -> SimpleNamespace:
    """A recipe as far as the record reads it; `parts` replace classes of arguments."""
    made = {
        "data": DataArguments(),
        "model": ModelArguments(),
        "extensions": ExtensionArguments(),
        "training": SimpleNamespace(),
        **parts,
    }
    return SimpleNamespace(**made)


def test_a_network_from_scratch_is_described():
    network = tiny_network()
    facts = describe_model(recipe_of(model=ModelArguments(weight_init="mimetic")), network)
    assert facts == {
        "id": None,
        "revision": None,
        "sha256": None,
        "license": network.license,
        "architecture": "ViTForImageClassification",
        "num_parameters": sum(each.numel() for each in network.model.parameters()),
        "image_size": 32,
        "patch_size": 16,
        "head": "new",
        "head_init_scale": 1.0,
        "weight_init": "mimetic",
        "as_vit": None,
    }
    done = {"model_type": "dinov2", "positions": [37, 16]}
    network = dataclasses.replace(network, as_vit=done)
    assert describe_model(recipe_of(model=ModelArguments(model="a/b")), network)["as_vit"] == done


def test_a_folder_is_named_without_its_place_and_a_kept_head_has_no_scale(tmp_path):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "model.safetensors").write_bytes(b"weights")
    network = dataclasses.replace(tiny_network(), head="kept")
    facts = describe_model(recipe_of(model=ModelArguments(model=str(tmp_path / "start"))), network)
    assert facts["id"] == "start" and facts["revision"] is None
    assert facts["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (facts["head_init_scale"], facts["weight_init"]) == (None, None)


def test_a_model_of_the_hub_keeps_its_id_and_its_revision_instead_of_a_sha256():
    network = dataclasses.replace(tiny_network(), revision="a" * 40)
    facts = describe_model(recipe_of(model=ModelArguments(model="user/vit")), network)
    assert (facts["id"], facts["revision"], facts["sha256"]) == ("user/vit", "a" * 40, None)


def test_the_data_is_described(tmp_path):
    root = write_image_folder(tmp_path / "dishes", train=4, validation=1)
    data = DataArguments(dataset=str(root), selection_fraction=0.25, split_seed=3)
    splits = load_splits(data)
    facts = describe_data(recipe_of(data=data), splits)
    assert (facts["num_train"], facts["num_selection"], facts["num_test"]) == (9, 3, 3)
    assert (facts["train_split"], facts["test_split"]) == ("train", "validation")
    assert (facts["selection_fraction"], facts["split_seed"]) == (0.25, 3)
    assert facts["label_names"] == LABELS and facts["left_out"] == {"train": 0, "test": 0}
    assert facts["fingerprint"] == splits.test.fingerprint != facts["train_fingerprint"]
    assert facts["train_cache"] is None and facts["source"] == "local"


def test_only_what_plain_fine_tuning_lacks_is_further():
    network = tiny_network()
    training = TrainerKeys(early_stopping_patience=3)
    plain = recipe_of(training=TrainerKeys())
    assert describe_further(plain, network) == []
    model = ModelArguments(head_init_scale=0.001)
    recipe = recipe_of(model=model, extensions=ExtensionArguments(drop_path=0.1), training=training)
    said = [
        "stochastic depth up to 0.1",
        "early stopping after 3 scorings without a better one",
    ]
    scaled = "new head's first weights times 0.001"
    assert describe_further(recipe, network) == [*said, scaled]
    assert describe_further(recipe, dataclasses.replace(network, head="kept")) == said


@pytest.mark.parametrize(("short_side", "warned"), [(31, True), (32, False), (None, False)])
def test_training_images_below_the_models_size_are_said(caplog, short_side, warned):
    cache = None if short_side is None else {"short_side": short_side}
    with caplog.at_level(logging.WARNING, "training"):
        warn_of_small_images(SimpleNamespace(train_cache=cache), tiny_network())
    said = (
        f"train_short_side {short_side} is below the model's 32 pixels: every training crop is "
        "enlarged"
    )
    assert caplog.messages == ([said] if warned else [])


def test_what_lora_trains_in_words():
    lora = {"rank": 8, "target_modules": ["q_proj", "v_proj"]}
    facts = {"lora": lora, "num_trainable_parameters": 1234}
    assert trained_line(facts, 5_678_901) == (
        "; LoRA of rank 8 on q_proj, v_proj trains 1,234 of 5,678,901 parameters"
    )
    assert trained_line({"lora": None}, 5) == ""


def test_a_package_is_read_from_where_it_is_installed():
    sources = package_sources("training")
    assert list(sources) == sorted(sources)
    assert {"training/train.py", "training/run/record.py", "training/recipes/sample.yaml"} <= (
        sources.keys()
    )
    assert sources["training/run/record.py"] == Path(record.__file__).read_bytes()


# ---- how a step is computed ------------------------------------------------------------------------


def test_how_steps_were_computed_is_written_down(tiny_run):
    training = json.loads((tiny_run / "run.json").read_text())["training"]
    assert training["optimizer"] == "adamw_torch_fused"
    assert training["attn_implementation"] == "sdpa"
    assert (training["compile"], training["gradient_checkpointing"]) == (None, False)
    assert training["tf32"] is False
    assert training["input"] == {
        "num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "pin_memory": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"dataloader_num_workers": 0}, "no workers"),
        ({"dataloader_num_workers": 3}, "3 workers a process, prefetch 4, kept alive"),
        (
            {
                "dataloader_num_workers": 1,
                "dataloader_prefetch_factor": 2,
                "dataloader_persistent_workers": False,
            },
            "1 worker a process, prefetch 2",
        ),
    ],
)
def test_the_workers_in_words(trainer_for, workers, expected):
    assert input_line(describe_step(trainer_for(**workers))["input"]) == expected


def test_the_step_in_words(trainer_for):
    facts = describe_step(trainer_for())
    assert step_line(facts) == "sdpa attention, no workers"
    facts |= {"attn_implementation": "eager", "tf32": True, "gradient_checkpointing": True}
    facts |= {"compile": {"backend": "inductor", "mode": "default"}}
    assert step_line(facts) == "compiled by inductor, gradient checkpointing, TF32, no workers"


def test_compilation_asked_for_by_the_launcher_is_recorded(trainer_for, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    trainer = trainer_for()
    assert not trainer.args.torch_compile
    assert describe_step(trainer)["compile"] == {"backend": "eager", "mode": "default"}
    # `food101 train` passes `--dynamo_backend no`; the recipe's key has the last word.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    assert describe_step(trainer_for())["compile"] is None
    trainer = trainer_for(torch_compile=True)
    assert describe_step(trainer)["compile"] == {"backend": "inductor", "mode": "default"}


def test_a_batch_in_words_and_none_at_all():
    facts = {
        "total_train_batch_size": 64, "per_device_train_batch_size": 32, "world_size": 2,
        "gradient_accumulation_steps": 1, "per_device_eval_batch_size": 128,
    }  # fmt: skip
    assert batch_line(facts) == "batch 64 = 32 x 2 processes x 1 accumulated, scored by 128"
    assert batch_line({**facts, "total_train_batch_size": None}) == "all of them in every step"
