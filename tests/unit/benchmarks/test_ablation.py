# SPDX-License-Identifier: Apache-2.0
"""The comparison of recipes: what it compares, that it goes on where it was, what its table says."""

import importlib
import json
import re
from pathlib import Path

import pytest

from tests.unit.toys import write_image_folder
from training.config.packaged import packaged_recipes
from training.config.recipe import known_keys

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "recipes.md"
RUN = {
    "size": "cpu", "n": 750, "selection": {"top1": 0.5}, "train_top1": 0.9, "test_fingerprint": "x",
}  # fmt: skip


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("ablation")


def test_the_examples_recipe_has_nothing_of_ours(ablation):
    example = ablation.variants()["example"]
    assert example == ablation.EXAMPLE
    off = {
        "auto_augment",
        "mixup",
        "cutmix",
        "drop_path",
        "ema_decay",
        "layer_decay",
        "weight_init",
    }
    assert not off & (set(example) | set(ablation.SHARED))
    (job,) = ablation.jobs_for(["example"], "cpu", [0])
    assert "initializer_range" not in job.values["model_config"]


def test_every_variant_has_one_network_but_for_its_first_weights(ablation):
    known = ablation.variants()
    networks = [job.values["model_config"] for job in ablation.jobs_for(known, "cpu", [0])]
    sizes = [{k: v for k, v in one.items() if k != "initializer_range"} for one in networks]
    assert all(one == sizes[0] for one in sizes) and len(sizes[0]) == 6
    spreads = {
        name: one.get("initializer_range") for name, one in zip(known, networks, strict=True)
    }
    plain = {"example", "ours without first weights"}
    assert {name for name, spread in spreads.items() if spread is None} == plain


def test_mixing_ends_at_the_same_share_of_another_number_of_epochs(ablation):
    ends = {}
    for size in ("cpu", "gpu", "toy"):
        (job,) = ablation.jobs_for(["ours"], size, [0])
        ends[size] = job.values["mix_off_epoch"] / job.values["num_train_epochs"]
    assert ends == pytest.approx({"cpu": 130 / 150, "gpu": 130 / 150, "toy": 1 / 2})


def test_the_control_differs_from_the_example_in_what_acts_on_the_optimiser(ablation):
    known = ablation.variants()
    control = known[ablation.OUR_START]
    changed = {key for key in control if control[key] != ablation.EXAMPLE.get(key)}
    assert changed == set(ablation.START)
    assert all(control[key] == known["ours"][key] for key in changed)


def test_every_part_leaves_out_what_the_recipe_has(ablation):
    known = ablation.variants()
    ours = known["ours"]
    assert {f"ours without {part}" for part in ablation.FEW} <= set(known)
    for name, keys in known.items():
        if name.startswith("ours without"):
            changed = {key for key in ours if keys.get(key) != ours[key]}
            assert changed and changed <= set(ablation.PARTS[name.removeprefix("ours without ")])


def test_other_keys_are_another_run(ablation):
    one, two = ablation.jobs_for(["example", "ours"], "cpu", [3])
    record = {"variant": "ours", "size": "cpu", "seed": 3, "values": two.values}
    assert two.matches(record) and not one.matches(record)
    assert not two.matches(record | {"values": two.values | {"num_train_epochs": 9}})
    assert not two.matches(record | {"seed": 4})
    assert one.name != two.name


def test_the_table_counts_recorded_runs_of_the_present_recipe(ablation):
    known = ablation.variants()
    rows = [
        {**RUN, "variant": name, "seed": seed, "top1": top1,
         "values": ablation.Job(name, "cpu", seed, known[name]).values}
        for name, seed, top1 in [("example", 0, 0.5), ("example", 1, 0.6), ("ours", 0, 0.64)]
    ]  # fmt: skip
    rows.append({**RUN, "variant": "ours", "values": {"learning_rate": 9}, "seed": 1, "top1": 0.0})
    text = ablation.table(rows, "cpu")
    assert "| (a) the Trainer example's | 2 | 55.0% | 50.0% to 60.0% | 1.00 |" in text
    assert "| (b) ours | 1 | 64.0% | 64.0% to 64.0% | 0.80 |" in text
    assert len(text.splitlines()) == 4
    with pytest.raises(ablation.UsageError, match="scored on different images"):
        ablation.table([*rows[1:], rows[0] | {"test_fingerprint": "other"}], "cpu")


