"""README's snippets are run, its commands parsed, its paths looked up, its figures compared."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, food101
from training.common.files import read_json, write_json
from training.evaluation.formats import in_format_2
from training.hub.contents import MANIFEST, make_manifest
from training.model.config_block import merge_block, read_block

README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "runs"


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands() -> list[list[str]]:
    """Of README and the page on speed in blocks, of the page on recipes also between backticks."""
    found = [
        *blocks("bash"),
        *blocks("bash", SPEED),
        *re.findall(r"`(food101 train [^`]+)`", RECIPES),
    ]
    lines = [line for block in found for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def sure_release(real_run, folder: Path) -> Path:
    """The release, but for a threshold: six steps make no model that is right in 95 %."""
    shutil.copytree(real_run.release, folder)
    config = read_json(folder / "config.json")
    assert read_block(config)["sets"]["0.9"]
    merge_block(config, thresholds={**read_block(config)["thresholds"], "0.95": 0.5})
    write_json(folder / "config.json", config)
    write_json(folder / MANIFEST, make_manifest(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_snippets_run_as_they_stand(real_run, tmp_path, snippet):
    env = real_run.hub.env(tmp_path / "home")
    if not real_run.hub.has_repo("user/repo"):
        release = sure_release(real_run, tmp_path / "release")
        done = food101("push", release, "--repo_id", "user/repo", "--rescore", "5", env=env)
        assert done.returncode == 0, done.stderr
    shutil.copy(real_run.folder / "example.jpg", tmp_path / "photo.jpg")
    lines = snippet.strip().splitlines()
    script = "\n".join([*lines[:-1], f"print({lines[-1]})"])
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'score'" in done.stdout and "'label'" in done.stdout


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words):
    from training.cli.main import make_parser
    from training.config.recipe import known_keys, read_recipe

    words = [word for word in words if "=" not in word or word.startswith("-")]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif "training.train" in words or words[:2] == ["food101", "train"]:
        rest = words[words.index("train" if words[0] == "food101" else "training.train") + 1 :]
        if rest == ["--help"]:
            return
        assert read_recipe(rest[0])
        assert {word[2:] for word in rest if word.startswith("--")} <= known_keys()
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
    else:
        assert words[0] == "food101" and make_parser().parse_args(words[1:])


def test_named_files_exist():
    for name in re.findall(r"`((?:training|inference|model_card)/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"^\| `(\w+)` \|", README, re.M):
        assert (ROOT / "training" / "recipes" / f"{name}.yaml").is_file()


def test_a_recorded_card_is_that_of_its_run():
    cards = sorted(RESULTS.glob("*.md"))
    assert cards
    for card in cards:
        text = card.read_text(encoding="utf-8")
        report = in_format_2(json.loads(card.with_suffix(".json").read_text()))
        top1 = report["metrics"]["top1"]["value"]
        assert f"Top-1 accuracy on {report['n']} test images: **{100 * top1:.1f} %**" in text
        assert not re.search(r"[ `\"](/(?!\s)|[A-Z]:\\)", text)  # no path of a machine


def test_figures_are_those_of_the_recorded_runs():
    rows = re.findall(
        r"^\| `(\w+)`.*?\| ([\d.]+) % \| ([\d.]+) to ([\d.]+) % \| (\d+) \|", README, re.M
    )
    assert rows
    for name, top1, low, high, n in rows:
        report = in_format_2(json.loads((RESULTS / f"{name}.json").read_text()))
        assert report["n"] == int(n)
        metric = report["metrics"]["top1"]
        found = [metric["value"], *metric["interval"]]
        assert [f"{100 * value:.1f}" for value in found] == [top1, low, high]
