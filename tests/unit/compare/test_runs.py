# SPDX-License-Identifier: Apache-2.0
"""`food101 compare`: what it counts, what it says aloud, what it refuses."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.card_files import files
from training.cli import main as cli
from training.common.errors import UserError
from training.compare.runs import compare_runs
from training.compare.text import render
from training.evaluation.intervals import mcnemar_exact, paired_interval, wilson_interval
from training.evaluation.predictions import read_predictions
from training.evaluation.report import write_evaluation

NAMES = ["cheesecake", "cheese_plate", "mac, cheese"]
TRUTH = [NAMES[i % 3] for i in range(20)]


def wrong(label: str) -> str:
    return NAMES[(NAMES.index(label) + 1) % 3]


def write_run(folder: Path, right: str, sha256: str = "", **changes: object) -> Path:
    """A run folder without weights; `right` is 1 or 0 for each of the 20 test images.

    `changes` are dotted keys with `__` for the dot, as `run__data__num_train=5`.
    """
    folder.mkdir(parents=True)
    both = files("local")
    n, top1 = len(right), right.count("1") / len(right)
    both["run"]["data"]["train_fingerprint"] = "cd" * 32
    both["evaluation"] |= {"n": n, "model_sha256": sha256 or f"{hash(folder) % 16**16:064x}"}
    both["evaluation"]["metrics"]["top1"] = top1
    both["evaluation"]["intervals"]["top1"] = list(wilson_interval(right.count("1"), n))
    for key, value in changes.items():
        *path, last = key.split("__")
        record = both
        for part in path:
            record = record[part]
        record[last] = value
    for name, record in both.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    rows = [
        [i, label, label if is_right == "1" else wrong(label), "0.5"]
        for i, (label, is_right) in enumerate(zip(TRUTH, right, strict=True))
    ]
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[list[object]]) -> None:
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["position", "label", "predicted", "score"], *rows])


A = "11111111111111100000"  # 15 right
B = "11111111111100011110"  # 16 right: 3 only A, 4 only B, 12 both, 1 neither


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    return str(write_run(tmp_path / "a", A)), str(write_run(tmp_path / "b", B))


@pytest.fixture
def refused(pair, tmp_path):
    """The one line for a second run that was changed, with the names of both left out."""

    def refused(right: str = B, **changes: object) -> str:
        other = write_run(tmp_path / "other", right, **changes)
        with pytest.raises(UserError) as error:
            compare_runs([pair[0], str(other)])
        assert "\n" not in str(error.value)
        return str(error.value)

    return refused


# ---- what is counted --------------------------------------------------------------------------


def test_the_pair_is_counted_image_by_image(pair):
    report = compare_runs(list(pair))
    (row,) = report["pairs"]
    counts = [row[f"{key}_right"] for key in ("both", "only_first", "only_this", "neither")]
    assert counts == [12, 3, 4, 1]
    assert row["difference"] == pytest.approx(1 / 20)  # the second is better
    assert row["interval"] == list(paired_interval(12, 4, 3, 1))
    assert row["interval"][0] < 0 < row["difference"] < row["interval"][1]
    assert row["mcnemar_p"] == mcnemar_exact(3, 4) == 1.0
    assert (row["name"], row["against"]) == (pair[1], pair[0])


def test_every_run_has_a_row(pair):
    first, second = compare_runs(list(pair))["runs"]
    assert (first["top1"], second["top1"]) == (0.75, 0.8)
    assert first["interval"] == list(wilson_interval(15, 20))
    assert first["num_parameters"] == 85876325 and first["n"] == 20


def test_each_is_compared_with_the_first(pair, tmp_path):
    third = str(write_run(tmp_path / "c", A.replace("0", "1")))
    report = compare_runs([*pair, third])
    assert [row["against"] for row in report["pairs"]] == [pair[0]] * 2
    assert report["pairs"][1]["difference"] == pytest.approx(0.25)
    assert any("not corrected" in note for note in report["notes"])


def test_the_order_of_the_labels_does_not_matter(pair, tmp_path):
    """Names are compared; numbers of another order would be other dishes."""
    other = write_run(tmp_path / "c", B, run__data__label_names=NAMES[::-1])
    per_class = json.loads((other / "evaluation.json").read_text())["per_class"][::-1]
    edit(other, "evaluation", per_class=per_class)
    a, b = compare_runs(list(pair))["pairs"][0], compare_runs([pair[0], str(other)])["pairs"][0]
    assert {**a, "name": None} == {**b, "name": None}


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ---- what is said aloud -----------------------------------------------------------------------


def notes_of(pair, tmp_path, **changes: object) -> str:
    other = write_run(tmp_path / "other", B, **changes)
    report = compare_runs([pair[0], str(other)])
    assert all(note in render(report) for note in report["notes"])
    return "\n".join(report["notes"]).replace(str(tmp_path), "")


def test_one_run_each(pair, tmp_path):
    assert notes_of(pair, tmp_path, run__recipe={"learning_rate": 1}).startswith("ONE RUN OF EACH")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("num_train", 800, "training images 800, not 71962"),
        ("train_fingerprint", "ef" * 32, "content efefefefefef, not cdcdcdcdcdcd"),
        ("revision", "a" * 40, "revision aaaaaaaaaaaa, not None"),
    ],
)
def test_other_training_data_is_said(pair, tmp_path, key, value, said):
    found = notes_of(pair, tmp_path, **{f"run__data__{key}": value})
    assert "DIFFERENT TRAINING DATA: /other and /a" in found and said in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run__model__id": None, "run__model__revision": None}, "starts from random weights, /a"),
        ({"run__model__revision": "b" * 40}, "in21k (bbbbbbbbbbbb), /a from google/"),
        # A local folder's last name alone does not tell two checkpoints apart.
        (
            {"run__model__revision": None, "run__model__sha256": "c" * 64},
            "in21k (cccccccccccc), /a",
        ),
        ({"run__model__revision": None}, "in21k (content not "),
    ],
)
def test_other_pretraining_is_said(pair, tmp_path, changes, said):
    found = notes_of(pair, tmp_path, **changes)
    assert "DIFFERENT PRE-TRAINING: /other" in found and said in found


def test_the_same_weights_are_said_and_not_refused(tmp_path):
    both = [str(write_run(tmp_path / name, A, sha256="ab" * 32)) for name in "ab"]
    found = "\n".join(compare_runs(both)["notes"])
    assert "SAME WEIGHTS" in found and "abababababab" in found
    assert "ONE RUN" in found  # one model given twice is not two runs


def test_seeds_of_one_recipe_are_recognised(pair, tmp_path):
    recipe = {"seed": 1, "output_dir": "elsewhere", "learning_rate": 2e-4}
    recipe |= {"dataloader_num_workers": 16, "per_device_train_batch_size": 4}  # another machine
    found = notes_of(pair, tmp_path, run__recipe=recipe)
    assert "1 recipe, up to 2 runs of one" in found and "ONE RUN" not in found
    assert "DIFFERENT" not in found


def test_the_text(pair):
    report = compare_runs(list(pair))
    text = render(report)
    low, high = (f"{100 * bound:+.2f}" for bound in report["pairs"][0]["interval"])
    lines = [line for line in text.splitlines() if line.startswith(pair[1])]
    assert "80.00%" in lines[0] and "85,876,325" in lines[0]
    assert lines[1].split()[1:] == ["+5.00", low, "to", high, "3", "4", "1.0000"]
    assert "images/s" not in text and "Newcombe" in text


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"evaluation__dataset_fingerprint": "77" * 32},
            "(dataset_fingerprint 7777777777777777, not ",
        ),
        ({"evaluation__split": "test"}, "(split test, not validation)"),
        ({"evaluation__format": 2}, "is not of this format"),
        ({"run__finished": None}, "unfinished run: continue it with --resume_from_checkpoint last"),
        ({"evaluation__n": 21}, "predictions.csv has 20 images and evaluation.json 21"),
        (
            {"evaluation__metrics": {"top1": 0.85}},
            "16 of 20 right and evaluation.json says 85.0000%",
        ),
        ({"evaluation__metrics": {}}, "evaluation.json has no metrics.top1"),
        ({"run__model": {}}, "run.json has no model."),
        ({"run__data": {}}, "run.json has no data."),
    ],
)
def test_what_does_not_fit_is_refused(refused, changes, said):
    assert said in refused(**changes)


def test_the_cure_for_predictions_that_disagree_is_named(refused):
    assert "restore both files" in refused(evaluation__metrics={"top1": 0.75})


def test_other_labels_of_the_same_images_are_refused(pair, tmp_path):
    other = write_run(tmp_path / "c", B)
    rows = [
        [i, label, label if b == "1" else wrong(label), 1]
        for i, (label, b) in enumerate(zip(TRUTH, B, strict=True))
    ]
    rows[3][1:3] = [NAMES[1], NAMES[1]]
    write_rows(other, rows)
    with pytest.raises(UserError, match=r"image 3: cheese_plate and cheesecake"):
        compare_runs([pair[0], str(other)])


def test_fewer_test_images_are_refused(pair, tmp_path):
    other = write_run(tmp_path / "c", B)
    edit(other, "evaluation", n=10, metrics={"top1": 1.0})
    write_rows(other, [[i, label, label, 1] for i, label in enumerate(TRUTH[:10])])
    with pytest.raises(UserError, match=r"other test images than .* \(n 10, not 20\)"):
        compare_runs([pair[0], str(other)])


@pytest.mark.parametrize("missing", ["run.json", "evaluation.json", "predictions.csv"])
def test_a_missing_file_is_named(pair, missing):
    (Path(pair[1]) / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing: is .* a finished run?"):
        compare_runs(list(pair))


@pytest.mark.parametrize(
    "text",
    ["", "position,label\n0,pizza\n", 'position,label,predicted,score\n0,"a\n', "a,b\n1,2,3\n"],
)
def test_a_damaged_table_is_named(pair, text):
    (Path(pair[1]) / "predictions.csv").write_text(text)
    with pytest.raises(UserError, match=r"predictions.csv is not (CSV|a table)"):
        compare_runs(list(pair))


def test_one_run_or_none_there(pair):
    with pytest.raises(UserError, match="1 run given: give two or more"):
        compare_runs([pair[0]])
    with pytest.raises(UserError, match="nowhere is not a folder"):
        compare_runs([pair[0], "nowhere"])


def test_a_label_with_a_comma_comes_back(tmp_path):
    """As the evaluation writes it."""
    report = {"per_class": [{"label": name} for name in NAMES]}
    split = SimpleNamespace(dataset={"label": [2, 0]})
    write_evaluation(tmp_path, report, split, np.array([[0.0, 0, 1], [0, 2, 0]]))
    rows = read_predictions(tmp_path)
    assert [(row["label"], row["predicted"]) for row in rows] == [
        ("mac, cheese", "mac, cheese"),
        ("cheesecake", "cheese_plate"),
    ]


# ---- the command, and its speed ---------------------------------------------------------------


@pytest.fixture
def food101(capfd):
    def food101(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return food101


def test_without_speed_torch_is_not_imported(pair):
    script = (
        "import sys; from training.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "compare", *pair, "--no_speed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_a_mistake_is_one_line(food101, pair):
    code, out, err = food101("compare", pair[0], "--no_speed")
    assert (code, out) == (2, "") and err.startswith("error: 1 run given") and err.count("\n") == 1


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
