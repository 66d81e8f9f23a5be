# SPDX-License-Identifier: Apache-2.0
"""The command that measures maps: which photographs it takes, what it records, and that the page is that."""

import copy
import hashlib
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from tests.unit.benchmarks.one_patch import DISHES, SIDE, scene, trained

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "explain.md"
RESULTS = BENCHMARKS / "results" / "explain.json"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_photographs_that_the_run_has_used_are_left_out_and_counted(module, tmp_path):
    paths = []
    for name in ("same", "resized", "new"):
        path = tmp_path / "pie" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        paths.append((path, "pie"))
    used = tmp_path / "images.csv"
    digest = hashlib.sha256(b"same").hexdigest()
    rows = [f"train,pie,{digest},train/pie/1.jpg", "test,pie,00,test/pie/resized.png"]
    used.write_text("split,label,sha256,path\n" + "\n".join([*rows, "train,tart,01,a/new.jpg"]))
    left, causes = module("explain").unseen(paths, used)
    assert left == [paths[2]] and causes == {"content": 1, "name": 1}


def test_a_record_is_of_one_network_and_one_protocol(module):
    benchmark, pages = module("explain"), module("pages")
    facts = {"network": {"sha256": "1"}, "protocol": {"kept": [0.1]}}
    content = benchmark.add({}, facts, "one", {"a": 1})
    content = benchmark.add(content, facts, "two", {"a": 2})
    assert content == {**facts, "methods": {"one": {"a": 1}, "two": {"a": 2}}}
    with pytest.raises(pages.UsageError, match="another network"):
        benchmark.add(content, {**facts, "network": {"sha256": "2"}}, "three", {})


def test_a_model_without_its_run_is_refused(module, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert module("explain").main([str(tmp_path / "model"), "--dataset", str(tmp_path)]) == 2
    assert "nothing says what it was trained on" in capsys.readouterr().out


def test_something_to_measure_is_asked_for(module, capsys):
    with pytest.raises(SystemExit):
        module("explain").parse([])
    assert "--dataset; or --table" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run of the small ViT, and beside it `dishes`, of which it has used two photographs."""
    folder, names = tmp_path / "run", [f"dish_{i}" for i in range(DISHES)]
    model = copy.deepcopy(trained())
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {}
    model.save_pretrained(folder / "model")
    half = [0.5, 0.5, 0.5]
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=half, image_std=half).save_pretrained(folder / "model")
    pixels, labels, _ = scene(82, 2000)
    pixels = ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    for number, (each, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        path = tmp_path / "dishes" / "validation" / names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.permute(1, 2, 0).numpy()).save(path)
    first, second = sorted((tmp_path / "dishes").glob("*/*/*"))[:2]
    used = [
        f"train,other,{hashlib.sha256(first.read_bytes()).hexdigest()},train/other/x.png",
        f"train,{second.parent.name},00,train/{second.parent.name}/{second.stem}.jpg",
    ]
    (folder / "images.csv").write_text("\n".join(["split,label,sha256,path", *used]))
    record = {
        "model": {"architecture": "ViTForImageClassification", "num_parameters": 1, "id": "toy",
                  "image_size": SIDE},
        "training": {"tune": "full"},
        "data": {"num_train": 1, "num_selection": 0, "label_names": names},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_measured_and_an_interrupted_command_goes_on(
    module, run, tmp_path, monkeypatch, capsys
):
    benchmark, methods = module("explain"), module("explain_methods").METHODS
    dishes, record = tmp_path / "dishes", tmp_path / "explain.json"
    words = [str(run / "model"), "--dataset", str(dishes), "--json", str(record)]
    first = {name: methods[name] for name in ("random", benchmark.OURS)}
    monkeypatch.setattr(benchmark, "FEWEST", 8)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "METHODS", {**first, "never": (stop, True)})
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(words)
    found = benchmark.recorded(record)
    assert list(found["methods"]) == ["random", benchmark.OURS]
    assert found["photographs"]["left_out"] == {"content": 1, "name": 1}
    assert 40 < found["photographs"]["right"] <= 80
    monkeypatch.setattr(
        benchmark, "METHODS", {**first, "input x gradient": methods["input x gradient"]}
    )
    capsys.readouterr()
    assert benchmark.main(words) == 0
    assert capsys.readouterr().out.startswith("input x gradient: recorded\nNetwork `run`")
    again = benchmark.recorded(record)
    assert all(again["methods"][name] == found["methods"][name] for name in first)
    monkeypatch.setattr(
        benchmark, "METHODS", {**first, "centre": methods["Gaussian in the middle"]}
    )
    monkeypatch.setattr(benchmark, "SPREAD", 1)
    assert benchmark.main(words) == 2 and "another protocol" in capsys.readouterr().out


def test_too_few_photographs_and_unknown_dishes_are_refused(module, run, tmp_path, capsys):
    words = [str(run), "--dataset", str(tmp_path / "dishes"), "--json", str(tmp_path / "x.json")]
    benchmark = module("explain")
    folder = tmp_path / "dishes" / "validation"
    for path in list(folder.glob("*/*"))[10:]:
        path.unlink()
    assert benchmark.main(words) == 2 and "give more photographs" in capsys.readouterr().out
    (folder / "soup").mkdir()
    (folder / "soup" / "1.png").write_bytes(b"")
    assert benchmark.main(words) == 2 and "does not know soup" in capsys.readouterr().out


def test_the_page_is_the_record_and_names_no_machine(module):
    benchmark, text = module("explain"), RESULTS.read_text(encoding="utf-8")
    content = json.loads(text)
    assert benchmark.MARKS.get(PAGE.read_text(encoding="utf-8")) == benchmark.page_part(content), (
        "run `python benchmarks/explain.py --table --write docs/explain.md` and read the prose again"
    )
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert set(content["methods"]) == set(module("explain_methods").METHODS)
