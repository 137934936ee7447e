"""A server process of a home of its own, as `bottega serve` starts it, for the tests of what clients see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
                process.wait(20)
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
