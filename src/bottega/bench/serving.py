"""A server of its own on a throw-away home, started, killed and asked by the benches that measure serving."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bottega.errors import BottegaError

START_WITHIN = 60.0
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class NoServer(BottegaError):
    """The server did not start."""


class Serving:
    """A server process on a home; `words` are what comes after `python`. As a context manager it leaves none behind."""

    def __init__(self, home: Path, words: Sequence[str] = ("-m", "bottega", "serve", "--port", "0")) -> None:
        self.home = home
        self.words = words
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home.with_name(f"{home.name}.log")

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def start(self) -> float:
        """Start it; how many seconds it took until it answered."""
        began = time.monotonic()
        (self.home / "serve.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.words],
                env={**os.environ, "BOTTEGA_HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() - began > START_WITHIN:
                raise NoServer(f"the server did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def answers(self) -> bool:
        """Whether it takes requests."""
        client = Client(self)
        try:
            return client.ask("GET", "/health")[0] == 200
        except (OSError, HTTPException, ValueError, KeyError):
            return False
        finally:
            client.close()

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; the exit code, and how many seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - began

    def kill(self) -> None:
        """Send SIGKILL to the server alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def workers(self) -> list[int]:
        """The process numbers of its workers."""
        assert self.process is not None
        with suppress(OSError):
            tasks = Path(f"/proc/{self.process.pid}/task")
            told = [(task / "children").read_text().split() for task in tasks.iterdir()]
            return [int(pid) for each in told for pid in each]
        return []

    def cpu(self) -> float:
        """Seconds that the server itself has computed."""
        assert self.process is not None
        return spent(self.process.pid)

    def resident(self) -> int:
        """Bytes of main memory that the server itself holds."""
        assert self.process is not None
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spent(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Client:
    """Somebody who asks a server, and finds it again when it was started anew."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._connection: HTTPConnection | None = None
        self._key = ""
        self._wait = 0.05  # seconds, before what was refused for now is asked again

    def ask(self, method: str, path: str, told: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer; OSError or HTTPException where there is none."""
        connection = self._connected()
        body = None if told is None else json.dumps(told).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            named["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            content = answer.read()
            self._wait = float(answer.getheader("Retry-After") or 0.05)
        except BaseException:
            self.close()
            raise
        return answer.status, json.loads(content) if content[:1] in (b"{", b"[") else content

    def insist(self, method: str, path: str, told: Any = None, **headers: str) -> Any:
        """The JSON of a good answer, however often the server has to be asked for it."""
        while True:
            try:
                status, answer = self.ask(method, path, told, **headers)
                if status < 300:
                    return answer
                if status not in (429, 500, 503, 507):
                    raise NoServer(f"{method} {path} was answered with {status}: {answer}")
            except (OSError, HTTPException, ValueError, KeyError):
                self._wait = 0.05
            time.sleep(self._wait)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> HTTPConnection:
        if self._connection is None:
            told = json.loads((self._serving.home / "serve.json").read_text())
            parts = urlsplit(told["url"])
            self._key = told["key"]
            self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        return self._connection


class Watch(threading.Thread):
    """Asks for something again and again, and notes how long each answer took, in seconds."""

    def __init__(self, serving: Serving, path: str, every: float = 0.05) -> None:
        super().__init__(name="watch", daemon=True)
        self._client, self._path, self._every = Client(serving), path, every
        self._ended = threading.Event()
        self.taken: list[float] = []
        self.failed = 0

    def run(self) -> None:
        """Ask until `end`."""
        while not self._ended.wait(self._every):
            began = time.monotonic()
            try:
                status, _ = self._client.ask("GET", self._path)
            except (OSError, HTTPException, ValueError, KeyError):
                status = 0
            self.taken.append(time.monotonic() - began)
            self.failed += status != 200
        self._client.close()

    def end(self) -> float:
        """Stop asking; the 99th percentile of the seconds that answers took."""
        self._ended.set()
        self.join()
        return percentile(self.taken, 0.99)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
