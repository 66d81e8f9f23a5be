# SPDX-License-Identifier: Apache-2.0
"""The benchmark scripts run, at toy size, and write what they promise; no timing is asserted."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.toys import jpeg

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
ROW_KEYS = {"group", "name", "peer", "clock", "unit", "units_a_round", "rounds"}
SPREADS = {"ms", "per_second", "ratio"}
ENVIRONMENT = {"date", "cpu", "cores", "versions", "torch_threads", "load_average_at_start"}
ENVIRONMENT |= {"load_average_at_end", "python", "system"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A flat folder of JPEGs that are large enough for every kind of decoding."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes(jpeg(i, (160 + i, 120)))
    return folder


@pytest.fixture
def script(monkeypatch):
    """script(NAME) -> the module, as `python benchmarks/NAME.py` would find it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before, path, threads = set(sys.modules), list(sys.path), torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    torch.set_num_threads(1)  # with two, toy models wait for each other's threads most of the time
    yield importlib.import_module
    torch.set_num_threads(threads)
    if cores:
        assert os.sched_getaffinity(0) == cores
    sys.path[:] = path
    for name in set(sys.modules) - before:  # `input` and `pipeline` are nobody else's names
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def result_of(module, photographs: Path, tmp_path: Path, monkeypatch, *words: str) -> dict:
    """Run it and check what every script promises."""
    file = tmp_path / "result.json"
    argv = ["--toy", "--rounds", "1", "--photographs", str(photographs), "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *argv, *words])
    assert module.main([*argv, *words]) == 0
    text = file.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]  # no temporary file stays
    assert not re.search(r'"(/|[A-Z]:\\)', text) and os.uname().nodename not in text
    assert str(tmp_path) not in text and str(photographs) not in text
    result = json.loads(text)
    assert set(result["environment"]) >= ENVIRONMENT
    assert result["command"].startswith(f"python benchmarks/{module.__name__}.py --toy")
    check_rows(result["rows"])
    return result


def check_rows(rows: list[dict]) -> None:
    for row in rows:
        if "skipped" in row:
            assert row["skipped"]
            continue
        assert set(row) >= ROW_KEYS | SPREADS
        for key in SPREADS:
            low, middle, high = (row[key][name] for name in ("min", "median", "max"))
            assert 0 < low <= middle <= high and math.isfinite(high), (row["name"], key)
    for row in rows:
        peers = [r for r in rows if key_of(r, r["name"]) == key_of(row, row["peer"])]
        assert len(peers) == 1
        assert peers[0].get("ratio", {"median": 1})["median"] == 1


def key_of(row: dict, name: str) -> tuple:
    return row["group"], row["clock"], name


def names(result: dict, group: str) -> set[str]:
    return {row["name"] for row in result["rows"] if row["group"].startswith(group)}


def test_input(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("input"), photographs, tmp_path, monkeypatch)
    ours = {"ours", "ours, Pillow only", "ours, short-side-256 cache"}
    assert names(result, "train") >= ours | {"example's way", "ours, reduced decoding loose"}
    assert names(result, "evaluation") >= {"ours", "example's way"}
    assert result["example"] and result["photographs"]["count"] == 6
    difference = result["pixel_difference_to_pillow"]
    assert difference["example's way"]["max"] == 0  # what it is called is what it is
    assert difference["ours"]["mean"] < 0.5


def test_evaluation(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("evaluation"), photographs, tmp_path, monkeypatch)
    ours = {"ours, from the cache", "ours, in another process", "ours, decoded again"}
    assert names(result, "later") >= ours | {"example's way", "limit: copy in memory"}
    assert names(result, "first") >= {"ours, filling the cache", "example's way"}
    assert result["same_pixels"] is True


def test_dataloader(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("dataloader"), photographs, tmp_path, monkeypatch)
    assert names(result, "loader") >= {"ours", "ours and normalised here", "example's way"}
    assert result["loader"]["num_workers"] == 2


def test_trainer_step(script, tmp_path, photographs, monkeypatch):
    result = result_of(script("trainer_step"), photographs, tmp_path, monkeypatch)
    assert names(result, "step") == {"FoodTrainer", "bare torch loop"}
    assert result["attention"] == "sdpa"


def test_pipeline(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("pipeline"), photographs, tmp_path, monkeypatch)
    assert names(result, "pipeline") >= {"food pipeline", "stock pipeline"}
    assert names(result, "preprocessing") == {"food pipeline", "stock pipeline"}
    options = {"abstain", "coverage", "abstain and coverage", "not_food", "explain"}
    assert names(result, "options") == options | {"food pipeline"}
    assert {row["peer"] for row in result["rows"] if row["group"] == "options"} == {"food pipeline"}
    assert result["attention"] == "sdpa"


