"""A web site on this machine for the tests of downloads: it serves files and JSON, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 16 << 10


@dataclass
class Served:
    """A file on the site. Each request takes the next fault, as long as there are any."""

    body: bytes
    etag: str = ""
    faults: list[Fault] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True

    def __post_init__(self) -> None:
        self.etag = self.etag or f'"{hashlib.md5(self.body).hexdigest()}"'


class Request(BaseHTTPRequestHandler):
    """One connection to the site."""

    protocol_version = "HTTP/1.1"
    server: SiteServer

    def do_GET(self) -> None:
        site = self.server.site
        path = self.path.partition("?")[0]
        site.requests.append((self.path, dict(self.headers.items())))
        if path in site.answers:
            site.answers[path](self)
        elif self.path in site.json or path in site.json:
            self.reply(200, json.dumps(site.json.get(self.path, site.json.get(path))).encode(), "application/json")
        elif path in site.files:
            served = site.files[path]
            fault = served.faults.pop(0) if served.faults else serve
            fault(self, served)
        else:
            self.reply(404, b'{"error": "Not Found"}', "application/json")

    def reply(self, status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> None:
        """A whole answer."""
        self.begin(status, {"Content-Type": kind, "Content-Length": str(len(body)), **headers})
        self.send(body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Status and headers."""
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.close_connection = True

    def send(self, body: bytes) -> None:
        """Some of the body, counted."""
        path = self.path.partition("?")[0]
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            self.server.site.sent[path] += len(piece)  # before: whoever has it all may look at once
            self.wfile.write(piece)

    def range_start(self, served: Served) -> int:
        """Where the wanted range begins: at 0 where the file is not the one that is meant."""
        match = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        meant = self.headers.get("If-Range") in (None, served.etag, served.headers.get("Last-Modified"))
        return int(match[1]) if match and meant and served.ranges else 0

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


Fault = Callable[[Request, Served], None]


class SiteServer(ThreadingHTTPServer):
    daemon_threads = True
    site: Site

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what these tests are about."""


class Site:
    """The site: what it has, and what it was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, Served] = {}
        self.json: dict[str, Any] = {}
        self.answers: dict[str, Callable[[Request], None]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent: Counter[str] = Counter()
        self.server = SiteServer(("127.0.0.1", 0), Request)
        self.server.site = self
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        """What was asked for, in that order."""
        return [path for path, _ in self.requests]

    def header(self, name: str) -> list[str | None]:
        """One header of every request."""
        return [headers.get(name) for _, headers in self.requests]


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site that runs while the block does."""
    site = Site(tls)
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        site.server.server_close()
        thread.join()


# --- how a request is answered ---------------------------------------------------------------------------------------


def head_of(request: Request, served: Served, **changed: str | None) -> tuple[int, int, dict[str, str]]:
    """Status, start and headers of a proper answer; None takes a header away."""
    start = request.range_start(served)
    size = len(served.body)
    headers: dict[str, str | None] = {
        "ETag": served.etag,
        "Content-Length": str(size - start),
        "Content-Range": f"bytes {start}-{size - 1}/{size}" if start else None,
        **served.headers,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    return 206 if start else 200, start, {name: value for name, value in headers.items() if value is not None}


def serve(request: Request, served: Served) -> None:
    """A proper answer, with ranges and conditions."""
    if request.headers.get("If-None-Match") == served.etag:
        request.begin(304, {"ETag": served.etag})
        return
    status, start, headers = head_of(request, served)
    request.begin(status, headers)
    request.send(served.body[start:])


def cut(at: int) -> Fault:
    """The connection ends when the file is sent up to `at`."""

    def fault(request: Request, served: Served) -> None:
        status, start, headers = head_of(request, served)
        request.begin(status, headers)
        request.send(served.body[start : max(start, at)])

    return fault


def reset(at: int) -> Fault:
    """The connection is torn off."""

    def fault(request: Request, served: Served) -> None:
        cut(at)(request, served)
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return fault


def stall(at: int, seconds: float = 5.0) -> Fault:
    """The server falls silent."""

    def fault(request: Request, served: Served) -> None:
        cut(at)(request, served)
        request.wfile.flush()
        request.connection.settimeout(seconds)
        try:
            request.connection.recv(1)  # until the client goes away
        except OSError:
            return

    return fault


def drip(at: int) -> Fault:
    """From there on a byte now and then, for ever (three seconds)."""

    def fault(request: Request, served: Served) -> None:
        cut(at)(request, served)
        for index in range(300):
            request.wfile.write(served.body[at + index : at + index + 1])
            threading.Event().wait(0.01)

    return fault


def flip(at: int) -> Fault:
    """One bit of the file is another."""

    def fault(request: Request, served: Served) -> None:
        status, start, headers = head_of(request, served)
        body = bytearray(served.body)
        body[at] ^= 1
        request.begin(status, headers)
        request.send(bytes(body[start:]))

    return fault


def with_headers(**changed: str | None) -> Fault:
    """A proper answer but for some headers."""

    def fault(request: Request, served: Served) -> None:
        status, start, headers = head_of(request, served, **changed)
        request.begin(status, headers)
        request.send(served.body[start:])

    return fault


def answer(status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Fault:
    """Something else altogether."""

    def fault(request: Request, served: Served) -> None:
        request.reply(status, body, kind, **headers)

    return fault


def raw(data: bytes) -> Fault:
    """These bytes and no others, headers included."""

    def fault(request: Request, served: Served) -> None:
        request.wfile.write(data)
        request.close_connection = True

    return fault


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> Fault:
    """A body in chunks, with another end than the proper one if need be."""

    def fault(request: Request, served: Served) -> None:
        request.begin(200, {"Transfer-Encoding": "chunked", "ETag": served.etag})
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        request.wfile.write(end)

    return fault


def changing(body: bytes, then: Fault) -> Fault:
    """From this request on the file is another one."""

    def fault(request: Request, served: Served) -> None:
        served.body, served.etag = body, f'"{hashlib.md5(body).hexdigest()}"'
        then(request, served)

    return fault
