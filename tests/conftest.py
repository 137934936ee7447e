"""What many tests need: a home of their own, the command line, and tiny models made on the spot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Two test processes on two cores are faster than one that uses both, and results don't depend on the number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from PIL import Image

from bottega.cli import main

# A shell starts what it runs in the background with Ctrl-C ignored, and so would everything that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ran]


def pixels(path: Path) -> Image.Image:
    """A picture, with its file closed."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def killed_in(phase: str, *words: str) -> None:
    """Run a command, and kill it once its progress tells of a phase. It stops itself there, so that it can't escape."""
    program = """
import os, signal, sys
from bottega.cli import main
from bottega.cli.progress import Progress
phase, tell = sys.argv.pop(1), Progress.update
def update(progress, now, *rest, **unit):
    tell(progress, now, *rest, **unit)
    if now == phase:
        signal.pause()
Progress.update = update
sys.exit(main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, phase, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    with process, process.stderr:
        seen = next((line for line in process.stderr if line.startswith(phase)), "")
        process.kill()
    assert seen and process.returncode == -signal.SIGKILL


def growth(run: Callable[[str], object], text: str) -> float:
    """How many times as long `run` takes for the text as for a 16th of it: 16 if linear, 256 if quadratic."""

    def spent(length: int) -> float:
        began = time.process_time()
        run(text[:length])
        return time.process_time() - began

    # Below some milliseconds the clock says nothing; what is quadratic is far above.
    return min(spent(len(text)) for _ in range(2)) / max(0.02, min(spent(len(text) // 16) for _ in range(2)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, which every command of the test uses."""
    home = tmp_path / "home"
    monkeypatch.setenv("BOTTEGA_HOME", str(home))
    return home


@pytest.fixture
def bottega(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`bottega WORDS...` in this process, on the test's own home."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
