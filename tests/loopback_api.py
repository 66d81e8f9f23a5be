"""The endpoints of the loopback Hub: what it answers to each call of the real clients.

tests/loopback_hub.py puts this on loopback ports; that is also the file tests import.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.loopback_http import Reply, Request, error_reply, json_reply, ranged
from tests.loopback_storage import DATE, Blob, Commit, HubError, Repo, card_data, goes_to_lfs

# Not shaped like real tokens (no long run of letters), so that secret scanners stay quiet.
WRITE_TOKEN = "hf_write-token-of-the-test"
READ_TOKEN = "hf_read-token-of-the-test"
USER, ORGANIZATION = "user", "kitchen"
_ROLES = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
_NO_WRITE = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"

_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+/[^/]+)"
_REPO = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)"
# method, path, name of the method of HubApi, whether it changes a repository
_ROUTES = [
    ("GET", "/api/whoami-v2", "_whoami", False),
    ("POST", "/api/validate-yaml", "_validate_yaml", False),
    ("POST", "/api/repos/create", "_create_repo", False),
    ("GET", rf"{_API}(?:/revision/(?P<rev>[^/]+))?", "_info", False),
    ("GET", rf"{_API}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", "_tree", False),
    ("POST", rf"{_API}/paths-info/(?P<rev>[^/]+)", "_paths_info", False),
    ("GET", rf"{_API}/refs", "_refs", False),
    ("GET", rf"{_API}/commits/(?P<rev>[^/]+)", "_log", False),
    ("PUT", rf"{_API}/settings", "_settings", True),
    ("POST", rf"{_API}/tag/(?P<rev>[^/]+)", "_create_tag", True),
    ("POST", rf"{_API}/preupload/(?P<rev>[^/]+)", "_preupload", True),
    ("POST", rf"{_API}/commit/(?P<rev>[^/]+)", "_commit", True),
    ("POST", rf"{_REPO}\.git/info/lfs/objects/batch", "_lfs_batch", True),
    ("POST", rf"{_REPO}\.git/info/lfs/objects/verify", "_lfs_verify", True),
    ("GET", rf"{_REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "_resolve", False),
]


class HubApi:
    """Repositories and stored objects, and the answers about them."""

    url: str
    storage_url: str

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.corrupted: set[tuple[str, str]] = set()

    def answer(self, host: str, request: Request) -> Reply:
        try:
            return self._store(request) if host == "storage" else self._route(request)
        except HubError as err:
            return error_reply(err)

    def _route(self, request: Request) -> Reply:
        role = _role(request)  # a bad token is an error on every path
        path = urlsplit(request.path).path
        method = "GET" if request.method == "HEAD" else request.method
        for verb, pattern, name, writes in _ROUTES:
            found = re.fullmatch(pattern, path) if verb == method else None
            if found is None:
                continue
            values: dict[str, Any] = {
                key: unquote(value) for key, value in found.groupdict().items() if value
            }
            kind = (values.pop("kind", None) or "models").removesuffix("s")
            if "repo" in values:
                values["repo"] = self._open(values["repo"], kind, role, writes)
            return getattr(self, name)(request, **values)
        raise HubError(404, f"Sorry, we can't find the page {path}")

    def has_repo(self, repo_id: str, repo_type: str = "model") -> bool:
        return (repo_type, repo_id) in self.repos

    def repo(self, repo_id: str, repo_type: str) -> Repo:
        if not self.has_repo(repo_id, repo_type):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.repos[repo_type, repo_id]

    def _open(self, repo_id: str, repo_type: str, role: str | None, writes: bool) -> Repo:
        """The repository, if this caller may read it (and write it)."""
        repo = self.repo(repo_id, repo_type)
        ours = role is not None and repo_id.split("/")[0] in (USER, ORGANIZATION)
        if repo.private and not ours:
            raise HubError(404, "Repository not found", "RepoNotFound")
        if writes:
            _check_writer(role, repo_id.split("/")[0], _NO_WRITE)
        return repo

    # -- the endpoints, in the order of _ROUTES --------------------------------------------------

    def _whoami(self, request: Request) -> Reply:
        if _role(request) is None:
            raise HubError(401, "Invalid username or password.")
        access = {"displayName": "test", "role": _role(request)}
        return json_reply(
            {
                "type": "user",
                "name": USER,
                "orgs": [{"type": "org", "name": ORGANIZATION}],
                "auth": {"type": "access_token", "accessToken": access},
            }
        )

    def _validate_yaml(self, request: Request) -> Reply:
        try:
            card = card_data(request.json["content"])
        except ValueError as err:
            return json_reply({"errors": [{"message": str(err)}], "warnings": []}, 400)
        empty = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        return json_reply({"errors": [], "warnings": empty})

    def _create_repo(self, request: Request) -> Reply:
        body = request.json
        kind, namespace = body.get("type") or "model", body.get("organization") or USER
        wrong = f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"'
        _check_writer(_role(request), namespace, wrong)
        repo_id = f"{namespace}/{body['name']}"
        repo = Repo(repo_id, kind, _asks_private(body))
        answer = {"url": f"{self.url}/{repo.url_path}", "name": repo_id, "id": repo_id}
        if self.has_repo(repo_id, kind):
            answer["error"] = f"You already created this {kind} repo"
            return json_reply(answer, 409)
        self.repos[kind, repo_id] = repo
        # The real Hub starts every repository with this file.
        start = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        repo.commit("initial commit", {".gitattributes": Blob(start, lfs=False)})
        return json_reply(answer)

    def _info(self, request: Request, repo: Repo, rev: str = "main") -> Reply:
        return json_reply(repo.info(rev, request.flag("blobs")))

    def _tree(self, request: Request, repo: Repo, rev: str, path: str = "") -> Reply:
        entries = repo.at(rev).listing(path, request.flag("recursive"))
        return json_reply([_expanded(entry, repo, rev) for entry in entries])

    def _paths_info(self, request: Request, repo: Repo, rev: str) -> Reply:
        commit = repo.at(rev)
        if "json" in request.headers.get("Content-Type", ""):
            paths = request.json["paths"]
        else:
            paths = parse_qs(request.body.decode())["paths"]
        known = [path for path in paths if path in commit.files or commit.under(path)]
        return json_reply([_expanded(commit.entry(path), repo, rev) for path in known])

    def _refs(self, request: Request, repo: Repo) -> Reply:
        return json_reply(repo.refs())

    def _log(self, request: Request, repo: Repo, rev: str) -> Reply:
        fixed = {"message": "", "authors": [{"user": USER}], "date": DATE}
        return json_reply([{"id": c.oid, "title": c.title, **fixed} for c in repo.log(rev)])

    def _settings(self, request: Request, repo: Repo) -> Reply:
        body = request.json
        if "visibility" in body or "private" in body:
            repo.private = _asks_private(body)
        return json_reply({"private": repo.private})

    def _create_tag(self, request: Request, repo: Repo, rev: str) -> Reply:
        repo.add_ref(repo.tags, request.json["tag"], rev)
        return json_reply({})

    def _preupload(self, request: Request, repo: Repo, rev: str) -> Reply:
        known = repo.at(rev).files
        answers = []
        for file in request.json["files"]:
            mode = "lfs" if goes_to_lfs(file["path"], file["size"]) else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            if file["path"] in known:  # lets the client leave out what has not changed
                answer["oid"] = known[file["path"]].etag
            answers.append(answer)
        return json_reply({"files": answers})

    def _commit(self, request: Request, repo: Repo, rev: str) -> Reply:
        if request.flag("create_pr"):
            raise HubError(400, "The loopback Hub has no pull requests")
        if rev not in repo.branches:
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, repo.branches[rev]):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        changes: dict[str, Blob | None] = {}
        for line in lines[1:]:
            changes |= self._changes(repo.at(rev), line["key"], line["value"])
        commit = repo.commit(head["summary"], changes, rev)
        url = f"{self.url}/{repo.url_path}/commit/{commit.oid}"
        return json_reply({"success": True, "commitUrl": url, "commitOid": commit.oid})

    def _changes(self, commit: Commit, key: str, value: dict[str, Any]) -> dict[str, Blob | None]:
        """What one line of a commit changes."""
        path = value["path"]
        if key == "file":
            return {path: Blob(base64.b64decode(value["content"]), lfs=False)}
        if key == "lfsFile":
            if value["oid"] not in self.lfs:
                raise HubError(400, "LFS pointer pointed to a file that does not exist")
            return {path: Blob(self.lfs[value["oid"]], lfs=True)}
        if key == "deletedFolder":
            return dict.fromkeys(commit.under(path.strip("/")))
        if key == "deletedFile":
            return {path: None}
        raise HubError(400, f"Unknown operation {key}")

    def _lfs_batch(self, request: Request, repo: Repo) -> Reply:
        objects: list[dict[str, Any]] = []
        for given in request.json["objects"]:
            item = {"oid": given["oid"], "size": given["size"]}
            if given["oid"] not in self.lfs:  # no actions: the object is stored already
                verify = f"{self.url}/{repo.url_path}.git/info/lfs/objects/verify"
                upload = f"{self.storage_url}/{repo.id}/{given['oid']}"
                item["actions"] = {
                    "upload": {"href": upload, "header": {}},
                    "verify": {"href": verify, "header": {}},
                }
            objects.append(item)
        return json_reply({"transfer": "basic", "objects": objects})

    def _lfs_verify(self, request: Request, repo: Repo) -> Reply:
        stored = self.lfs.get(request.json["oid"])
        if stored is None or len(stored) != request.json["size"]:
            raise HubError(404, "LFS object not found")
        return json_reply({})

    def _resolve(self, request: Request, repo: Repo, rev: str, path: str) -> Reply:
        commit = repo.at(rev)
        headers = {"X-Repo-Commit": commit.oid}
        blob = commit.files.get(path)
        if blob is None:
            reply = error_reply(HubError(404, "Entry not found", "EntryNotFound"))
            reply.headers |= headers  # lets the client remember that there is no such file
            return reply
        if not blob.lfs:
            headers["ETag"] = f'"{blob.etag}"'
            return ranged(request, self._served(repo.id, path, blob.data), headers)
        headers["X-Linked-Size"] = str(len(blob.data))
        headers["X-Linked-ETag"] = f'"{blob.etag}"'
        headers["Location"] = f"{self.storage_url}/{repo.id}/{blob.sha256}?path={quote(path)}"
        return Reply(302, b"", headers)

    def _served(self, repo_id: str, path: str, data: bytes) -> bytes:
        if (repo_id, path) in self.corrupted and data:
            return data[:-1] + bytes([data[-1] ^ 0xFF])
        return data

    # -- the store of large files ---------------------------------------------------------------

    def _store(self, request: Request) -> Reply:
        """GET and PUT of /namespace/name/sha256."""
        repo_id, _, oid = urlsplit(request.path).path.strip("/").rpartition("/")
        if request.method == "PUT":
            if hashlib.sha256(request.body).hexdigest() != oid:
                raise HubError(400, "The content does not match its sha256")
            self.lfs[oid] = request.body
            return Reply()
        if oid not in self.lfs:
            raise HubError(404, "No such object")
        path = request.query.get("path", "")
        return ranged(request, self._served(repo_id, path, self.lfs[oid]), {"ETag": f'"{oid}"'})


def _role(request: Request) -> str | None:
    """write, read or None (no token)."""
    given = request.headers.get("Authorization")
    if given is None:
        return None
    role = _ROLES.get(given.removeprefix("Bearer "))
    if role is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return role


def _check_writer(role: str | None, namespace: str, wrong_namespace: str) -> None:
    if role is None:
        raise HubError(401, "Invalid username or password.")
    if role != "write":
        raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
    if namespace not in (USER, ORGANIZATION):
        raise HubError(403, wrong_namespace)


def _asks_private(body: dict[str, Any]) -> bool:
    return body.get("visibility") == "private" or bool(body.get("private"))


def _expanded(entry: dict[str, Any], repo: Repo, rev: str) -> dict[str, Any]:
    commit = repo.at(rev)
    return entry | {"lastCommit": {"id": commit.oid, "title": commit.title, "date": DATE}}
