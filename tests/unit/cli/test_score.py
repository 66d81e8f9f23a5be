# SPDX-License-Identifier: Apache-2.0
"""The verbs evaluate, compare and predict; what compare counts is tested in its room."""

import csv
import io
import json
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from tests.unit.compare.toy_runs import A, B, write_run
from tests.unit.toys import jpeg, write_image_folder
from training.compare import speed, text
from training.model.config_block import drop_block, merge_block
from training.model.network import load_network


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
    (tmp_path / "dinner.jpg").write_bytes(jpeg(0))
    message = refused("predict", tiny_run, tmp_path / "diner.jpg")
    assert f"{tmp_path / 'diner.jpg'}: no such file; give the path of an image file" in message
    assert message.endswith("; did you mean {}?\n".format(tmp_path / "dinner.jpg"))


def test_a_text_file_as_image(refused, tiny_run, tmp_path):
    (tmp_path / "notes.txt").write_text("this is no image")
    message = refused("predict", tiny_run, tmp_path / "notes.txt")
    assert f"{tmp_path / 'notes.txt'}: not a readable image" in message


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_path_that_is_nearly_one_is_not_asked_of_the_hub(
    refused, tiny_run, tmp_path, monkeypatch, no_network, verb
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sample").symlink_to(tiny_run)
    monkeypatch.chdir(tmp_path)
    message = refused(verb, "runs/smaple", *(["a.jpg"] if verb == "predict" else []))
    assert message.startswith("error: runs/smaple does not exist: give a run, a release folder or ")
    assert message.endswith("; did you mean runs/sample?\n") and no_network == []


@pytest.mark.parametrize("verb", ["predict", "evaluate", "compare", "release"])
def test_a_head_that_nobody_trained(refused, tiny_run, tmp_path, images, verb):
    """A backbone with the labels in its config: its answers would be random."""
    run = shutil.copytree(tiny_run, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoint*"))
    load_network(run / "model").model.vit.save_pretrained(run / "model")
    words = {
        "predict": images,
        "compare": [tiny_run, "--rounds", 1],
        "release": ["--output", tmp_path / "out"],
    }
    message = refused(verb, run, *words.get(verb, []))
    assert "has no trained head (its files do not give classifier.bias, classifier" in message
    assert f"food101 train RECIPE --model {run / 'model'}`" in message
    assert not (tmp_path / "out").exists()


def test_a_url_is_not_fetched(refused, tiny_run):
    assert "URLs are not fetched" in refused("predict", tiny_run, "https://example.org/a.jpg")


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


def test_one_bad_image_does_not_stop_the_others(food101, tiny_run, images, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    words = (images[0], bad, images[1], images[0])
    code, out, err = food101("predict", tiny_run, *words, "--top-k", "1", "--batch-size", "3")
    assert code == 1
    told = [line.split(": ")[0] for line in out.splitlines()]
    assert told == [str(image) for image in words if image != bad]  # the one that is twice, twice
    assert err.startswith(f"error: {bad}: not a readable image") and err.count("\n") == 1
    code, out, _ = food101("predict", tiny_run, *words, "--json")
    rows = json.loads(out)
    assert code == 1 and [row["image"] for row in rows] == [str(image) for image in words]
    assert rows[1].keys() == {"image", "error"} and rows[1]["error"].startswith("not a readable")
    assert [row.keys() for row in rows if row is not rows[1]] == [{"image", "labels"}] * 3
    code, out, _ = food101("predict", tiny_run, bad, bad, "--json")
    assert code == 2 and len(json.loads(out)) == 2


def test_the_limit_on_pixels_that_a_refusal_names_can_be_raised(food101, tiny_run, images):
    width, height = Image.open(images[0]).size
    words = ("predict", tiny_run, images[0], "--max_image_pixels")
    code, _, err = food101(*words, str(width * height - 1))
    assert code == 2 and err.endswith("make it smaller or raise max_image_pixels\n")
    assert food101(*words, str(width * height))[0] == 0


def test_predict_names_dishes_in_a_language(food101, refused, tiny_run, images):
    out = {}
    for way in ("", "--json", "--csv"):
        words = [*images, "--language", "ko", *filter(None, [way])]
        code, out[way], err = food101("predict", tiny_run / "release", *words)
        assert (code, err) == (0, "") and "치즈케이크" in out[way] and "피자" in out[way]
    assert {row["label"]: row["name"] for row in json.loads(out["--json"])[0]["labels"]}[
        "pizza"
    ] == "피자"
    message = refused("predict", tiny_run, *images, "--language", "de")
    assert message == "error: language 'de': the model has no names in it: give en or ko\n"


def test_predict_says_whether_it_is_sure(food101, refused, tiny_run, images, tmp_path):
    folder = shutil.copytree(tiny_run / "release", tmp_path / "sure")
    config = json.loads((folder / "config.json").read_text())
    merge_block(config, thresholds={"0.9": 0.2, "0.95": 0.999}, sets={"0.5": 0.4, "0.9": 0.01})
    (folder / "config.json").write_text(json.dumps(config))
    plain = food101("predict", folder, *images)[1].splitlines()
    code, out, err = food101("predict", folder, *images, "--abstain", "--coverage", "0.9")
    lines = out.splitlines()
    assert (code, err) == (0, "") and len(lines) == 6
    assert lines[::3] == [f"{image}: not sure" for image in images]
    assert [line.strip().removeprefix("perhaps: ") for line in lines[1::3]] == [
        line.split(": ")[1] for line in plain
    ]
    assert all(line.startswith("  one of: ") and line.count(",") == 2 for line in lines[2::3])
    code, out, _ = food101("predict", folder, *images, "--abstain=0.9", "--json")
    row = json.loads(out)[0]
    assert code == 0 and list(row) == ["image", "labels", "answered", "set", "not_food"]
    assert (row["answered"], row["set"], row["not_food"]) == (True, None, None)
    assert food101("predict", folder, *images, "--abstain", "0.9")[1].splitlines() == plain
    words = [*images, "--abstain", "--coverage", "0.9", "--top_k", "1"]
    rows = list(csv.DictReader(io.StringIO(food101("predict", folder, *words, "--csv")[1])))
    whole = json.loads(food101("predict", folder, *words, "--json")[1])
    for row, each in zip(rows, whole, strict=True):
        assert list(row) == ["image", "rank", "label", "name", "score", "answered", "set"]
        assert row["answered"] == "false" and each["answered"] is False
        assert json.loads(row["set"]) == [said["label"] for said in each["set"]]
    for words, said in (
        (["--abstain", "0.7"], "abstain=0.7: give True (for 0.95) or one of 0.9, 0.95\n"),
        (["--coverage", "90"], "coverage=90.0: give a number from 0.5 to 0.9 in steps"),
        (["--coverage", "-1"], "coverage=-1.0: give a number from 0.5 to 0.9 in steps"),
        (["--coverage", "most"], "--coverage: 'most' is not a number"),
    ):
        assert said in refused("predict", folder, *images, *words)
    assert "'a.jpg' is not a number; give the images before the option" in refused(
        "predict", folder, "b.jpg", "--abstain", "a.jpg"
    )


def test_predict_with_a_model_that_does_not_know_how_sure_it_is(
    refused, tiny_run, images, tmp_path
):
    folder = shutil.copytree(tiny_run / "release", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    drop_block(config)
    (folder / "config.json").write_text(json.dumps(config))
    said = "config.json of this model has no thresholds: train it again with vit-food101"
    assert said in refused("predict", folder, *images, "--abstain")


def test_predict_gives_csv(food101, tiny_run, images):
    code, out, err = food101("predict", tiny_run, *images, "--csv", "--top_k", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "") and list(rows[0]) == ["image", "rank", "label", "name", "score"]
    assert [(row["image"], row["rank"]) for row in rows] == [
        (str(image), rank) for image in images for rank in "12"
    ]
    answers = json.loads(food101("predict", tiny_run, *images, "--json", "--top_k", "2")[1])
    assert [float(row["score"]) for row in rows] == [
        label["score"] for answer in answers for label in answer["labels"]
    ]


def test_one_shape_of_output(refused, tiny_run):
    assert "not allowed with" in refused("predict", tiny_run, "a.jpg", "--json", "--csv")


def test_folders_globs_and_the_home_folder(food101, refused, tiny_run, tiny_data, monkeypatch):
    folder = tiny_data / "validation"
    paths = [str(path) for path in sorted(folder.rglob("*.jpg"))]
    monkeypatch.setenv("HOME", str(tiny_data))
    for words in ([folder], [f"{folder}/*/*.jpg"], ["~/validation"], ["~/validation/**/*.jpg"]):
        code, out, err = food101("predict", tiny_run, *words, "--top_k", "1")
        assert (code, err) == (0, "")
        assert [line.split(": ")[0] for line in out.splitlines()] == paths
    assert "matches no image" in refused("predict", tiny_run, f"{folder}/*.png")


def test_a_list_on_standard_input(food101, refused, tiny_run, images, monkeypatch):
    def typed(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    typed("".join(f"{image}\n" for image in images).encode())
    code, out, _ = food101("predict", tiny_run, "-", images[0], "--top_k", "1")
    assert code == 0
    told = [line.split(": ")[0] for line in out.splitlines()]
    assert told == [str(image) for image in (*images, images[0])]
    typed(b"\n")
    assert "standard input names no image" in refused("predict", tiny_run, "-")
    typed(jpeg(0))
    assert "standard input is not a list of paths" in refused("predict", tiny_run, "-")


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


def test_an_output_that_cannot_be_written_is_found_first(refused, tmp_path):
    """Before the model is looked for: there is none."""
    message = refused("evaluate", "nowhere", "--output", tmp_path / "no" / "x.json")
    assert f"there is no folder {tmp_path / 'no'}" in message
    assert "is a folder" in refused("evaluate", "nowhere", "--output", tmp_path)


def test_the_home_folder_in_output(food101, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(tiny_run)
    assert food101("evaluate", "~/run", "--output=~/x.json")[0] == 0
    report = json.loads((tmp_path / "x.json").read_text())
    assert "top5" not in report["metrics"]  # of three labels


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
    assert "the model does not know ramen" in message


def test_a_split_that_is_not_there(refused, tiny_run):
    assert "has no split test: it has train, validation" in refused(
        "evaluate", tiny_run, "--split", "test"
    )


# ---- compare ----------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path) -> list[Path]:
    return [write_run(tmp_path / "a", A), write_run(tmp_path / "b", B)]


def test_compare_prints_tables_or_json(food101, pair):
    code, out, err = food101("compare", *pair, "--no_speed")
    assert (code, err) == (0, "")
    assert "75.00%" in out and "80.00%" in out and "1 recipe, up to 2 runs of one" in out
    code, out, _ = food101("compare", *pair, "--no_speed", "--json")
    report = json.loads(out)
    assert code == 0 and out.count("\n") == 1 and report["speed"] is None
    assert [row["name"] for row in report["runs"]] == [str(folder) for folder in pair]


def test_compare_measures_speed_as_it_is_told(food101, pair, monkeypatch):
    seen = []
    monkeypatch.setattr(speed, "measure_throughput", lambda *asked: seen.append(asked) or "fast")
    monkeypatch.setattr(text, "render", lambda report: report["speed"])
    models = [(str(folder), folder) for folder in pair]
    assert food101("compare", *pair)[:2] == (0, "fast\n")
    food101("compare", *pair, "--rounds", 3, "--batch_size", 4)
    assert seen == [(models, 10, None), (models, 3, 4)]


def test_compare_needs_two_runs(refused, pair):
    assert "1 run given: give two or more" in refused("compare", pair[0], "--no_speed")
