# SPDX-License-Identifier: Apache-2.0
"""The `food101` command: quick help, exit codes, one-line errors, and what a run answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.cli import main
from training.common.errors import UserError

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


def test_train_gets_its_words_as_they_are(food101, monkeypatch):
    """Its options are the recipe's keys, which no parser here knows."""
    seen = []
    monkeypatch.setattr(main, "train", lambda words: seen.append(words) or 7)
    assert food101("train", "sample", "--seed", "1")[0] == 7
    assert seen == [["sample", "--seed", "1"]]


def test_a_persons_mistake_is_one_line_and_a_verb_that_says_nothing_ends_well(food101, monkeypatch):
    def fail(words: list[str]) -> None:
        if words:
            raise UserError(f"{words[0]} is no recipe")

    monkeypatch.setattr(main, "train", fail)
    assert food101("train", "x") == (2, "", "error: x is no recipe\n")
    assert food101("train") == (0, "", "")


def test_interrupting_is_no_traceback(food101, monkeypatch, tiny_run):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.apps.predict.predict_images", interrupt)
    assert food101("predict", tiny_run, "a.jpg") == (130, "", "interrupted\n")


# ---- a reader that leaves -----------------------------------------------------------------------


def unread(*words: str, stderr_too: bool = False, **environment: str) -> tuple[int, str]:
    """Run `python WORDS` with nobody at the other end of standard output: (exit code, stderr)."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": "", **environment}
    try:
        done = subprocess.run(
            [sys.executable, *words],
            env=environment,
            stdout=write,
            stderr=subprocess.STDOUT if stderr_too else subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr or ""


PRINTS = """
import sys
from training.cli import main
def train(words):
    for i in range(int(words[0])):
        print("a line", i)
main.train = train
sys.exit(main.main(["train", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["predict", "-h"], ["train", "-h"]])
def test_a_reader_that_leaves_ends_help_quietly(words):
    assert unread("-m", "training.cli", *words) == (141, "")
    assert unread("-m", "training.cli", *words, stderr_too=True) == (141, "")


@pytest.mark.parametrize("lines", ["1", "100000"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_ends_a_verb_quietly(lines, unbuffered):
    assert unread("-c", PRINTS, lines, PYTHONUNBUFFERED=unbuffered) == (141, "")


def test_a_mistake_that_nobody_reads():
    assert unread("-m", "training.cli", "traine", stderr_too=True)[0] == 141


def test_a_pipe_of_somebody_else_keeps_its_traceback(food101, monkeypatch):
    def fail(_: object) -> None:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(main, "train", fail)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        food101("train")


def test_hyphens_are_underscores_in_the_options_of_train_too(food101, monkeypatch):
    seen = []
    monkeypatch.setattr(main, "train", seen.append)
    food101("train", "my-recipe", "--num-train-epochs", "1", "--run-name=a-b")
    assert seen == [["my-recipe", "--num_train_epochs", "1", "--run_name=a-b"]]
