"""The HTTP side of the loopback Hub: requests, replies and a server bound to 127.0.0.1."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback_storage import HubError


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    headers: Any
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def error_reply(err: HubError) -> Reply:
    reply = json_reply({"error": err.message}, err.status)
    reply.headers["X-Error-Message"] = err.message.encode("ascii", "replace").decode()
    if err.code:
        reply.headers["X-Error-Code"] = err.code
    return reply


def ranged(request: Request, data: bytes, headers: dict[str, str]) -> Reply:
    """The bytes, or the part of them that a Range header asks for."""
    headers |= {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if wanted is None:
        return Reply(200, data, headers)
    size = len(data)
    first, last = wanted.groups()
    start = int(first) if first else max(0, size - int(last or 0))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Reply(206, data[start : end + 1], headers)


class Server(socketserver.ThreadingTCPServer):
    """One listening port. (Not HTTPServer: that one looks its own name up in the DNS.)"""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # threads wait in kept-alive connections; close() ends those
    request_queue_size = 32

    def __init__(self, port: int, answer: Callable[[Request], Reply | None]) -> None:
        self.answer = answer  # None as the reply drops the connection
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away and stop() are normal here; a bug in an endpoint is not.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            _drop(connection)


class _Handler(BaseHTTPRequestHandler):
    """Reads one HTTP request after the other from a connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: Server

    def handle_any(self) -> None:
        # The body first and always: what is left of it would be read as the next request.
        request = Request(self.command, self.path, self.headers, self._body())
        reply = self.server.answer(request)
        if reply is None:
            self.close_connection = True
            _drop(self.connection)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers, up to the empty line
        return b"".join(chunks)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _drop(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # gone already
