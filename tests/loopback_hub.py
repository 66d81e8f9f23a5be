"""A Hugging Face Hub for tests: the HTTP calls the real clients make, on loopback only.

    with LoopbackHub() as hub:
        hub.add_repo("user/food", {"config.json": b"{}"})
        subprocess.run([...], env=hub.env(tmp_path / "home"))
        assert hub.commits("user/food")[-1].title == "Add the model"

Both servers listen on 127.0.0.1 and nothing is ever opened towards another machine. The Hub is
called http://127.0.0.1:PORT and the store of large files http://localhost:PORT2: two host names,
as in real life, because the client must not send its token to the second one. All content is in
memory and survives stop() and start().
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.loopback_api import READ_TOKEN, WRITE_TOKEN, HubApi
from tests.loopback_http import Reply, Request, Server, error_reply
from tests.loopback_storage import Blob, Commit, HubError, Repo, goes_to_lfs

__all__ = ["READ_TOKEN", "WRITE_TOKEN", "LoopbackHub", "Record"]

_LOST = 0  # as the status of a fault or of a record: no answer was sent
_STOP = -1


@dataclass(frozen=True)
class Record:
    """One request the servers got. Status 0: the connection was dropped without an answer."""

    method: str
    host: str  # "hub" or "storage"
    path: str  # with the query
    has_token: bool
    status: int
    body_size: int


@dataclass
class _Fault:
    method: str
    pattern: str
    status: int
    times: int

    def hits(self, request: Request) -> bool:
        named = self.method == request.method and re.search(self.pattern, request.path)
        return bool(self.times and named)


class LoopbackHub(HubApi):
    """The server, as a context manager. See the top of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Record] = []
        self._faults: list[_Fault] = []
        # One request at a time: a commit is all or nothing, and the log has an order.
        self._lock = threading.RLock()
        self._servers: list[Server] = []
        self._ports = {"hub": 0, "storage": 0}

    # -- running -------------------------------------------------------------------------------

    def __enter__(self) -> LoopbackHub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after stop() on the same ports and with the same content."""
        for host in self._ports:
            server = Server(self._ports[host], partial(self._serve, host))
            self._ports[host] = server.server_address[1]
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and drop the open ones."""
        with self._lock:  # after the request in progress, so that its record is complete
            while self._servers:
                self._servers.pop().close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['hub']}"

    @property
    def storage_url(self) -> str:
        return f"http://localhost:{self._ports['storage']}"

    def env(self, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """The whole environment of a process that shall talk to this Hub and to no other."""
        # Without any setting of the user: offline switches, cache folders, tokens; and without
        # a proxy, which would get requests that are meant for loopback.
        foreign = re.compile(r"(HF_|HUGGING|TRANSFORMERS_)|.*_PROXY$", re.IGNORECASE)
        env = {key: value for key, value in os.environ.items() if not foreign.match(key)}
        env |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # with it, uploads would ask for a Xet server
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets would call s3.amazonaws.com
        }
        if token is not None:
            env["HF_TOKEN"] = token
        return env

    # -- seeding and looking -------------------------------------------------------------------

    def add_repo(
        self,
        repo_id: str,
        files: dict[str, bytes] | Path,
        repo_type: str = "model",
        private: bool = False,
    ) -> str:
        """Commit files (a dictionary or a folder) and return the sha; creates the repository."""
        if isinstance(files, Path):
            found = sorted(path for path in files.rglob("*") if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        with self._lock:
            repo = self.repos.setdefault((repo_type, repo_id), Repo(repo_id, repo_type, private))
            blobs = {path: Blob(data, goes_to_lfs(path, len(data))) for path, data in files.items()}
            self.lfs |= {blob.sha256: blob.data for blob in blobs.values() if blob.lfs}
            return repo.commit("Seed", dict(blobs)).oid

    def add_tag(
        self, repo_id: str, tag: str, revision: str = "main", repo_type: str = "model"
    ) -> None:
        repo = self.repo(repo_id, repo_type)
        repo.add_ref(repo.tags, tag, revision)

    def commits(self, repo_id: str, repo_type: str = "model") -> list[Commit]:
        """The commits of main, oldest first."""
        return self.repo(repo_id, repo_type).log("main")[::-1]

    def files(
        self, repo_id: str, revision: str = "main", repo_type: str = "model"
    ) -> dict[str, bytes]:
        commit = self.repo(repo_id, repo_type).at(revision)
        return {path: blob.data for path, blob in commit.files.items()}

    def tags(self, repo_id: str, repo_type: str = "model") -> dict[str, str]:
        """Tag name to commit sha."""
        return dict(self.repo(repo_id, repo_type).tags)

    def is_private(self, repo_id: str, repo_type: str = "model") -> bool:
        return self.repo(repo_id, repo_type).private

    # -- faults --------------------------------------------------------------------------------

    def fail(self, method: str, path_regex: str, status: int, times: int = 1) -> None:
        """Answer the next matching requests (either host) with an error; nothing is done."""
        self._faults.append(_Fault(method, path_regex, status, times))

    def lose_answer(self, method: str, path_regex: str) -> None:
        """Do the work of the next matching request, then drop the connection."""
        self.fail(method, path_regex, _LOST)

    def stop_at(self, method: str, path_regex: str) -> None:
        """stop() when the next matching request comes in; its work is not done."""
        self.fail(method, path_regex, _STOP)

    def corrupt(self, repo_id: str, path: str) -> None:
        """Downloads of this file get other bytes of the same length (the file may come later)."""
        self.corrupted.add((repo_id, path))

    # -- serving -------------------------------------------------------------------------------

    def _serve(self, host: str, request: Request) -> Reply | None:
        """Answer one request and log it; None drops the connection."""
        with self._lock:
            if not self._servers:
                return None  # read just before stop(): too late to do its work
            reply = self._answer_or_fault(host, request)
            token, size = "Authorization" in request.headers, len(request.body)
            status = reply.status if reply else _LOST
            record = Record(request.method, host, request.path, token, status, size)
            self.requests.append(record)
            return reply

    def _answer_or_fault(self, host: str, request: Request) -> Reply | None:
        fault = next((fault for fault in self._faults if fault.hits(request)), None)
        if fault is None:
            return self.answer(host, request)
        fault.times -= 1
        if fault.status == _STOP:
            self.stop()
            return None
        if fault.status == _LOST:
            self.answer(host, request)
            return None
        return error_reply(HubError(fault.status, f"Injected error {fault.status}"))