def test_recorded_runs_name_no_machine_and_are_whole(ablation):
    text = ablation.RESULTS.read_text()
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    rows = json.loads(text)["runs"]
    assert rows and len({(row["variant"], row["seed"], str(row["values"])) for row in rows}) == len(
        rows
    )
    for row in rows:
        assert row["size"] != "toy" and row["n"] == 750 and 0 < row["top1"] < 1
        assert row["images_seen"] == row["values"]["num_train_epochs"] * (2700 // 64) * 64
        assert {"cpu", "versions"} <= set(row["environment"])


def test_the_page_holds_what_the_script_prints(ablation):
    now = ablation.page_part(ablation.recorded(ablation.RESULTS), "cpu")
    assert ablation.MARKS.get(PAGE.read_text(encoding="utf-8")) == now, (
        "run `python benchmarks/ablation.py --table --write docs/recipes.md` and read the prose again"
    )


def test_the_figures_elsewhere_are_the_recorded_ones(ablation):
    rows = ablation.recorded(ablation.RESULTS)
    root = BENCHMARKS.parent
    pages = [root / "README.md", root / "training" / "recipes" / "from_scratch.yaml"]
    errors = {}
    for name in ("example", "ours"):
        jobs = ablation.jobs_for([name], "cpu", range(9))
        top1 = [100 * row["top1"] for row in rows if any(job.matches(row) for job in jobs)]
        assert len(top1) >= 3
        mean = sum(top1) / len(top1)
        errors[name] = 100 - mean
        for page in pages:
            text = page.read_text(encoding="utf-8")
            assert f"{mean:.1f} %" in text, (page.name, name)
            assert f"{min(top1):.1f} to {max(top1):.1f} %" in text, (page.name, name)
    less = f"{100 * (1 - errors['ours'] / errors['example']):.0f} %"
    assert f"{less} less error" in pages[0].read_text(encoding="utf-8")
    assert f"by {less}, from {errors['example']:.1f} to {errors['ours']:.1f} %" in PAGE.read_text(
        encoding="utf-8"
    )


def test_the_page_names_keys_and_recipes_that_exist():
    text = PAGE.read_text(encoding="utf-8")
    keys = re.findall(r"^\| `.*?\|", text, re.M)  # first cells
    keys = set(re.findall(r"`(\w+)[:`]", " ".join(keys))) | set(re.findall(r"`--(\w+)", text))
    assert len(keys) > 15 and not keys - known_keys() - {"trivialaugment"}
    named = set(re.findall(r"`(vit_\w+|linear_probe|small_data|cnn_\w+|from_\w+)[ `]", text))
    assert named == set(packaged_recipes()) - {"sample"}


def test_a_page_without_a_place_is_refused_before_anything_runs(ablation, tmp_path, capsys):
    page = tmp_path / "page.md"
    for text in ("", f"{ablation.MARKS.end}{ablation.MARKS.begin}"):
        page.write_text(text)
        assert ablation.main(["--table", "--write", str(page)]) == 2
        assert "the page needs the lines" in capsys.readouterr().out


def test_unknown_variants_are_refused(ablation, capsys):
    with pytest.raises(SystemExit) as stopped:
        ablation.main(["--table", "--variants", "our"])
    assert stopped.value.code == 2 and "unknown variant 'our'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_is_recorded_and_not_repeated(ablation, tmp_path, capsys):
    data = write_image_folder(tmp_path / "dishes", train=30, validation=2)
    words = ["--dataset", str(data), "--size", "toy", "--variants", "ours", "--seeds", "1"]
    words += ["--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json")]
    assert ablation.main([*words, "--threads", "1"]) == 0
    assert "(b) ours | 1 |" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "rows.json").read_text())["runs"]
    assert (row["seed"], row["n"], row["train_n"], row["images_seen"]) == (1, 6, 90, 128)
    assert str(tmp_path) not in (tmp_path / "rows.json").read_text()
    assert ablation.main(words) == 0
    assert "1 of 1 runs are recorded already" in capsys.readouterr().out
