# SPDX-License-Identifier: Apache-2.0
"""The `food101` command: quick help, exit codes, one-line errors, and what a run answers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from tests.unit.toys import jpeg, write_image_folder
from training.cli import main as cli
from training.common.arguments import keys_of
from training.common.errors import UserError
from training.config.recipe import CLASSES, known_keys
from training.model.network import model_folder

VERBS = ("train", "cache", "evaluate", "compare", "card", "release", "push", "predict")
# Prints the heavy libraries that were imported on the way, after the verb's own output.
HELP = """
import sys
from training.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
heavy = {"torch", "transformers", "datasets", "numpy", "PIL", "accelerate"} & set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""


@pytest.fixture
def food101(capfd):
    """food101(*words) -> (exit code, stdout, stderr), in this process."""

    def food101(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as exit:  # argparse leaves that way
            code = exit.code
        out, err = capfd.readouterr()
        return code, out, err

    return food101


@pytest.fixture
def refused(food101):
    """The one line of a mistake."""

    def refused(*words: object) -> str:
        code, out, err = food101(*words)
        assert code == 2, err
        assert out == ""
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return refused


# ---- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)])
def test_help_needs_no_heavy_library(words):
    done = subprocess.run(
        [sys.executable, "-c", HELP, *words, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "0 []\n"
    assert "usage: food101" in done.stdout
    if not words:
        assert all(f"\n    {verb} " in done.stdout for verb in VERBS)


def test_the_help_of_train_lists_recipes_and_keys(food101):
    code, out, _ = food101("train", "--help")
    assert code == 0
    assert "sample" in out and "vit_base_food101" in out
    lines = out.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 120  # one screen
    for kind in CLASSES:
        usual = {name for name, key in keys_of(kind).items() if key.usual}
        assert all(f"  --{name} " in out for name in usual)
    assert "  --mixup " in out and "[0; a number from 0 to 1000; 0 is off]" in out
    code, everything, _ = food101("train", "--help_all")
    assert code == 0
    assert set(re.findall(r"^  --(\w+) ", everything, re.M)) == known_keys()


def test_train_without_a_recipe_shows_its_help(food101):
    code, out, _ = food101("train")
    assert code == 2 and "usage: food101 train RECIPE" in out


def test_the_version(food101):
    from training import __version__

    assert food101("--version")[:2] == (0, f"vit-food101 {__version__}\n")


# ---- mistakes ---------------------------------------------------------------------------------


def test_an_unknown_verb(refused):
    assert "'traine'" in refused("traine")
    assert "VERB" in refused()


def installed(*words: object) -> subprocess.CompletedProcess:
    """The command as a person runs it: nothing is imported yet, nobody silenced a library."""
    loud = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
    return subprocess.run(
        [Path(sys.executable).parent / "food101", *map(str, words)],
        env={name: value for name, value in os.environ.items() if name not in loud},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_installed_command_exits_with_2():
    done = installed("traine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_libraries_add_nothing_to_the_one_line(tiny_run, tmp_path):
    """Weights are loaded before the image is opened: time for a progress bar or a warning."""
    done = installed("predict", tiny_run, tmp_path / "missing.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/missing.jpg: no such file; give the path of an image file\n"
    )


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", ""])
def test_a_bad_top_k(refused, tiny_run, top_k):
    assert "top_k" in refused("predict", tiny_run, "a.jpg", f"--top_k={top_k}")


def test_a_shortened_option_is_not_guessed(refused, tiny_run):
    assert "--top" in refused("predict", tiny_run, "a.jpg", "--top=3")


def test_no_images(refused, tiny_run):
    assert "IMAGE" in refused("predict", tiny_run)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
@pytest.mark.parametrize("model", ["./nowhere", "/no/where", "nowhere"])
def test_no_such_model(refused, tmp_path, verb, model):
    images = [tmp_path / "a.jpg"] if verb == "predict" else []
    assert f"{model} does not exist: give a run" in refused(verb, model, *images)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_folder_without_a_model(refused, tmp_path, verb):
    images = [tmp_path / "a.jpg"] if verb == "predict" else []
    assert f"{tmp_path} holds no model" in refused(verb, tmp_path, *images)


def test_a_missing_image(refused, tiny_run, tmp_path):
    good, missing = tmp_path / "good.jpg", tmp_path / "missing.jpg"
    good.write_bytes(jpeg(0))
    assert f"{missing}: no such file" in refused("predict", tiny_run, good, missing)


def test_a_text_file_as_image(refused, tiny_run, tmp_path):
    (tmp_path / "notes.txt").write_text("this is no image")
    message = refused("predict", tiny_run, tmp_path / "notes.txt")
    assert f"{tmp_path / 'notes.txt'}: not a readable image" in message


def test_a_url_is_not_fetched(refused, tiny_run):
    assert "URLs are not fetched" in refused("predict", tiny_run, "https://example.org/a.jpg")


def test_a_release_of_an_unfinished_run(refused, tiny_run, tmp_path):
    (tmp_path / "run").mkdir()
    record = json.loads((tiny_run / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "finished": None}))
    assert "is not a finished run" in refused(
        "release", tmp_path / "run", "--output", tmp_path / "out"
    )


def test_release_needs_an_output(refused, tiny_run):
    assert "--output" in refused("release", tiny_run)


def test_a_card_of_nothing(refused, tmp_path):
    assert "run.json" in refused("card", tmp_path)


@pytest.mark.parametrize("repo_id", ["food", "a/b/c", "user/..", "user/a b"])
def test_push_checks_the_name_first(refused, tiny_run, repo_id):
    message = refused("push", tiny_run / "release", "--dry_run", f"--repo_id={repo_id}")
    assert f"repo_id {repo_id!r} is malformed" in message


def test_interrupting_is_no_traceback(food101, monkeypatch, tiny_run):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.apps.predict.predict_images", interrupt)
    assert food101("predict", tiny_run, "a.jpg") == (130, "", "interrupted\n")


# ---- predict ----------------------------------------------------------------------------------


@pytest.fixture
def images(tiny_data) -> list[Path]:
    return [tiny_data / "validation" / label / "0.jpg" for label in ("pizza", "cheesecake")]


def test_predict_prints_a_line_an_image(food101, tiny_run, images):
    code, out, err = food101("predict", tiny_run, *images, "--top_k", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(image) for image in images]
    assert all(line.count("%") == 2 for line in lines)


def test_predict_gives_json(food101, tiny_run, images):
    code, out, err = food101("predict", tiny_run / "release", *images, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["image"] for row in rows] == [str(image) for image in images]
    for row in rows:
        scores = [label["score"] for label in row["labels"]]
        assert sum(scores) == pytest.approx(1, abs=1e-5) and scores == sorted(scores)[::-1]
        assert {label["label"] for label in row["labels"]} == {
            "cheese_plate",
            "cheesecake",
            "pizza",
        }


def test_run_model_and_release_give_one_answer(food101, tiny_run, images):
    answers = {
        food101("predict", folder, *images, "--json")[1]
        for folder in (tiny_run, tiny_run / "model", tiny_run / "release")
    }
    assert len(answers) == 1


def test_predictions_are_those_of_the_evaluation(food101, tiny_run, tiny_data):
    """The pipeline and the evaluation see the same pixels."""
    rows = [r.split(",") for r in (tiny_run / "predictions.csv").read_text().splitlines()[1:]]
    paths = sorted((tiny_data / "validation").rglob("*.jpg"))
    answers = json.loads(food101("predict", tiny_run, *paths, "--json", "--top_k=1")[1])
    for (_, label, predicted, score), path, answer in zip(rows, paths, answers, strict=True):
        assert label == path.parent.name
        assert answer["labels"][0]["label"] == predicted
        assert answer["labels"][0]["score"] == pytest.approx(float(score), abs=2e-6)


# ---- evaluate ---------------------------------------------------------------------------------


def test_evaluating_again_gives_the_same_numbers(food101, tiny_run, tmp_path):
    """To the last bit with the recorded batch size: another one orders the sums otherwise."""
    before = json.loads((tiny_run / "evaluation.json").read_text())
    words = ["--batch_size", before["batch_size"], "--output", tmp_path / "again.json"]
    code, out, _ = food101("evaluate", tiny_run, *words)
    assert code == 0 and "n = 18" in out
    again = json.loads((tmp_path / "again.json").read_text())
    passing = {"created", "seconds", "images_per_second"}
    assert {k: v for k, v in again.items() if k not in passing} == (
        {k: v for k, v in before.items() if k not in passing}
    )
    assert (
        0.34 < again["metrics"]["top1"]["value"] < 1
    )  # neither chance nor perfect, so it says something
    assert f"top1     {before['metrics']['top1']['value']:.4f}" in out


def test_a_release_needs_its_local_data_named(food101, refused, tiny_run, tiny_data):
    """Strangers do not have the folder: run.json of a release holds its last name only."""
    assert "give --dataset PATH" in refused("evaluate", tiny_run / "release")
    code, out, _ = food101("evaluate", tiny_run / "release", "--dataset", tiny_data)
    assert code == 0
    assert out == food101("evaluate", tiny_run)[1]


def test_the_batch_size_does_not_matter(food101, tiny_run):
    outputs = {food101("evaluate", tiny_run, "--batch_size", n)[1] for n in (1, 5, 64)}
    assert len(outputs) == 1  # to the four digits that are printed


def test_the_cache_does_not_matter(food101, refused, tiny_run, monkeypatch, tmp_path):
    """The run has filled it; a folder of its own is empty again, and stays so with 0."""
    outputs = {food101("evaluate", tiny_run, "--eval_cache_gb", gb)[1] for gb in (0, 16, 0.00001)}
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    outputs.add(food101("evaluate", tiny_run, "--eval_cache_gb", 0)[1])
    assert not list(tmp_path.rglob("eval-*.npy"))
    outputs.add(food101("evaluate", tiny_run)[1])
    assert len(list(tmp_path.rglob("eval-*.npy"))) == len(outputs) == 1
    assert "eval_cache_gb is -1.0" in refused("evaluate", tiny_run, "--eval_cache_gb=-1")


def test_another_label_set_is_refused(refused, tiny_run, tmp_path):
    other = write_image_folder(tmp_path / "other", labels=["cheesecake", "pizza", "ramen"])
    message = refused("evaluate", tiny_run, "--dataset", other)
    assert "labels are not the model's" in message
    assert "first: ramen" in message and "second: cheese_plate" in message


def test_a_split_that_is_not_there(refused, tiny_run):
    assert "has no split test: it has train, validation" in refused(
        "evaluate", tiny_run, "--split", "test"
    )


# ---- card, release, push ----------------------------------------------------------------------


def test_the_card(food101, tiny_run, tmp_path):
    code, out, err = food101("card", tiny_run / "release")
    assert (code, err) == (0, "")
    assert out == (tiny_run / "release" / "README.md").read_text(encoding="utf-8")
    code, out, _ = food101("card", tiny_run / "release", "--repo_id=user/x", "--output",
                           tmp_path / "card.md")  # fmt: skip
    assert (code, out) == (0, "") and "user/x" in (tmp_path / "card.md").read_text()


def test_release(food101, tiny_run, tmp_path):
    code, out, _ = food101("release", tiny_run, "--output", tmp_path / "out")
    assert code == 0 and "loaded back with the stock and the food pipeline" in out
    for path in (tiny_run / "release").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_of_push_lists_the_files(food101, tiny_run, no_network):
    code, out, _ = food101("push", tiny_run / "release", "--repo_id=user/x", "--dry_run")
    assert code == 0 and no_network == []
    names = [line.split()[-1] for line in out.splitlines()]
    assert names == sorted(p.name for p in (tiny_run / "release").iterdir() if p.stem != "release")


def test_where_the_model_of_a_path_is(tiny_run, tmp_path, monkeypatch):
    assert model_folder(str(tiny_run)) == tiny_run / "model"
    assert model_folder(str(tiny_run / "release")) == tiny_run / "release"
    assert model_folder("user/name") is None
    monkeypatch.chdir(tmp_path)  # a folder here comes before a Hub id of that name
    shutil.copytree(tiny_run / "model", tmp_path / "user" / "name")
    assert model_folder("user/name") == Path("user/name")
    with pytest.raises(UserError, match="a/b/c does not exist"):
        model_folder("a/b/c")
