"""`make train`: the embedded default, from drawing the pictures to a release that loads."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.integration.conftest import food101, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample_run(sample_home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "run"
    env = {**os.environ, "HF_HOME": str(sample_home), "HF_HUB_OFFLINE": "1"}
    done = food101("train", "sample", "--output_dir", folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, env, done


def test_the_model_is_good_and_says_so(sample_run):
    folder, _, done = sample_run
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["n"] == 300 and len(report["per_class"]) == 10
    top1 = report["metrics"]["top1"]["value"]
    assert top1 >= 0.9  # colour alone gives less than half: test_sample.py
    assert f"test top-1: {top1:.2%}" in done.stdout
    assert "one test image" in done.stdout and "vit_base_food101" in done.stdout


def test_the_release_answers(sample_run):
    folder, env, _ = sample_run
    done = food101("predict", folder / "release", folder / "example.jpg", "--json", env=env)
    assert done.returncode == 0, done.stderr
    row = (folder / "predictions.csv").read_text().splitlines()[1].split(",")
    best = json.loads(done.stdout)[0]["labels"][0]
    assert best["label"] == row[2] and best["score"] == pytest.approx(float(row[3]), abs=1e-3)


def test_a_second_call_is_quick_and_changes_nothing(sample_run):
    folder, env, first = sample_run
    before = (folder / "run.json").read_bytes()
    done = food101("train", "sample", "--output_dir", folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "nothing was trained now" in done.stdout
    assert first.stdout.splitlines()[0] in done.stdout
    assert (folder / "run.json").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(sample_run):
    folder, env, _ = sample_run
    done = food101("train", "sample", "--output_dir", folder, "--seed", "1", env=env)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(errors) == 1 and "seed was 0, is 1" in errors[0]


@pytest.fixture(scope="module")
def explained(sample_run):
    """What the maps of the release are worth: see `explained_sample`."""
    folder, env, _ = sample_run
    done = run(
        [sys.executable, "-m", "tests.integration.explained_sample", folder / "release"], env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_map_lies_on_the_drawn_dish(explained):
    rows = explained["on_the_dish"]
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    assert len(rows) == 30 and mean["map"] > max(mean["area"], mean["blob"], mean["attention"])
    for other in ("area", "blob", "attention"):
        assert sum(row["map"] > row[other] for row in rows) >= 0.8 * len(rows), other


def test_the_map_depends_on_the_head(explained):
    correlations = sorted(explained["random_head"])
    assert correlations[len(correlations) // 2] < 0.5


def test_of_two_dishes_the_one_that_is_asked_for_gets_more(explained):
    right = explained["two_dishes"]
    assert len(right) >= 40 and sum(right) >= 0.8 * len(right)


def test_a_page_is_written(sample_run, tmp_path):
    folder, env, _ = sample_run
    for language in ("en", "ko"):
        words = ["explain", folder, folder / "example.jpg", "--language", language]
        page = tmp_path / f"{language}.html"
        done = food101(*words, "--output", page, "--picture", tmp_path / "strip.png", env=env)
        assert done.returncode == 0, done.stderr
        assert f'<html lang="{language}">' in page.read_text(encoding="utf-8")
        assert page.stat().st_size < 1e6 and (tmp_path / "strip.png").is_file()
