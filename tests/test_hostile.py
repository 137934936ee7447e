"""Every file of the hostile corpus gets its verdict, quickly, in little memory, and nothing in it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import CASES, Case

SECONDS = 2.0  # of a processor, for one file
TESTS = Path(__file__).parent


LONG = (18, 6500, 6507)  # which take more than a second each


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case.number in LONG)) for case in CASES.values()],
    ids=lambda case: f"{case.number}-{case.title}",
)
def test_verdict(case: Case, tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "files"
    folder.mkdir()
    for name, data in case.write(canary):
        (folder / name).write_bytes(data)
    command = [sys.executable, str(TESTS / "hostile" / "child.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert not canary.exists()
    files = json.loads(ran.stdout)
    assert files
    for told in files:
        assert told["verdict"] in case.verdicts, told
        assert case.says in told["words"], told
        assert told["seconds"] < SECONDS, told
        if case.tensors is not None:
            assert told["tensors"] == case.tensors, told
        if told["verdict"] == "dangerous":
            assert told["names"] or "sets attributes" in told["words"] or "builtins.getattr" in told["words"], told


def test_all_cases_are_there() -> None:
    assert {number for number in CASES if number < 100} == set(range(1, 73))
