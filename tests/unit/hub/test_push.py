# SPDX-License-Identifier: Apache-2.0
"""Pushing with a Hub in memory; tests/integration/test_push.py does it over HTTP."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd

from tests.unit.card_files import files
from training.common.errors import UserError
from training.hub import push as push_module
from training.hub.contents import MANIFEST, make_manifest
from training.hub.push import push
from training.hub.staging import stage_files


class Hub:
    """What `push` uses of HfApi, for one repository."""

    endpoint = "https://hub.example"

    def __init__(self, role: str = "write") -> None:
        self.role = role
        self.content: dict[str, bytes] = {}
        self.commits, self.tags, self.private = ["first"], {}, None

    def whoami(self) -> dict:
        return {"name": "user", "auth": {"accessToken": {"role": self.role}}, "orgs": []}

    def repo_exists(self, repo_id: str) -> bool:
        return self.private is not None

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        self.private = private

    def update_repo_settings(self, repo_id: str, private: bool) -> None:
        self.private = private

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(sha=self.commits[-1], private=self.private)

    def get_paths_info(self, repo_id: str, names: list[str], revision: str) -> list:
        staged = {file.name: file.sha256 for file in self.staged}
        return [
            SimpleNamespace(path=name, lfs=SimpleNamespace(sha256=staged[name]))
            for name in names
            if name in self.content
        ]

    def list_repo_refs(self, repo_id: str) -> SimpleNamespace:
        tags = [SimpleNamespace(name=k, target_commit=v) for k, v in self.tags.items()]
        return SimpleNamespace(tags=tags)

    def create_commit(
        self,
        repo_id: str,
        operations: list[CommitOperationAdd],
        commit_message: str,
        parent_commit: str,
    ) -> SimpleNamespace:
        assert parent_commit == self.commits[-1]
        for each in operations:
            with each.as_file() as file:
                self.content[each.path_in_repo] = file.read()
        self.commits.append(commit_message)
        return SimpleNamespace(oid=commit_message)

    def create_tag(self, repo_id: str, tag: str, revision: str) -> None:
        self.tags[tag] = revision

    def download(
        self, repo_id: str, revision: str, cache_dir: str, allow_patterns: list[str]
    ) -> str:
        for name in allow_patterns:
            (Path(cache_dir) / name).write_bytes(self.content[name])
        return cache_dir


@pytest.fixture
def hub(monkeypatch, toy) -> Hub:
    """The Hub that `push` sees; what needs images or a model is left out."""
    hub = Hub()
    hub.staged = stage_files(toy, "user/food", "v1.0")
    monkeypatch.setattr(push_module, "HfApi", lambda: hub)
    monkeypatch.setattr(push_module, "get_token", lambda: "token")
    monkeypatch.setattr(push_module, "snapshot_download", hub.download)
    monkeypatch.setattr(push_module, "_test_images", lambda release, dataset: None)
    monkeypatch.setattr(push_module, "rescore", lambda folder, split, n: f"{n} scored again")
    return hub


def test_one_private_commit_with_a_tag(hub, toy):
    outcome = push(toy, "user/food", tag="v1.0", num_rescored=7)
    assert (outcome.changed, outcome.private, outcome.rescored) == (True, True, "7 scored again")
    assert set(hub.content) == set(make_manifest(toy))
    assert hub.commits == ["first", outcome.commit] and hub.tags == {"v1.0": outcome.commit}
    assert b"user/food" in hub.content["README.md"]


def test_again_nothing_is_sent_and_public_is_asked_for(hub, toy):
    push(toy, "user/food", tag="v1.0")
    before = list(hub.commits)
    outcome = push(toy, "user/food", tag="v1.0", public=True)
    assert (outcome.changed, outcome.private) == (False, False) and hub.commits == before


def test_one_more_file_is_pushed_with_the_release(hub, toy):
    (toy / "dish_names.json").write_text('{"pizza": "Pizza"}')
    (toy / MANIFEST).write_text(json.dumps(make_manifest(toy)))
    push(toy, "user/food", tag="v1.0")
    assert hub.content["dish_names.json"] == b'{"pizza": "Pizza"}'


def test_a_tag_of_another_version_stops_before_the_upload(hub, toy):
    hub.tags["v1.0"] = "another commit"
    with pytest.raises(UserError, match="already names another version .another comm.*--tag"):
        push(toy, "user/food", tag="v1.0")
    assert hub.content == {}


def test_a_damaged_download_is_noticed(hub, toy, monkeypatch):
    def damaged(*args: object, **kwargs: object) -> str:
        folder = hub.download(*args, **kwargs)
        (Path(folder) / "config.json").write_text("{ }")
        return folder

    monkeypatch.setattr(push_module, "snapshot_download", damaged)
    with pytest.raises(UserError, match="config.json as downloaded from user/food is not what was"):
        push(toy, "user/food", tag="v1.0")


@pytest.mark.parametrize(
    ("repo_id", "change", "said"),
    [
        ("stranger/food", {}, "stranger/food is not yours: the token may push to user"),
        ("user/food", {"role": "read"}, "the token may only read"),
        ("user/food", {"endpoint": "http://hub.example"}, "is not https"),
    ],
)
def test_nothing_is_made_where_nothing_may_be_written(hub, toy, repo_id, change, said):
    vars(hub).update(change)
    with pytest.raises(UserError, match=said):
        push(toy, repo_id, tag="v1.0")
    assert hub.private is None and hub.content == {}


def test_local_images_have_to_be_named(tmp_path):
    for name, content in files("local").items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="scored on the local data set food10: give it with"):
        push_module._test_images(tmp_path, None)


def test_the_images_are_those_of_the_card(released, tiny_data, tmp_path):
    split = push_module._test_images(released, str(tiny_data))
    assert (split.name, len(split)) == ("validation", 18)
    other = shutil.copytree(tiny_data, tmp_path / "dishes")
    next((other / "validation").rglob("*.jpg")).unlink()
    with pytest.raises(UserError, match="is not the data the card reports on"):
        push_module._test_images(released, str(other))
