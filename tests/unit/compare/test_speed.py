# SPDX-License-Identifier: Apache-2.0
"""How fast models are beside each other, and the command that says it."""

import json
import shutil

import pytest

from training.cli import main as cli
from training.common.errors import UserError
from training.compare import speed as speed_module
from training.compare.speed import measure_throughput, spread
from training.compare.text import render


@pytest.fixture
def food101(capfd):
    def food101(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return food101


def test_a_mistake_is_one_line(food101, pair):
    code, out, err = food101("compare", pair[0], "--no_speed")
    assert (code, out) == (2, "") and err.startswith("error: 1 run given") and err.count("\n") == 1


@pytest.mark.slow
def test_a_run_and_its_release_with_speed(food101, tiny_run):
    words = ["compare", tiny_run, tiny_run / "release", "--rounds", "3", "--batch_size", "2"]
    code, out, err = food101(*words, "--json")
    assert code == 0, err
    report = json.loads(out)
    speed = report["speed"]
    assert (speed["rounds"], speed["batch_size"], speed["precision"]) == (3, 2, "float32")
    assert speed["threads"] >= 1 and speed["device"]
    assert [row["name"] for row in speed["images_per_second"]] == [str(w) for w in words[1:3]]
    for row in [*speed["images_per_second"], *speed["times_the_first"]]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
    assert speed["times_the_first"][0]["min"] == speed["times_the_first"][0]["max"] == 1
    assert report["pairs"][0]["difference"] == 0
    assert any("SAME WEIGHTS" in note for note in report["notes"])
    text = render(report)
    assert "batch 2, medians of 3 rounds" in text and "float32" in text


def test_speed_without_weights_is_refused(food101, tiny_run, tmp_path):
    copy = shutil.copytree(
        tiny_run, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-*")
    )
    shutil.rmtree(copy / "model")
    code, _, err = food101("compare", tiny_run, copy, "--rounds", "1")
    assert code == 2 and "holds no model" in err
    assert food101("compare", tiny_run, copy, "--no_speed")[0] == 0


def test_rounds_are_summed_up():
    assert spread([3.0, 1.0, 2.00049]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_the_models_take_turns_and_every_other_round_is_reversed(tmp_path, monkeypatch):
    order = []

    class Runner:
        def __init__(self, network, batch_size, device) -> None:
            assert batch_size == 4
            self.network = network

        def images_per_second(self) -> float:
            order.append(self.network)
            return {"slow": 10.0, "fast": 20.0}[self.network]

    monkeypatch.setattr(speed_module, "Runner", Runner)
    monkeypatch.setattr(speed_module, "model_folder", lambda model: model)
    monkeypatch.setattr(speed_module, "load_network", lambda folder: folder.rsplit("/")[-1])
    models = [(name, tmp_path / name) for name in ("slow", "fast")]
    report = measure_throughput(models, rounds=3, batch_size=4)
    assert order == ["slow", "fast", "fast", "slow", "slow", "fast"]
    assert [row["median"] for row in report["images_per_second"]] == [10, 20]
    assert [row["median"] for row in report["times_the_first"]] == [1, 2]
    assert [row["name"] for row in report["times_the_first"]] == ["slow", "fast"]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        measure_throughput([("empty", tmp_path)], rounds=1)
