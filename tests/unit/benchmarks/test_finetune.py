# SPDX-License-Identifier: Apache-2.0
"""The comparison on a pretrained ViT: which photographs, which choice, what its table says."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.unit.toys import tiny_network, write_image_folder
from training.config.recipe import known_keys, parse_recipe

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def finetune(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("finetune")


@pytest.fixture(scope="module")
def dishes(tmp_path_factory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("finetune") / "dishes", 40, 4)


def test_smaller_subsets_lie_in_larger_ones_and_none_is_used_twice(finetune, dishes, tmp_path):
    def names(photographs: int, split: str, seed: int = 0) -> set[Path]:
        folder = finetune.make_subset(dishes, photographs, seed, tmp_path)
        return {path.resolve() for path in (folder / split).glob("*/*")}

    for split in ("train", "val"):
        assert names(10, split) < names(20, split)
    assert (len(names(10, "train")), len(names(10, "val"))) == (24, 6)
    assert names(10, "test") == names(20, "test") and len(names(10, "test")) == 60
    parts = [names(20, split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert names(10, "train", seed=1) != names(10, "train")
    with pytest.raises(finetune.UsageError, match="41 are needed"):
        finetune.make_subset(dishes, 21, 0, tmp_path)


def test_what_trains_the_backbone_sees_the_same_number_of_images(finetune):
    for method, (keys, first) in finetune.methods().items():
        assert set(keys) <= known_keys() and not set(keys) & set(finetune.SHARED)
        assert (method == "probe") == (first is None)
        for rate in finetune.RATES if first else ():
            job = finetune.Job(method, 30, 0, rate)
            assert job.values["max_steps"] * job.values["total_train_batch_size"] == 7520
            assert job.values["learning_rate"] == job.rate
    example, _ = finetune.methods()["example"]
    assert not {"layer_decay", "drop_path", "auto_augment", "tune", "mixup"} & set(example)


@pytest.mark.parametrize("method", ["example", "probe", "full", "probe_then_full", "lora"])
def test_each_method_is_a_recipe_that_the_product_takes(finetune, dishes, tmp_path, method):
    _, rate = finetune.methods()[method]
    job = finetune.Job(method, finetune.SOME, 0, rate)
    path = write_recipe(tmp_path / "one.yaml", {"dataset": str(dishes), **job.values})
    recipe = parse_recipe([str(path)])
    tunes = {"probe": "linear_probe", "lora": "probe_then_lora", "example": "full"}
    assert recipe.method.tune == tunes.get(method, method)


def test_lora_is_run_at_thirty_a_class_alone(finetune):
    def jobs(method: str) -> list[tuple[int, int]]:
        return [(job.photographs, job.seed) for job in finetune.further_jobs(method, 1e-4)]

    assert jobs("lora") == [(30, 0), (30, 1), (30, 2)]
    assert sorted(jobs("probe_then_full")) == [(10, 0), (30, 0), (30, 1), (30, 2), (100, 0)]
    with_lora, without = (finetune.methods()[name][0] for name in ("lora", "probe_then_full"))
    assert {**without, "tune": "probe_then_lora"} == with_lora


def test_the_packaged_recipe_has_the_length_that_was_measured(finetune):
    recipe = yaml.safe_load(finetune.find_recipe("small_data").read_text())
    assert recipe["min_steps"] == finetune.STEPS
    assert recipe["eval_steps"] * finetune.SCORINGS == 1
    assert recipe["total_train_batch_size"] == finetune.BATCH
    for key in ("eval_strategy", "save_strategy"):
        assert recipe[key] == finetune.SHARED[key]
    # Of 10 classes; with more than these its epochs make more steps.
    for photographs in (finetune.FEW, finetune.SOME):
        steps = photographs * 10 * 4 // 5 // finetune.BATCH * recipe["num_train_epochs"]
        assert steps < finetune.STEPS


def test_each_part_is_in_the_recipe_and_is_left_out_at_the_rate_that_was_chosen(finetune, tmp_path):
    whole = finetune.keys_of("probe_then_full")
    for part, without in finetune.PARTS.items():
        assert all(key in whole and whole[key] != value for key, value in without.items())
        assert finetune.keys_of(part) == whole | without
        values = finetune.Job(part, finetune.SOME, 0, 2e-5).values
        parse_recipe([str(write_recipe(tmp_path / "one.yaml", {"dataset": "d", **values}))])
    runner = finetune.Runner(Path("m"), Path("d"), tmp_path, tmp_path / "rows.json", 1)
    with pytest.raises(finetune.UsageError, match="'without TrivialAugment' takes the rate of"):
        runner.part_jobs(list(finetune.PARTS))
    finetune.record(row(finetune, "probe_then_full", rate=5e-5), runner.results)
    runner.choose_rate("probe_then_full")
    jobs = runner.part_jobs(list(finetune.PARTS))
    assert {(job.photographs, job.seed, job.rate) for job in jobs} == {(30, 0, 5e-5)}


def write_recipe(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump({"model": "user/vit", **values}))
    return path


def row(finetune, method="example", seed=0, rate=1e-4, photographs=30, **more) -> dict:
    job = finetune.Job(method, photographs, seed, rate)
    found = {
        "method": method, "photographs": photographs, "seed": seed, "learning_rate": rate,
        "values": job.values, "selection": {"top1": 0.5, "best_step": 94, "n": 60}, "seconds": 600.0,
        "development_top1": 0.45, "development_n": 200,
        "scorings": [{"step": 94, "top1": 0.5, "loss": 1.5}], "images_seen": 7520, "test": None,
    }  # fmt: skip
    return found | more


@pytest.mark.parametrize(
    ("found", "tried", "chosen"),
    [
        ({2e-5: 0.5, 5e-5: 0.4, 1e-5: 0.45}, 3, 2e-5),
        ({2e-5: 0.5, 5e-5: 0.6, 1e-4: 0.7, 3e-4: 0.1}, 4, 1e-4),
        ({2e-5: 0.5, 5e-5: 0.4, 1e-5: 0.6, 5e-6: 0.6, 2e-6: 0.2}, 5, 5e-6),  # equal: by its loss
        (
            {rate: 0.5 + rate for rate in (2e-5, 5e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)},
            7,
            1e-2,
        ),  # the end
    ],
)
def test_rates_are_walked_until_both_neighbours_are_worse(
    finetune, tmp_path, monkeypatch, found, tried, chosen
):
    runner = finetune.Runner(Path("m"), Path("d"), tmp_path, tmp_path / "rows.json", 1)

    def run(job):
        selection = {"top1": found[job.rate], "best_step": 94}
        scorings = [{"step": 94, "top1": found[job.rate], "loss": 1 + job.rate}]
        finetune.record(
            row(finetune, rate=job.rate, selection=selection, scorings=scorings), runner.results
        )

    monkeypatch.setattr(runner, "run", run)
    runner.search("example")
    assert len(finetune.recorded(runner.results)) == tried
    assert runner.choose_rate("example") == chosen
    choice = json.loads(runner.results.read_text())["choices"]["example"]
    assert choice["learning_rate"] == chosen
    assert choice["selection_top1"] == {f"{rate:g}": top1 for rate, top1 in sorted(found.items())}


def test_the_table_pairs_each_run_with_the_probe_of_its_seed(finetune, tmp_path):
    def test(right: str, fingerprint: str = "x") -> dict:
        return {"top1": right.count("1") / len(right), "right": right, "fingerprint": fingerprint}

    rows = [
        row(finetune, "probe", 0, None, test=test("1" * 40 + "0" * 60), images_seen=0),
        row(finetune, "probe", 1, None, test=test("1" * 50 + "0" * 50), images_seen=0),
        row(finetune, "example", 0, test=test("1" * 30 + "0" * 70)),
        row(finetune, "example", 1, test=None),
    ]
    table = importlib.import_module("finetune_table")
    results = tmp_path / "rows.json"
    results.write_text(json.dumps({"runs": rows, "choices": {}}))
    text = table.page_part(results)
    assert "| 30 | (b) linear probe |  | 2 | 45.0% | 40.0% to 50.0% |  | each once | 10.0 |" in text
    assert re.search(r"\| 30 \| \(a\) .* \| 0.0001 \| 1 \| 30.0% .* \| -10.0 \(-\d", text)
    rows[0]["test"] = test("1", "other")
    with pytest.raises(finetune.UsageError, match="scored on different images"):
        table.table([each for each in rows if each["test"]])


def test_a_part_that_is_left_out_is_paired_with_the_whole_recipe(finetune, tmp_path):
    def test(right: int) -> dict:
        return {"top1": right / 100, "right": "1" * right + "0" * (100 - right), "fingerprint": "x"}

    rows = [
        row(finetune, "probe_then_full", rate=5e-5, test=test(70)),
        row(finetune, "probe_then_full", rate=2e-5, test=test(60)),
        row(finetune, "without label smoothing", rate=2e-5, test=test(50), development_top1=0.4),
        row(finetune, "without stochastic depth", rate=2e-5),
    ]
    results = tmp_path / "rows.json"
    results.write_text(json.dumps({"runs": rows}))
    text = importlib.import_module("finetune_table").page_part(results)
    *_, whole, smoothing, depth = text.splitlines()
    assert whole == "| (d) probe, then all weights | 50.0% | 45.0% | 60.0% |  |"
    assert smoothing.startswith("| (d) without label smoothing | 50.0% | 40.0% | 50.0% | -10.0 (-")
    assert depth == "| (d) without stochastic depth | 50.0% | 45.0% |  |  |"
    assert text.count("without") == 2 and "rate 2e-05, seed 0" in text


def test_recorded_runs_name_no_machine(finetune):
    if finetune.RESULTS.is_file():
        assert not re.search(r'"(/|[A-Z]:\\)', finetune.RESULTS.read_text())


def test_the_page_holds_what_the_script_prints(finetune):
    page = (BENCHMARKS.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert finetune.MARKS.get(page) == finetune.page_part(finetune.RESULTS), (
        "run `python benchmarks/finetune.py --table --write docs/recipes.md` and read the prose again"
    )


def test_the_figures_in_the_readme_and_the_recipe_are_the_recorded_ones(finetune):
    root, rows = BENCHMARKS.parent, finetune.recorded(finetune.RESULTS)

    def scores(method: str, photographs: int, seeds: set[int] | None = None) -> dict[int, float]:
        own = [r for r in rows if (r["method"], r["photographs"]) == (method, photographs)]
        return {
            r["seed"]: 100 * r["test"]["top1"]
            for r in own
            if r["test"] and (seeds is None or r["seed"] in seeds)
        }

    def cell(method: str, photographs: int) -> str:
        its = scores(method, photographs).values()
        spread = f" ({min(its):.1f} to {max(its):.1f})" if len(its) > 1 else ""
        return f"{sum(its) / len(its):.1f}{spread}"

    readme = (root / "README.md").read_text(encoding="utf-8")
    recipe = (root / "training/recipes/small_data.yaml").read_text(encoding="utf-8")
    header = " ".join(line.removeprefix("# ") for line in recipe.splitlines())
    methods = ("probe", "probe_then_full", "example")
    means = {method: [] for method in methods}
    for photographs in (10, 30, 100):
        cells = " | ".join(cell(method, photographs) for method in methods)
        assert f"| {photographs} | {cells} |" in readme
        seeds = set(scores("probe_then_full", photographs))
        for method, found in means.items():
            its = scores(method, photographs, seeds)
            assert set(its) == seeds
            found.append(f"{sum(its.values()) / len(its):.1f}")
    probe, ours, example = (", ".join(means[method]) for method in methods)
    assert f"selects: {ours}; its probe alone {probe}; the Trainer example's" in header
    assert f"at its best rate {example}." in header


@pytest.mark.slow
def test_runs_are_recorded_and_their_test_images_scored_after_the_choice(
    finetune, dishes, tmp_path, monkeypatch, capsys
):
    network = tiny_network()
    network.model.save_pretrained(tmp_path / "vit")
    network.processor.save_pretrained(tmp_path / "vit")
    small = {"image_size": 32, "max_steps": 2, "eval_steps": 1, "save_steps": 1, "use_cpu": True}
    monkeypatch.setattr(finetune, "SHARED", {**finetune.SHARED, **small})
    monkeypatch.setattr(finetune, "SOME", 10)
    monkeypatch.setattr(finetune, "FEW", 5)
    monkeypatch.setattr(finetune, "MANY", 20)
    rates = {**finetune.methods(), "example": ({}, 1e-4)}
    monkeypatch.setattr(finetune, "RATES", (1e-4, 1e-3))
    monkeypatch.setattr(finetune, "methods", lambda: rates)
    monkeypatch.setattr(
        finetune, "probe_jobs", lambda: [finetune.Job("probe", finetune.SOME, 0, None)]
    )
    monkeypatch.setattr(
        finetune, "further_jobs", lambda method, rate: [finetune.Job(method, 10, 0, rate)]
    )
    words = ["--model", str(tmp_path / "vit"), "--dataset", str(dishes), "--threads", "1"]
    words += ["--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json")]
    words += ["--methods", "probe", "example"]
    assert finetune.main(words) == 0
    content = json.loads((tmp_path / "rows.json").read_text())
    scored = [each for each in content["runs"] if each["test"]]
    assert [each["method"] for each in scored] == ["probe", "example"]
    assert scored[1]["learning_rate"] == content["choices"]["example"]["learning_rate"]
    assert {each["test"]["n"] for each in scored} == {12}
    assert abs(scored[0]["test"]["witness"]["top1"] - scored[0]["test"]["top1"]) < 0.2
    assert str(tmp_path) not in (tmp_path / "rows.json").read_text()
    capsys.readouterr()
    assert finetune.main(words) == 0
    assert "started" not in capsys.readouterr().out