def test_ranks(script, photographs, tmp_path, monkeypatch):
    """The command is tests/distributed's; here its process is replaced, for it takes long."""
    ranks, started = script("ranks"), []

    def fake(words, env, **kwargs):
        started.append((words, env))
        output = Path(words[words.index("--output_dir") + 1])
        data = Path(words[words.index("--dataset") + 1])
        assert len(list(data.rglob("*.jpg"))) == 40
        output.mkdir()
        world_size = int(words[words.index("--num_processes") + 1])
        record = {"training": {"world_size": world_size, "images_per_second": 10.0 * world_size}}
        (output / "run.json").write_text(json.dumps(record))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(ranks.subprocess, "run", fake)
    result = result_of(ranks, photographs, tmp_path, monkeypatch)
    two = next(row for row in result["rows"] if row["name"] == "2 ranks x 1 thread")
    assert two["ratio"]["median"] == pytest.approx(2)
    assert {env["OMP_NUM_THREADS"] for _, env in started} == {"1", "2"}
    words = next(words for words, env in started if env["OMP_NUM_THREADS"] == "1")
    assert words[words.index("--main_process_port") + 1] == "0" and "--multi_gpu" in words


def test_a_run_of_another_world_size_does_not_count(script):
    with pytest.raises(SystemExit, match="2 ranks were asked for, 1 ran"):
        script("ranks").check({"training": {"world_size": 1}}, 2)


def test_startup(script, photographs, tmp_path, monkeypatch):
    """The helps are real; loading torch twice more is left to the benchmark itself."""
    startup, labelled = script("startup"), []
    real = startup.run
    monkeypatch.setattr(
        startup, "run", lambda w: labelled.append(w) if str(w[-1]).endswith(".jpg") else real(w)
    )
    result = result_of(startup, photographs, tmp_path, monkeypatch)
    assert len(labelled) == 2 and all(Path(words[-1]).is_file() for words in labelled)
    assert names(result, "help") >= {"food101 --help", "food101 predict --help"}
    assert names(result, "first label") == {"food101 predict", "stock pipeline, three lines"}


@pytest.mark.slow
def test_gpu_train(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("gpu_train"), photographs, tmp_path, monkeypatch)
    assert names(result, "end to end") >= {"FoodTrainer", "Trainer, example's way"}
    assert names(result, "step alone") >= {"ours", "timm, AMP loop"}  # skipped rows say so
    check_gpu(result)


def test_gpu_infer(script, photographs, tmp_path, monkeypatch):
    result = result_of(script("gpu_infer"), photographs, tmp_path, monkeypatch)
    assert names(result, "pipeline") == {"food pipeline", "stock pipeline"}
    assert names(result, "evaluation") == {"ours", "example's way"}
    check_gpu(result)


def check_gpu(result: dict) -> None:
    assert result["matmul_TFLOP_per_s"] > 0
    measured = [row for row in result["rows"] if "skipped" not in row]
    assert all(row["flop_utilisation"] > 0 for row in measured)
    assert all(0 <= row.get("waiting_for_input", 0) <= 1 for row in measured)


def test_without_photographs_one_line_and_exit_code_2(script, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        script("input").main(["--photographs", str(tmp_path)])
    assert stopped.value.code == 2
    assert capsys.readouterr().out.count("\n") == 1


def test_operations_of_a_forward_pass(script):
    """ViT-B/16: 17.6 G multiply-adds at 224 pixels, 55.5 G at 384, as papers give them."""
    common = script("common")
    assert common.vit_flops(common.VIT_B) / 2 == pytest.approx(17.6e9, rel=0.01)
    assert common.vit_flops(common.VIT_B | {"image_size": 384}) / 2 == pytest.approx(
        55.5e9, rel=0.01
    )


OTHERS = {
    "ablation.json",
    "decode_peaks.json",
    "explain.json",
    "finetune.json",
    "mutations.json",
    "not_food.json",
    "trust.json",
    "versions.json",
}  # which measure no ratio
RATIOS = sorted(p for p in (BENCHMARKS / "results").glob("*.json") if p.name not in OTHERS)


@pytest.mark.parametrize("file", RATIOS, ids=lambda file: file.name)
def test_recorded_results_name_no_machine_and_are_whole(file):
    result = json.loads(file.read_text())
    assert not result["toy"] and not re.search(r'"(/|[A-Z]:\\)', file.read_text())
    assert set(result["environment"]) >= ENVIRONMENT
    check_rows(result["rows"])
