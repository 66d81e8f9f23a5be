"""The loopback Hub against the real clients: huggingface_hub, datasets and transformers.

The clients read HF_ENDPOINT when they are imported, so each test runs its client code in a new
process with `hub.env(...)`. A script reports by printing one JSON value as its last line.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_hub import READ_TOKEN, WRITE_TOKEN, LoopbackHub

REPO = "user/food"
WEIGHTS = bytes(range(256)) * 40

# Client code that several scripts share. The hook ends a process that looks beyond loopback.
PRELUDE = """
import json, os, sys
LOOPBACK = ("127.0.0.1", "localhost", "::1")

def guard(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    host = args[0] if event == "socket.getaddrinfo" else args[1][0]
    # datasets derives the first name from HF_ENDPOINT; it does not resolve.
    if host not in ("datasets-server.127.0.0.1", *LOOPBACK):
        print("not loopback:", event, host, file=sys.stderr)
        sys.stderr.flush()
        os._exit(99)

sys.addaudithook(guard)
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.utils import HfHubHTTPError, httpx
api = HfApi()
WEIGHTS = bytes(range(256)) * 40
CARD = b"---\\nlicense: mit\\npipeline_tag: image-classification\\n"
CARD += b"library_name: transformers\\ntags:\\n- food\\n---\\n# Food\\n"

def publish(repo="user/food", card=CARD, parent=None):
    files = {"README.md": card, "model.safetensors": WEIGHTS, "sub/a b.txt": b"text"}
    adds = [CommitOperationAdd(name, data) for name, data in files.items()]
    return api.create_commit(repo, adds, commit_message="Add the model", parent_commit=parent).oid

def error(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as err:
        return f"{type(err).__name__}: {err}"
    return "no error"

def say(value):
    print(json.dumps(value))
"""


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def run_client(hub: LoopbackHub, home: Path, script: str, token: str | None = WRITE_TOKEN) -> Any:
    """Run client code in a new process and return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        env=hub.env(home, token),
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


PUBLISH = """
api.create_repo("user/food", private=True, exist_ok=True)
parent = api.model_info("user/food").sha
head = publish(parent=parent)
api.create_tag("user/food", tag="v1", revision=head, exist_ok=True)
refs = api.list_repo_refs("user/food")
say({
    "head": head,
    "user": api.whoami()["name"],
    "tags": {tag.name: tag.target_commit for tag in refs.tags},
})
"""


def test_publishing_makes_one_commit_and_the_second_time_none(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    first = run_client(hub, tmp_path / "home", PUBLISH)
    commits = hub.commits(REPO)
    assert [commit.title for commit in commits] == ["initial commit", "Add the model"]
    assert commits[1].paths == ("README.md", "model.safetensors", "sub/a b.txt")
    assert (commits[1].oid, commits[1].parent) == (first["head"], commits[0].oid)
    assert hub.files(REPO)["model.safetensors"] == WEIGHTS
    assert hub.is_private(REPO)
    assert first["user"] == "user"
    assert first["tags"] == hub.tags(REPO) == {"v1": first["head"]}
    puts = [record for record in hub.requests if record.method == "PUT"]
    assert [(put.host, put.body_size, put.has_token) for put in puts] == [
        ("storage", len(WEIGHTS), False)
    ]

    hub.requests.clear()
    second = run_client(hub, tmp_path / "other-home", PUBLISH)
    assert second == first
    assert len(hub.commits(REPO)) == 2
    assert not [record for record in hub.requests if record.method == "PUT"]
    assert not [record for record in hub.requests if "/commit/" in record.path]


def test_errors_of_writing(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, {"README.md": b"# old"})
    hub.add_repo("other/food", {"README.md": b"# old"})
    hub.add_tag(REPO, "v1")
    old = hub.commits(REPO)[0].oid
    new = hub.add_repo(REPO, {"config.json": b"{}"})
    said = run_client(
        hub,
        tmp_path / "home",
        f"""
old = {old!r}
say({{
    "stale": error(publish, parent=old),
    "tag": error(api.create_tag, "user/food", tag="v1"),
    "kept": error(api.create_tag, "user/food", tag="v1", exist_ok=True),
    "exists": error(api.create_repo, "user/food"),
    "namespace": error(api.create_repo, "other/new"),
    "foreign": error(publish, "other/food"),
    "missing": error(publish, "user/none"),
    "card": error(publish, card=b"---\\na: [\\n---\\n"),
    "kitchen": error(api.create_repo, "kitchen/food", repo_type="dataset"),
    "public": error(api.update_repo_settings, "user/food", private=False),
}})
""",
    )
    assert "412 Precondition Failed" in said["stale"]
    assert "A commit has happened since. Please refresh and try again." in said["stale"]
    assert "409" in said["tag"] and "409" in said["exists"]
    # The trap of exist_ok: no error, and the tag stays on the old commit.
    assert said["kept"] == "no error" and hub.tags(REPO) == {"v1": old}
    assert "403 Forbidden: You don't have the rights to create a model" in said["namespace"]
    assert "Make sure your token has the correct permissions." in said["foreign"]
    assert said["missing"].startswith("RepositoryNotFoundError: 404")
    assert said["card"].startswith("ValueError: Invalid metadata in README.md")
    assert said["kitchen"] == said["public"] == "no error"
    assert hub.has_repo("kitchen/food", "dataset")
    assert hub.commits(REPO)[-1].oid == new


TOKENS = """
say([
    error(api.whoami),
    error(api.model_info, "user/secret"),
    error(hf_hub_download, "user/secret", "a.txt"),
    error(hf_hub_download, "user/open", "a.txt"),
    error(publish, "user/open"),
    error(api.create_repo, "user/new"),
])
"""


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (WRITE_TOKEN, ["no error"] * 6),
        (READ_TOKEN, ["no error"] * 4 + ["403 Forbidden: Forbidden: you must use a write"] * 2),
        (
            "hf_wrong",
            ["Invalid user token"]
            + ["Invalid credentials in Authorization header"] * 2
            + ["Invalid credentials in Authorization header"] * 3,
        ),
        (
            None,
            ["LocalTokenNotFoundError"]
            + ["RepositoryNotFoundError: 404"] * 2
            + ["no error"]
            + ["401"] * 2,
        ),
    ],
)
def test_tokens(hub: LoopbackHub, tmp_path: Path, token: str | None, expected: list[str]) -> None:
    hub.add_repo("user/secret", {"a.txt": b"secret"}, private=True)
    hub.add_repo("user/open", {"a.txt": b"open"})
    said = run_client(hub, tmp_path / "home", TOKENS, token)
    for message, part in zip(said, expected, strict=True):
        assert part in message


def test_downloads_are_equal_and_the_token_stays_at_the_hub(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    seed = tmp_path / "seed"
    (seed / "sub").mkdir(parents=True)
    (seed / "sub/é b.bin").write_bytes(WEIGHTS)
    (seed / "config.json").write_bytes(b"{}")
    (seed / "README.md").write_bytes(
        b"---\npipeline_tag: image-classification\nlibrary_name: transformers\ntags: [food]\n---\n"
    )
    old = hub.add_repo(REPO, seed, private=True)
    new = hub.add_repo(REPO, {"config.json": b'{"a": 1}'})
    said = run_client(
        hub,
        tmp_path / "home",
        f"""
info = api.model_info("user/food", files_metadata=True)
say({{
    "new": snapshot_download("user/food"),
    "old": snapshot_download("user/food", revision={old!r}),
    "missing": error(hf_hub_download, "user/food", "none.json"),
    "revision": error(hf_hub_download, "user/food", "config.json", revision="nope"),
    "folder": error(lambda: list(api.list_repo_tree("user/food", "nope"))),
    "info": [info.sha, info.private, info.pipeline_tag, info.library_name, info.tags],
    "sizes": {{file.rfilename: file.size for file in info.siblings}},
    "top": [item.path for item in api.list_repo_tree("user/food")],
    "paths": [item.path for item in api.get_paths_info("user/food", ["sub", "x", "README.md"])],
    "log": [commit.commit_id for commit in api.list_repo_commits("user/food")],
}})
""",
        READ_TOKEN,
    )
    for name, revision in (("new", new), ("old", old)):
        root = Path(said[name])
        assert root.name == revision
        paths = (path for path in root.rglob("*") if path.is_file())
        got = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        assert got == hub.files(REPO, revision)
    assert said["missing"].startswith("RemoteEntryNotFoundError: 404")
    assert said["revision"].startswith("RevisionNotFoundError: 404")
    assert said["folder"].startswith("RemoteEntryNotFoundError: 404")
    assert said["info"] == [new, True, "image-classification", "transformers", ["food"]]
    assert said["sizes"]["sub/é b.bin"] == len(WEIGHTS)
    assert said["top"] == ["README.md", "config.json", "sub"]
    assert said["paths"] == ["sub", "README.md"]
    assert said["log"] == [new, old]
    stored = [record for record in hub.requests if record.host == "storage"]
    assert stored and not any(record.has_token for record in stored)
    assert all(record.has_token for record in hub.requests if record.host == "hub")


@pytest.mark.slow
def test_load_dataset_by_id(hub: LoopbackHub, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    names = ["cheesecake", "cheese_plate"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    for split, count in (("train", 4), ("validation", 2)):
        rows = {
            "image": [image.new("RGB", (8, 6), (40 * i, 0, 0)) for i in range(count)],
            "label": [i % 2 for i in range(count)],
        }
        path = tmp_path / f"seed/data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    hub.add_repo("ethz/food101", tmp_path / "seed", repo_type="dataset")
    said = run_client(
        hub,
        tmp_path / "home",
        """
from datasets import load_dataset
data = load_dataset("ethz/food101")
say({
    "rows": {name: len(split) for name, split in data.items()},
    "names": data["train"].features["label"].names,
    "pixel": data["train"][3]["image"].getpixel((0, 0)),
    "sha": api.dataset_info("ethz/food101").sha,
})
""",
    )
    assert said == {
        "rows": {"train": 4, "validation": 2},
        "names": names,
        "pixel": [120, 0, 0],
        "sha": hub.commits("ethz/food101", "dataset")[-1].oid,
    }
    assert not any(record.has_token for record in hub.requests if record.host == "storage")


@pytest.mark.slow
def test_injected_errors_are_retried_and_a_lost_answer_is_a_no_op_later(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.fail("POST", "/preupload/main", 503, times=2)
    hub.fail("PUT", "^/user/food/", 500)
    hub.lose_answer("POST", "/commit/main")
    hub.stop_at("GET", "/refs")
    said = run_client(
        hub,
        tmp_path / "home",
        """
api.create_repo("user/food")
say([error(publish), publish(), error(api.list_repo_refs, "user/food"), error(api.whoami)])
""",
    )
    assert said[0].startswith("RemoteProtocolError")
    commits = hub.commits(REPO)
    assert [commit.title for commit in commits] == ["initial commit", "Add the model"]
    assert said[1] == commits[-1].oid
    seen = [record.status for record in hub.requests if "/preupload/" in record.path]
    assert seen == [503, 503, 200, 200]
    assert [record.status for record in hub.requests if record.method == "PUT"] == [500, 200]
    assert [record.status for record in hub.requests if "/commit/" in record.path] == [0]
    assert said[2].startswith("RemoteProtocolError") and said[3].startswith("ConnectError")


def test_corrupted_downloads(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.corrupt(REPO, "model.safetensors")
    hub.corrupt(REPO, "config.json")
    hub.add_repo(REPO, {"model.safetensors": WEIGHTS, "config.json": b"{}", "a.txt": b"a"})
    root = Path(run_client(hub, tmp_path / "home", 'say(snapshot_download("user/food"))', None))
    got = {path.name: path.read_bytes() for path in root.iterdir()}
    assert got["a.txt"] == b"a"
    assert len(got["config.json"]) == 2 and got["config.json"] != b"{}"
    assert len(got["model.safetensors"]) == len(WEIGHTS)
    assert got["model.safetensors"] != WEIGHTS


def fetch(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_keep_alive_ranges_and_chunked_bodies(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, {"a.txt": b"0123456789"})
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=5)
    path = "/user/food/resolve/main/a.txt"
    card = json.dumps({"content": "---\nlicense: mit\n---\n"}).encode()
    connection.request("POST", "/api/validate-yaml", iter([card[:9], card[9:]]))
    assert json.load(connection.getresponse()) == {"errors": [], "warnings": []}
    # All on the same connection: each body was read to its end.
    assert fetch(connection, path) == (200, b"0123456789")
    assert fetch(connection, path, Range="bytes=2-4") == (206, b"234")
    assert fetch(connection, path, Range="bytes=8-") == (206, b"89")
    assert fetch(connection, path, Range="bytes=-3") == (206, b"789")
    assert fetch(connection, path, Range="bytes=10-")[0] == 416
    assert fetch(connection, "/api/agent-harnesses")[0] == 404
    connection.close()


def test_stop_drops_connections_and_start_keeps_the_content() -> None:
    threads = set(threading.enumerate())
    with LoopbackHub() as hub:
        hub.add_repo(REPO, {"a.txt": b"a"})
        address = hub.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5)
        assert fetch(connection, "/user/food/resolve/main/a.txt") == (200, b"a")
        hub.stop()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            fetch(connection, "/user/food/resolve/main/a.txt")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.split(":")[1])))
        hub.start()
        assert hub.url == f"http://{address}"
        # http.client connects anew after the failure.
        connection.close()
        assert fetch(connection, "/user/food/resolve/main/a.txt") == (200, b"a")
    # The kept-alive connection is still open on the side of the client.
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=5)
        assert not thread.is_alive()
    connection.close()


def test_the_environment_has_no_setting_of_the_user(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
    users = offline | {"HF_TOKEN", "HF_HUB_CACHE", "https_proxy"}
    for name in users:
        monkeypatch.setenv(name, "1")
    env = hub.env(tmp_path, token=None)
    assert not users & set(env)
    assert env["HF_ENDPOINT"] == hub.url and env["PATH"]
    assert hub.env(tmp_path)["HF_TOKEN"] == WRITE_TOKEN
