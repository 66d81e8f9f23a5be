"""What the loopback Hub stores: repositories, commits and blobs, all in memory.

No network here; tests/loopback_hub.py serves it, on loopback addresses only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin")
LFS_SIZE = 1 << 20
# Fixed, so that two runs of a test see the same answers.
DATE = "2026-01-01T00:00:00.000Z"
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)


class HubError(Exception):
    """An error answer of the Hub: status, message and X-Error-Code."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def goes_to_lfs(path: str, size: int) -> bool:
    # The real storage refuses empty LFS objects, so the client sends empty files as regular ones.
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_SIZE)


def card_data(text: str) -> dict[str, Any]:
    """The YAML front matter of a README.md; {} when there is none, ValueError when it is bad."""
    found = FRONT_MATTER.match(text)
    if found is None:
        return {}
    try:
        data = yaml.safe_load(found[1])
    except yaml.YAMLError as err:
        raise ValueError(f"bad YAML: {err}") from err
    if not isinstance(data, dict | None):
        raise ValueError("the front matter is not a mapping")
    return data or {}


@dataclass(frozen=True)
class Blob:
    """The content of one file."""

    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_sha1(self) -> str:
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
            f"size {len(self.data)}\n"
        ).encode()

    @property
    def etag(self) -> str:
        """What the client compares to see that a file has not changed."""
        return self.sha256 if self.lfs else self.git_sha1

    def entry(self, path: str) -> dict[str, Any]:
        """The file as the tree and paths-info calls list it."""
        entry = {"type": "file", "oid": self.git_sha1, "size": len(self.data), "path": path}
        if self.lfs:
            entry["lfs"] = {
                "oid": self.sha256,
                "size": len(self.data),
                "pointerSize": len(self.pointer),
            }
        return entry


@dataclass(frozen=True)
class Commit:
    """One commit: `paths` are the ones it changed, `files` is the whole tree after it."""

    oid: str
    parent: str | None
    title: str
    paths: tuple[str, ...]
    files: dict[str, Blob] = field(repr=False)

    def under(self, folder: str) -> list[str]:
        return [path for path in self.files if path.startswith(f"{folder}/")]

    def entry(self, path: str) -> dict[str, Any]:
        if path in self.files:
            return self.files[path].entry(path)
        names = "\n".join(f"{name} {self.files[name].etag}" for name in sorted(self.under(path)))
        return {
            "type": "directory",
            "oid": hashlib.sha1(names.encode()).hexdigest(),
            "size": 0,
            "path": path,
        }

    def listing(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """Files and folders below a folder ("" is the root)."""
        inside = self.under(folder) if folder else list(self.files)
        if folder and not inside:
            raise HubError(404, f"{folder} does not exist on this revision", "EntryNotFound")
        names: set[str] = set()
        depth = len(folder.split("/")) if folder else 0
        for path in inside:
            parts = path.split("/")
            last = len(parts) if recursive else depth + 1
            names.update("/".join(parts[:end]) for end in range(depth + 1, last + 1))
        return [self.entry(name) for name in sorted(names)]


class Repo:
    """A repository: commits, branches and tags."""

    def __init__(self, repo_id: str, repo_type: str, private: bool) -> None:
        self.id, self.type, self.private = repo_id, repo_type, private
        self.history: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    @property
    def url_path(self) -> str:
        return self.id if self.type == "model" else f"{self.type}s/{self.id}"

    def commit(self, title: str, changes: dict[str, Blob | None], branch: str = "main") -> Commit:
        """Put a commit on a branch; None as the content of a file deletes it."""
        parent = self.branches.get(branch)
        files = dict(self.history[parent].files) if parent else {}
        for path, blob in changes.items():
            if blob is not None:
                files[path] = blob
            elif files.pop(path, None) is None:
                raise HubError(404, f"{path} does not exist on this revision", "EntryNotFound")
        # The count of commits makes two equal trees two commits.
        seed = repr((self.id, self.type, parent, title, sorted(changes), len(self.history)))
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.history[oid] = Commit(oid, parent, title, tuple(sorted(changes)), files)
        self.branches[branch] = oid
        return self.history[oid]

    def at(self, revision: str) -> Commit:
        """The commit of a branch, tag or full sha."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.history:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.history[oid]

    def log(self, revision: str) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        commits = [self.at(revision)]
        while commits[-1].parent:
            commits.append(self.history[commits[-1].parent])
        return commits

    def add_ref(self, refs: dict[str, str], name: str, revision: str) -> None:
        if name in refs:
            raise HubError(409, f"Reference {name} already exists")
        refs[name] = self.at(revision).oid

    def refs(self) -> dict[str, Any]:
        def listed(refs: dict[str, str], prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": oid}
                for name, oid in refs.items()
            ]

        return {
            "branches": listed(self.branches, "heads"),
            "tags": listed(self.tags, "tags"),
            "converts": [],
            "pullRequests": [],
        }

    def info(self, revision: str, blobs: bool) -> dict[str, Any]:
        """What model_info and dataset_info read.

        pipeline_tag and library_name come from the card alone (the real Hub also guesses them
        from config.json), so that a card which forgets them fails a test.
        """
        commit = self.at(revision)
        readme = commit.files.get("README.md")
        card: dict[str, Any] = {}
        if readme is not None:
            try:
                card = card_data(readme.data.decode("utf-8", "replace"))
            except ValueError:
                pass  # the real Hub shows such a repository without card data
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
        for sibling in siblings if blobs else ():
            blob = commit.files[sibling["rfilename"]]
            sibling |= {"size": len(blob.data), "blobId": blob.git_sha1}
            if blob.lfs:
                sibling["lfs"] = blob.entry("")["lfs"] | {"sha256": blob.sha256}
        return {
            "_id": self.id,
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": commit.oid,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "tags": list(_strings(card.get("tags"))),
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
            "siblings": siblings,
            "createdAt": DATE,
            "lastModified": DATE,
            "downloads": 0,
            "likes": 0,
        }


def _strings(value: Any) -> Iterable[str]:
    return [value] if isinstance(value, str) else value or []
