# SPDX-License-Identifier: Apache-2.0
"""Which files are going to be pushed."""

import hashlib
import json
import subprocess

import pytest

from training.common.errors import UserError
from training.hub.contents import MANIFEST, card_text, make_manifest
from training.hub.staging import check_repo_id, check_tag, stage_files


def test_the_files_of_the_manifest_with_the_card_of_the_repository(toy):
    staged = {file.name: file for file in stage_files(toy, "user/food", "v1.0")}
    assert list(staged) == sorted(path.name for path in toy.iterdir() if path.name != MANIFEST)
    card = card_text(toy, "user/food", "v1.0").encode()
    assert staged["README.md"].content == card != (toy / "README.md").read_bytes()
    assert staged["model.safetensors"].content == toy / "model.safetensors"
    assert staged["model.safetensors"].size == len(b"weights")


def test_digests_are_those_of_sha256sum_and_git(toy):
    (file,) = (f for f in stage_files(toy, "user/food", "v1.0") if f.name == "config.json")
    assert file.sha256 == hashlib.sha256(b"{}").hexdigest()
    hashed = subprocess.run(["git", "hash-object", toy / "config.json"], capture_output=True)
    assert file.git_sha1 == hashed.stdout.decode().strip()


def test_one_more_file_in_the_manifest_is_staged(toy):
    (toy / "dish_names.json").write_text("{}")
    with pytest.raises(UserError, match=r"was changed since it was built \(dish_names.json\)"):
        stage_files(toy, "user/food", "v1.0")
    (toy / MANIFEST).write_text(json.dumps(make_manifest(toy)))
    names = [file.name for file in stage_files(toy, "user/food", "v1.0")]
    assert "dish_names.json" in names and names == sorted(names)


def test_a_changed_release_is_refused(toy):
    (toy / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"was changed since it was built \(model.safetensors\)"):
        stage_files(toy, "user/food", "v1.0")


@pytest.mark.parametrize("repo_id", ["food", "a/b/c", "user/a b", "user/-food-", ""])
def test_a_malformed_id_is_one_line(repo_id):
    with pytest.raises(UserError, match="is malformed .*: give user/name") as error:
        check_repo_id(repo_id)
    assert "\n" not in str(error.value)
    check_repo_id("user/food-vit_1.0")


@pytest.mark.parametrize("tag", ["v1.0", "1", "release/2", "a-b_c.d", "größe"])
def test_a_tag(tag):
    check_tag(tag)


@pytest.mark.parametrize(
    "tag",
    ["", "x y", "x\n", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@{b", "-a", ".a",
     "a/.b", "/a", "a/", "a.", "a//b", "a.lock", "a.lock/b"],
)  # fmt: skip
def test_what_git_takes_for_no_tag(tag):
    with pytest.raises(UserError, match=r"^tag .* is malformed \(git allows no .*\): give a name"):
        check_tag(tag)
