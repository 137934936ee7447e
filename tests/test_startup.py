"""The command line answers at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "pydantic", "numpy", "PIL", "diffusers", "transformers", "fastapi", "bottega.families")
PROGRAM = """
import sys
from bottega.cli import main
code = main(sys.argv[1:])
print("imported:", *sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def imported_by(home: Path, *words: str) -> set[str]:
    """The modules that a command imports in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "BOTTEGA_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("imported:")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), (), ("models", "--help"), ("models", "list", "-h")])
def test_help_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    modules = imported_by(tmp_path, *words)
    assert not modules.intersection(HEAVY)
    assert not modules.intersection({"sqlite3"} if words[:1] != ("models",) else set())


def test_a_listing_imports_nothing_heavy(tmp_path: Path) -> None:
    first = imported_by(tmp_path, "models", "list")  # scans the starter shelf, and so asks the families
    assert not first.intersection(set(HEAVY) - {"bottega.families"})
    later = imported_by(tmp_path, "models", "list", "--json")
    assert not later.intersection(HEAVY)


def test_a_scan_imports_no_torch(tmp_path: Path) -> None:
    assert not imported_by(tmp_path, "models", "scan").intersection(set(HEAVY) - {"bottega.families"})
