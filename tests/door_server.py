"""A server process of a home of its own, as `bottega serve` starts it, for the tests of what clients see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

PROMPT = "a red house by the sea at sunset, watercolor"


@dataclass(frozen=True)
class Server:
    """A server that runs: its address, its port and its home."""

    url: str
    home: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def owner(self) -> httpx.Client:
        """A client with the key that this machine's own command line has."""
        key = json.loads((self.home / "serve.json").read_text())["key"]
        return self.client(headers={"Authorization": f"Bearer {key}"})

    def running(self) -> list[str]:
        """The ids of the jobs that are at their steps, whoever asked for them."""
        with self.owner() as owner:
            jobs = owner.get("/api/jobs", params={"state": "running"}).json()["items"]
        return [job["id"] for job in jobs if (job["progress"] or {}).get("phase") == "sample"]

    def open_jobs(self) -> int:
        """How many jobs have not ended."""
        with self.owner() as owner:
            states = {"state": ["waiting", "paused", "running"]}
            return len(owner.get("/api/jobs", params=states).json()["items"])

    def cancel(self, id: str) -> None:
        """End a job as the page would."""
        with self.owner() as owner:
            owner.post(f"/api/jobs/{id}/cancel").raise_for_status()

    def client(self, **options: object) -> httpx.Client:
        """A client of it that waits for a minute; the worker has to import torch before the first picture."""
        return httpx.Client(base_url=self.url, timeout=60.0, **options)  # type: ignore[arg-type]


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    """Start a server on this home and a free port, and end it as a user would."""
    environment = {**os.environ, "BOTTEGA_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    log = home.parent / f"{home.name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bottega", "serve", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            first = process.stdout.readline()
            assert first.startswith("Bottega serves at "), log.read_text()
            yield Server(first.split()[-1], home)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def made_by_command(home: Path, folder: Path, *words: str) -> bytes:
    """The file that `bottega make image` makes of the same, in a process and a home of its own."""
    target = folder / "made.png"
    subprocess.run(
        [sys.executable, "-m", "bottega", "make", "image", PROMPT, *words, "--out", str(target)],
        env={**os.environ, "BOTTEGA_HOME": str(home), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return target.read_bytes()


T = TypeVar("T")


def until(holds: Callable[[], T]) -> T:
    """What this answers once it is something; it is asked for a minute."""
    pause = threading.Event()
    for _ in range(1200):
        if found := holds():
            return found
        pause.wait(0.05)
    raise AssertionError("it never came to that")
