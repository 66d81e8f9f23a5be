# SPDX-License-Identifier: Apache-2.0
"""What an older version wrote is still scored, released, compared, and gone on with or refused."""

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.old_run import FIXTURES, RUN, restore_release, restore_run, write_old_place
from training.cli.main import main
from training.common.errors import UserError
from training.config.recipe import parse_recipe
from training.hub.contents import CODE, check_release
from training.hub.release import load_back
from training.run.folder import Run

RELEASE = "release"
BOTH = pytest.mark.parametrize("name", [RUN, RELEASE])


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory) -> Path:
    """The folder that the old run ran in, and its release; read it, never change it."""
    root = tmp_path_factory.mktemp("place")
    write_old_place(root, tiny_data)
    restore_run(root / RUN)
    restore_release(root / RELEASE)
    return root


@pytest.fixture(autouse=True)
def place(whole, monkeypatch) -> Path:
    """The working directory: the record names data and checkpoint as they are seen from there."""
    monkeypatch.chdir(whole)
    return whole


@pytest.fixture
def open_run():
    """open_run(folder, *command line) -> Run, of the recipe that the old run had."""

    def open_run(folder: str | Path, *overrides: str) -> Run:
        return Run.open(parse_recipe(["old.yaml", "--output_dir", str(folder), *overrides]))

    return open_run


def read(path: Path | str) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def value_of(metric: float | dict) -> float:
    """A metric of any format: the number alone, or with what belongs to it."""
    return metric["value"] if isinstance(metric, dict) else metric


# ---- finished ---------------------------------------------------------------------------------


@BOTH
def test_scoring_again_gives_the_recorded_metrics(name, tmp_path):
    assert main(["evaluate", name, "--output", str(tmp_path / "again.json")]) == 0
    again, recorded = read(tmp_path / "again.json"), read(f"{name}/evaluation.json")
    assert recorded["format"] == 1 and again["n"] == recorded["n"] == 18
    metrics = {key: value_of(metric) for key, metric in again["metrics"].items()}
    assert metrics["top1"] == recorded["metrics"]["top1"] == 15 / 18
    expected = dict(recorded["metrics"])
    assert expected.pop("top5") == 1  # of three labels: no longer reported
    assert metrics == pytest.approx(expected, abs=1e-4)


@BOTH
def test_it_is_explained(name, tmp_path):
    photo, page = f"{RUN}/example.jpg", tmp_path / "page.html"
    assert main(["explain", name, photo, "--output", str(page)]) == 0
    assert "n = 18) it gets 83.3\N{NO-BREAK SPACE}%" in page.read_text(encoding="utf-8")


@BOTH
def test_the_card_is_rendered(name, capsys):
    assert main(["card", name]) == 0
    card = capsys.readouterr().out
    assert "83.3 %" in card and "dishes" in card and "{{" not in card
    assert "Top-5 accuracy" in card  # it shows what the file has


def test_it_is_released(tmp_path, capsys):
    assert main(["release", RUN, "--output", str(tmp_path / "out")]) == 0
    assert "uncalibrated: " in capsys.readouterr().out
    before = read(f"{RELEASE}/release.json").keys()  # with the code in one file
    assert check_release(tmp_path / "out").keys() == {*before, *CODE}
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == Path(RUN, "model", "model.safetensors").read_bytes()


def test_its_release_answers_with_the_code_that_came_with_it():
    load_back(Path(RELEASE), Path(RUN))


def test_its_release_can_be_pushed(capsys):
    check_release(Path(RELEASE))
    assert main(["push", RELEASE, "--repo_id", "user/dishes", "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines} == read(f"{RELEASE}/release.json").keys()


def test_it_is_compared_with_its_release(capsys):
    assert main(["compare", RUN, RELEASE, "--no_speed", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [run["num_parameters"] for run in report["runs"]] == [14707, 14707]
    assert report["pairs"][0]["difference"] == 0 and report["pairs"][0]["both_right"] == 15
    assert any(note.startswith("SAME WEIGHTS") for note in report["notes"])


def test_it_is_compared_with_a_run_of_today(tiny_run, tmp_path, capsys):
    old = shutil.copytree(RUN, tmp_path / "old")
    report = read(old / "evaluation.json")
    # The pictures are the same; another Pillow may have encoded them into other bytes.
    report["dataset_fingerprint"] = read(tiny_run / "evaluation.json")["dataset_fingerprint"]
    (old / "evaluation.json").write_text(json.dumps(report))
    for pair in ([old, tiny_run], [tiny_run, old]):
        assert main(["compare", *map(str, pair), "--no_speed"]) == 0
        assert "83.33%" in capsys.readouterr().out


def test_it_is_not_taken_for_a_run_of_this_code(open_run):
    with pytest.raises(UserError, match="holds a finished run of another version of this code"):
        open_run(RUN)


# ---- unfinished -------------------------------------------------------------------------------


@pytest.fixture
def unfinished(tmp_path) -> Path:
    """As it was written when training began, by a version that did not know some of the keys."""
    folder = shutil.copytree(FIXTURES / "old_unfinished", tmp_path / "unfinished")
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / "complete").touch()
    return folder


@pytest.mark.parametrize(
    "words",
    [(), ("--layer_decay=1", "--head_init_scale=1.0"), ("--max_grad_norm=1",)],
    ids=["as it was", "new keys at their defaults", "a key that was not named"],
)
def test_keys_that_came_later_do_not_stop_it(open_run, unfinished, words):
    record = read(unfinished / "run.json")
    missing = {"layer_decay", "head_init_scale", "weight_init", "ema_decay", "max_grad_norm"}
    assert record["finished"] is None and not missing & record["recipe"].keys()
    run = open_run(unfinished, "--resume_from_checkpoint", "last", *words)
    assert (run.is_finished, run.checkpoint) == (False, str(unfinished / "checkpoint-2"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--layer_decay=0.9", "layer_decay was 1.0, is 0.9"),
        ("--head_init_scale=0.5", "head_init_scale was 1.0, is 0.5"),
        ("--ema_decay=0.99", "ema_decay was None, is 0.99"),
        ("--max_grad_norm=0.5", "max_grad_norm was 1.0, is 0.5"),
        ("--learning_rate=0.1", "learning_rate was 0.0, is 0.1"),
    ],
)
def test_keys_that_came_later_may_not_change_it(open_run, unfinished, word, said):
    with pytest.raises(UserError) as error:
        open_run(unfinished, "--resume_from_checkpoint", "last", word)
    assert f"holds another run ({said})" in str(error.value)
