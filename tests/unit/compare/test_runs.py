# SPDX-License-Identifier: Apache-2.0
"""`food101 compare`: what it counts, what it says aloud."""

import json
import subprocess
import sys

import pytest

from tests.unit.compare.toy_runs import NAMES, A, B, edit, write_run
from training.common.errors import UserError
from training.compare.runs import compare_runs
from training.compare.text import render
from training.evaluation.intervals import mcnemar_exact, paired_interval, wilson_interval


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


def test_keys_that_came_later_make_no_other_recipe(pair, tmp_path):
    """The first run's record has one key; a newer version writes down every key."""
    recipe = {"learning_rate": 2e-4, "layer_decay": 1.0, "ema_decay": None}
    found = notes_of(pair, tmp_path, run__recipe=recipe | {"crop_scale": [0.08, 1.0]})
    assert "1 recipe, up to 2 runs of one" in found


def test_a_number_is_the_same_as_a_whole_one(pair, tmp_path):
    recipe = {"learning_rate": 2e-4, "warmup_steps": 0.0, "mixup": 0, "crop_scale": [0.08, 1]}
    recipe |= {"adam_beta1": 0.9, "eval_delay": 0.0}  # named, with the values of who does not
    assert "1 recipe, up to 2 runs" in notes_of(pair, tmp_path, run__recipe=recipe)


@pytest.mark.parametrize("other", [{"mixup": 1}, {"horizontal_flip": True}, {"crop_scale": [0, 1]}])
def test_another_value_is_another_recipe(pair, tmp_path, other):
    recipe = {"learning_rate": 2e-4, **other}
    assert notes_of(pair, tmp_path, run__recipe=recipe).startswith("ONE RUN OF EACH")


def test_keys_that_came_later_tell_recipes_apart(pair, tmp_path):
    recipe = {"learning_rate": 2e-4, "layer_decay": 0.75}
    assert notes_of(pair, tmp_path, run__recipe=recipe).startswith("ONE RUN OF EACH")


def test_one_run_or_none_there(pair):
    with pytest.raises(UserError, match="1 run given: give two or more"):
        compare_runs([pair[0]])
    with pytest.raises(UserError, match="nowhere does not exist: give a finished run"):
        compare_runs([pair[0], "nowhere"])


def test_without_speed_torch_is_not_imported(pair):
    script = (
        "import sys; from training.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "compare", *pair, "--no_speed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
