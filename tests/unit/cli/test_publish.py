# SPDX-License-Identifier: Apache-2.0
"""The verbs card, release and push."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest


def test_a_release_of_an_unfinished_run(refused, tiny_run, tmp_path):
    (tmp_path / "run").mkdir()
    record = json.loads((tiny_run / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "finished": None}))
    assert "is not a finished run" in refused(
        "release", tmp_path / "run", "--output", tmp_path / "out"
    )


def test_release_needs_an_output(refused, tiny_run):
    assert "--output" in refused("release", tiny_run)


def test_a_release_with_names_that_do_not_fit(refused, tiny_run, tmp_path):
    (tmp_path / "names.csv").write_text("label,de\npizza,Pizza\n")
    words = ("release", tiny_run, "--output", tmp_path / "out", "--display_names")
    assert "no row for 2 of 3 labels" in refused(*words, tmp_path / "names.csv")
    assert "cannot be read (No such file" in refused(*words, tmp_path / "nams.csv")
    assert not (tmp_path / "out").exists()


def test_a_card_of_nothing(refused, tmp_path):
    assert "run.json" in refused("card", tmp_path)


@pytest.mark.parametrize("repo_id", ["food", "a/b/c", "user/..", "user/a b"])
def test_push_checks_the_name_first(refused, tiny_run, repo_id):
    message = refused("push", tiny_run / "release", "--dry_run", f"--repo_id={repo_id}")
    assert f"repo_id {repo_id!r} is malformed" in message


@pytest.mark.parametrize("verb", ["push", "card"])
def test_a_tag_that_git_would_not_take(refused, tiny_run, verb):
    words = {"push": ["--dry_run", "--repo_id=user/x"], "card": []}[verb]
    message = refused(verb, tiny_run / "release", *words, "--tag", "x y")
    assert "tag 'x y' is malformed (git allows no ' ' in it): give a name like v1.0" in message


def test_the_card_checks_the_name_too(refused, tiny_run):
    assert "repo_id 'bad id' is malformed" in refused("card", tiny_run, "--repo_id", "bad id")


@pytest.mark.parametrize(
    "words", [["card"], ["release", "--output", "x"], ["push", "--repo_id=user/x", "--dry_run"]]
)
def test_a_folder_that_is_not_there(refused, tmp_path, monkeypatch, words):
    (tmp_path / "sample").mkdir()
    monkeypatch.chdir(tmp_path)
    message = refused(words[0], "smaple", *words[1:])
    assert "smaple does not exist: give a " in message
    assert message.endswith("; did you mean sample?\n")


def test_an_output_that_cannot_be_written_is_found_first(refused, tiny_run, tmp_path):
    """Before the run is read: it lacks everything."""
    (run := tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    assert "there is no folder" in refused("card", run, "--output", tmp_path / "no" / "card.md")
    assert "is a folder" in refused("card", run, "--output", tmp_path)
    assert "is no folder" in refused("release", run, "--output", tmp_path / "file" / "x")


def test_the_home_folder(food101, tiny_run, tmp_path, monkeypatch):
    """A shell leaves the ~ in --output=~/x to us."""
    monkeypatch.setenv("HOME", str(tiny_run.parent))
    run = f"~/{tiny_run.name}"
    card = food101("card", run)[1]
    assert card.startswith("---")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(tiny_run)
    assert food101("card", "~/run", "--output=~/card.md")[0] == 0
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == card
    assert food101("release", "~/run", "--output=~/out")[0] == 0
    code, out, _ = food101("push", "~/out", "--repo_id=user/x", "--dry_run")
    assert code == 0 and "model.safetensors" in out


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
    assert "uncalibrated" not in out
    for path in (tiny_run / "release").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_release_with_a_handler(food101, tiny_run, tmp_path):
    code, out, _ = food101("release", tiny_run, "--output", tmp_path / "out", "--handler")
    assert code == 0 and "the food pipeline, and by its handler; sums in" in out
    code, out, _ = food101("push", tmp_path / "out", "--repo_id=user/x", "--dry_run")
    assert code == 0 and {"handler.py", "requirements.txt"} <= {*out.split()}


@pytest.mark.parametrize(
    "words", [[], ["--public", "--dataset", "d", "--rescore", "5", "--tag", "v2"]]
)
def test_push_is_told_what_the_options_say(food101, monkeypatch, tmp_path, words):
    seen = []
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path)

    def push(folder: Path, repo_id: str, **options: object) -> SimpleNamespace:
        seen.append((folder, repo_id, options))
        return SimpleNamespace(changed=not words, private=not words, commit="abc", rescored="same")

    monkeypatch.setattr("training.hub.push.push", push)
    code, out, _ = food101("push", "release", "--repo_id=user/x", *words)
    options = {"tag": "v1.0", "public": False, "dataset": None, "num_rescored": 100}
    said = "user/x (private): pushed, commit abc, tag v1.0\nsame\n"
    if words:
        options = {"tag": "v2", "public": True, "dataset": "d", "num_rescored": 5}
        said = "user/x (public): nothing to push: already there, commit abc, tag v2\nsame\n"
    assert seen == [(Path("release"), "user/x", options)]
    assert (code, out) == (0, said)


def test_a_dry_run_of_push_lists_the_files(food101, tiny_run, no_network):
    code, out, _ = food101("push", tiny_run / "release", "--repo_id=user/x", "--dry_run")
    assert code == 0 and no_network == []
    names = [line.split()[-1] for line in out.splitlines()]
    assert names == sorted(p.name for p in (tiny_run / "release").iterdir() if p.stem != "release")
