"""The project as a wheel: every file is in it, and it trains where there is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, run

pytestmark = pytest.mark.slow
PACKAGES = ("training", "inference", "model_card")
# What a checkout has beside its files; a build leaves build/ and *.egg-info where it is run.
NOT_SOURCE = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")


def pip(*words: str | Path) -> None:
    done = run([sys.executable, "-m", "pip", *words, "--no-deps", "--no-index"], dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=NOT_SOURCE)
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder / "out", tree)
    (built,) = (folder / "out").iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the wheel, and the libraries of this one.

    A path in a .pth file is searched last, and the .pth files that lie there are not read: an
    editable installation of the checkout does not work in it.
    """
    folder = tmp_path_factory.mktemp("environment")
    words = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(list(map(str, words)), check=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def env(sample_home) -> dict[str, str]:
    """No network, no cache but that of the sample, and no way to the checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "HF_HOME": str(sample_home), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def trained(python, env, tmp_path_factory) -> Path:
    """The run folder of a few steps of the default recipe."""
    folder = tmp_path_factory.mktemp("elsewhere")
    words = ["train", "sample", "--max_steps", "3", "--output_dir", "run"]
    done = run([python.parent / "food101", *words], env, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


def test_every_file_of_the_packages_is_in_it(wheel):
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == wanted
    suffixes = {(path.split("/")[0], Path(path).suffix) for path in found}
    assert {("training", ".yaml"), ("model_card", ".md")} <= suffixes


def test_it_is_not_the_checkout_that_is_imported(python, env, tmp_path):
    script = "import " + ", ".join(PACKAGES) + "\n"
    script += "".join(f"print({package}.__file__)\n" for package in PACKAGES)
    done = run([python, "-c", script], env, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(python.parents[1])
    assert len(done.stdout.splitlines()) == len(PACKAGES)


def test_it_trains(trained):
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert record["finished"] and record["training"]["steps"] == 3


LOADER = """
import json, sys
from transformers import pipeline
release, image = sys.argv[1:]
stock = pipeline("image-classification", model=release)
food = pipeline(model=release, trust_remote_code=True)
print(json.dumps([[type(p).__name__, p(image, top_k=1)[0]] for p in (stock, food)]))
"""


def test_the_release_is_loaded_from_another_folder(trained, python, env, tmp_path):
    words = [python, "-c", LOADER, trained / "release", trained / "example.jpg"]
    done = run(words, env, tmp_path)
    assert done.returncode == 0, done.stderr
    (stock, first), (food, second) = json.loads(done.stdout.splitlines()[-1])
    assert (stock, food) == ("ImageClassificationPipeline", "FoodClassificationPipeline")
    assert first["label"] == second["label"]
    assert first["score"] == pytest.approx(second["score"], abs=5e-3)
