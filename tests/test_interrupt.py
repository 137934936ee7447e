"""Ctrl-C, or SIGTERM, ends every command with one line and exit code 130, whatever the program is in the middle of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from door_server import until
from served import WITHIN

# Presses Ctrl-C when the module that the first word names is about to be imported, or with `exit` at the end.
PROGRAM = """
import atexit, os, sys

def press():
    os.kill(os.getpid(), 2)  # SIGINT; importing signal for it would leave that out of the test

def watch(event, args):
    if event == "import" and args[0] == wanted:
        try:
            press()
        except KeyboardInterrupt:
            if not swallow:
                raise

wanted, swallow = sys.argv.pop(1), sys.argv.pop(1) == "swallow"
if wanted == "exit":
    atexit.register(press)
sys.addaudithook(watch)
from bottega.__main__ import run
sys.exit(run())
"""


def interrupted(when: str, home: Path, *words: str, then: str = "raise") -> subprocess.CompletedProcess[str]:
    """Run a command; `then` says what becomes of the interrupt: `raise`, `swallow`, or `ignore` from the beginning."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, when, then, *words],
        env={**os.environ, "BOTTEGA_HOME": str(home)},
        capture_output=True,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if then == "ignore" else None,
    )


@pytest.mark.parametrize(
    "module",
    ["signal", "bottega.cli", "bottega.cli.terminal", "argparse", "pydantic", "torch", "torch._C", "numpy"],
)
def test_while_it_starts(module: str, tmp_path: Path) -> None:
    done = interrupted(module, tmp_path, "make", "image", "a house", "--out", str(tmp_path / "out.png"))
    assert (done.returncode, done.stderr, done.stdout) == (130, "bottega: interrupted\n", "")


def test_a_library_that_swallows_interrupts_while_it_is_imported(tmp_path: Path) -> None:
    """As torch does now and then; what it leaves behind is half imported."""
    done = interrupted("torch", tmp_path, "make", "image", "a house", then="swallow")
    assert (done.returncode, done.stderr, done.stdout) == (130, "bottega: interrupted\n", "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs to see processes")
def test_what_a_benchmark_began_ends_with_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bottega", "bench", "requests", "--count", "100000"]
    bench = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True)
    try:
        until(lambda: len(group(bench.pid)) > 3)  # itself, its server, and two who ask it
        bench.terminate()
        assert bench.wait(WITHIN) == 130
        until(lambda: not group(bench.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(bench.pid, signal.SIGKILL)


def group(leader: int) -> set[int]:
    """The processes of a group."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == leader:
                found.add(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_while_it_loads_a_model(tmp_path: Path) -> None:
    done = interrupted("diffusers", tmp_path, "make", "image", "a house", "--out", str(tmp_path / "out.png"))
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "bottega: interrupted" and "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


def test_when_it_is_done(tmp_path: Path) -> None:
    done = interrupted("exit", tmp_path, "--version")
    assert (done.returncode, done.stderr) == (130, "bottega: interrupted\n")
    assert done.stdout.startswith("bottega ")


def test_a_caller_that_wants_it_ignored_is_heeded(tmp_path: Path) -> None:
    done = interrupted("argparse", tmp_path, "models", "list", then="ignore")
    assert (done.returncode, done.stderr) == (0, "")
    assert "starter-image" in done.stdout
