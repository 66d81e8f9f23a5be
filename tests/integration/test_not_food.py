# SPDX-License-Identifier: Apache-2.0
"""`not_food` by a Hub id: the file of the same revision is fetched, in a process that has only the id."""

import json
import sys

import pytest

from tests.integration.conftest import food101, run
from tests.unit.toys import train, write_image_folder, write_recipe

pytestmark = pytest.mark.slow

ASK = """
import json, sys
from transformers import pipeline
repo, revision, image = sys.argv[1:]
food = pipeline(model=repo, revision=revision, trust_remote_code=True, device="cpu")
print(json.dumps(food(image, not_food=0.1)))
"""


def ask(hub, home, image, revision):
    env = hub.env(home, token=None) | {"OMP_NUM_THREADS": "1"}
    return run([sys.executable, "-c", ASK, "user/told", revision, image], env, cwd=home.parent)


def test_the_file_of_the_revision_is_fetched(hub, tmp_path):
    data = write_image_folder(tmp_path / "dishes", train=70, validation=4)
    recipe = write_recipe(
        tmp_path / "r.yaml", dataset=data, num_train_epochs=1, selection_fraction=0.5
    )
    train(recipe, "--output_dir", tmp_path / "run", "--not_food", "true")
    release, image = tmp_path / "run" / "release", tmp_path / "run" / "example.jpg"
    files = {path.name: path.read_bytes() for path in release.iterdir()}
    hub.add_repo("user/told", files)
    hub.add_tag("user/told", "v1.0", hub.commits("user/told")[-1].oid)
    done = ask(hub, tmp_path / "home", image, "v1.0")
    assert done.returncode == 0, done.stderr
    env = hub.env(tmp_path / "home", token=None)
    words = ("predict", "user/told", image, "--revision", "v1.0", "--json", "--not_food", "0.1")
    said = food101(*words, env=env)
    assert said.returncode == 0, said.stderr
    ((answer,), direct) = json.loads(said.stdout), json.loads(done.stdout)
    assert answer["not_food"] == direct["not_food"]
    bad = food101(*words[:-1], "0.3", env=env)
    assert bad.returncode == 2 and bad.stderr.startswith("error: not_food 0.3 is not known: give")
    assert len(bad.stderr.splitlines()) == 1


def test_a_repository_without_the_file_has_one_line(hub, tmp_path):
    """Its config speaks of a file that was not pushed."""
    data = write_image_folder(tmp_path / "dishes", train=70, validation=4)
    recipe = write_recipe(
        tmp_path / "r.yaml", dataset=data, num_train_epochs=1, selection_fraction=0.5
    )
    train(recipe, "--output_dir", tmp_path / "run", "--not_food", "true")
    release, image = tmp_path / "run" / "release", tmp_path / "run" / "example.jpg"
    lacking = {
        p.name: p.read_bytes() for p in release.iterdir() if p.name != "not_food.safetensors"
    }
    hub.add_repo("user/lacking", lacking)
    said = food101(
        "predict", "user/lacking", image, "--not_food", env=hub.env(tmp_path / "home", token=None)
    )
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert "not_food.safetensors is not beside the weights in 'user/lacking'" in said.stderr
