"""`bottega serve` as a process of its own on a test's home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


class Running:
    """A server that runs, and requests to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        environment = {**os.environ, "BOTTEGA_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
        self.log = home.parent / f"{home.name}-server.log"
        (home / "serve.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bottega", "serve", "--port", "0"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 120.0
        while not (home / "serve.json").exists():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            threading.Event().wait(0.02)
        told = json.loads((home / "serve.json").read_text())
        self.url, self.key = told["url"], told["key"]

    def ask(self, method: str, path: str, told: Any = None, **headers: str) -> Any:
        """What the server answers, from JSON."""
        body = None if told is None else json.dumps(told).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with urlopen(Request(self.url + path, body, named, method=method), timeout=180) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def over(self, id: str, within: float = 300.0) -> Any:
        """A job once it has ended."""
        end = time.monotonic() + within
        while (job := self.ask("GET", f"/api/jobs/{id}"))["state"] in ("waiting", "running"):
            assert time.monotonic() < end, job
            threading.Event().wait(0.05)
        return job

    def stop(self) -> int:
        """Send SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill it, and nothing that it started."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(home: Path) -> Iterator[Running]:
    """A server on a home until the block ends."""
    server = Running(home)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
