"""The unmodified real command against a Hub: two ids, empty HF_HOME, two processes, bf16."""

from __future__ import annotations

import json

import pytest

from tests.integration.conftest import food101
from tests.integration.seeds import DATASET, MODEL, NAMES
from tests.loopback_hub import READ_TOKEN

pytestmark = pytest.mark.slow


def read(run, name):
    return json.loads((run.folder / name).read_text())


def test_two_processes_in_bf16(real_run):
    training = read(real_run, "run.json")["training"]
    assert training["world_size"] == 2
    assert training["mixed_precision"] == "bf16"
    # 32 = 8 x 2 processes x 2
    assert training["gradient_accumulation_steps"] == 2


def test_what_was_read_is_recorded(real_run):
    record = read(real_run, "run.json")
    assert record["data"]["dataset"] == DATASET
    assert record["data"]["revision"] == real_run.revisions[DATASET]
    assert record["model"]["id"] == MODEL
    assert record["model"]["revision"] == real_run.revisions[MODEL]
    assert record["model"]["license"] == "apache-2.0"
    assert record["model"]["head"] == "new"
    assert record["data"]["label_names"] == NAMES
    assert NAMES[16:18] == ["cheesecake", "cheese_plate"]  # food101's order is not the sorted one


def test_every_dish_is_named_in_both_languages(real_run):
    """By label: the Hub's order of the labels is not that of the table's rows, sorted."""
    for folder in ("model", "release"):
        block = read(real_run, f"{folder}/config.json")["food_classification"]
        assert block["names"].keys() == {"en", "ko"}
        assert all(names.keys() == set(NAMES) for names in block["names"].values())
    assert block["names"]["ko"]["creme_brulee"] == "크렘 브륄레"
    assert "names: " not in real_run.output


def test_three_splits_of_the_right_size(real_run):
    data = read(real_run, "run.json")["data"]
    assert (data["num_train"], data["num_selection"], data["num_test"]) == (303, 101, 202)
    assert read(real_run, "evaluation.json")["n"] == 202
    assert read(real_run, "evaluation.json")["split"] == "validation"
    assert read(real_run, "evaluation.json")["precision"] == "float32"


def test_logs_are_written_once_and_in_both_forms(real_run):
    history = read(real_run, "log_history.json")
    assert [row["step"] for row in history if "loss" in row] == [2, 4, 6]
    assert len(list((real_run.folder / "runs").rglob("events.out.tfevents.*"))) == 1
    assert "images/s" in real_run.output and "left" in real_run.output


def test_training_wrote_nothing_to_the_hub(real_run):
    assert real_run.methods <= {"GET", "HEAD"}


def test_the_summary_says_what_to_do_next(real_run):
    assert "test top-1:" in real_run.output
    assert "one test image" in real_run.output
    assert str(real_run.release) in real_run.output


def test_one_process_gets_the_same_report_from_the_release(real_run, tmp_path):
    env = real_run.hub.env(tmp_path / "home", token=None)
    done = food101("evaluate", real_run.release, "--output", tmp_path / "again.json", env=env)
    assert done.returncode == 0, done.stderr
    again, first = (
        json.loads((tmp_path / "again.json").read_text()),
        read(real_run, "evaluation.json"),
    )
    assert (again["world_size"], first["world_size"]) == (1, 2)
    for key, metric in first["metrics"].items():
        assert again["metrics"][key]["value"] == pytest.approx(metric["value"], abs=1e-6)
    for key in ("n", "dataset_fingerprint", "dataset_revision", "model_sha256", "per_class"):
        assert again[key] == first[key]


def test_hub_not_reachable(hub, tmp_path):
    env = hub.env(tmp_path / "home")
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens
    done = food101("train", "vit_base_food101", "--output_dir", tmp_path / "run", env=env)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and DATASET in errors[0] and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_dataset_and_model_that_do_not_exist(hub, tmp_path):
    env = hub.env(tmp_path / "home", token=READ_TOKEN)
    out = ["--output_dir", tmp_path / "run", "--max_steps", "1"]
    done = food101("train", "vit_base_food101", "--dataset", "user/nothing", *out, env=env)
    assert done.returncode == 2 and "user/nothing" in done.stderr
    done = food101("train", "vit_base_food101", "--model", "user/no-model", *out, env=env)
    assert done.returncode == 2 and "user/no-model" in done.stderr
    assert not (tmp_path / "run").exists()
