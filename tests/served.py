"""A real server on a free port, in a thread or in a process of its own, and requests as exact as a test wants them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from bottega.api.access import Access
from bottega.api.access.accounts import Accounts
from bottega.api.server import Config, Server, listen

WITHIN = 180.0  # seconds that anything in a test may take, on a busy machine


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A server that runs, and who is who on it."""

    port: int
    access: Access
    accounts: Accounts

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Any = None,
        *,
        host: str | None = None,
        as_owner: bool = False,
        address: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        """Send a request with these headers (`content_type` is Content-Type) and no others but Host."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            told.setdefault("content-type", "application/json")
        if as_owner:
            told["authorization"] = f"Bearer {self.access.machine_key}"
        connection = HTTPConnection(address, self.port, timeout=WITHIN)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host if host is not None else f"127.0.0.1:{self.port}")
            for name, value in told.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def raw(self, text: bytes) -> bytes:
        """Send bytes, and take what comes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN) as connection:
            connection.sendall(text)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def answer_of(response: HTTPResponse) -> Answer:
    """All of an answer."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read(), response.headers.get_all("set-cookie") or [])


@contextmanager
def serving(home: Path, make_app: Any, **options: Any) -> Iterator[Served]:
    """Serve what `make_app(access)` makes, while the block runs. `options` are those of Access."""
    accounts = Accounts(home / "access.sqlite")
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    bound = [one.getsockname()[0] for one in sockets]
    access = Access(accounts, port=port, bound=bound, **options)
    ready = threading.Event()
    server = Server(Config(make_app(access)), access, ready.set)
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    try:
        assert ready.wait(WITHIN)
        yield Served(port, access, accounts)
    finally:
        server.end()
        thread.join(WITHIN)
        for one in sockets:
            one.close()
        accounts.close()
    assert not thread.is_alive()


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    link: str

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.home / "serve.json").read_text())
        return told

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        port = int(self.url.rsplit(":", 1)[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=WITHIN)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("Authorization", f"Bearer {self.told['key']}")
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            return answer_of(connection.getresponse())
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WITHIN)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bottega", *words]


@contextmanager
def started(home: Path, *words: str, **environment: str) -> Iterator[Running]:
    """A server that has printed its link."""
    process = subprocess.Popen(
        command("serve", "--port", "0", *words),
        env={**os.environ, "BOTTEGA_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        said = ""
        while "token=" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            said += line
        found = re.search(r"(http://\S+)/\?token=\S+", said)
        assert found
        yield Running(process, home, found[1], found[0])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
