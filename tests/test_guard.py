"""While a model is loaded, no library can unpickle, start a program or load a file with torch."""

from __future__ import annotations

import io
import os
import pickle  # noqa: TID251  what the guard stops
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import Command
from hostile import benign

from bottega.families._stable_diffusion import load as loading
from bottega.families._stable_diffusion import toy
from bottega.runtime.guard import ForbiddenWhileLoading, guarded, is_armed


class Harmless:
    """Something whose class an unpickler has to look up."""


def attempts(canary: Path) -> dict[str, object]:
    """What may not happen, each as a function that would do it."""
    pickled = pickle.dumps(Harmless())
    touch = f"echo > '{canary}'"
    return {
        "unpickle": lambda: pickle.loads(pickled),  # noqa: S301
        "unpickle in Python": lambda: pickle._Unpickler(io.BytesIO(pickled)).load(),
        "os.system": lambda: os.system(touch),
        "subprocess": lambda: subprocess.run(touch, shell=True, check=False),  # noqa: S602
        "spawn": lambda: os.posix_spawn("/bin/sh", ["sh", "-c", touch], {}),
        "exec": lambda: os.execv("/bin/sh", ["sh", "-c", touch]),
        "torch.load": lambda: torch.load(io.BytesIO(b""), weights_only=True),  # noqa: TID251
        "torch.serialization.load": lambda: torch.serialization.load(io.BytesIO(b""), weights_only=True),
    }


@pytest.mark.parametrize("what", attempts(Path()))
def test_it_stops_what_runs_code(what: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    attempt = attempts(canary)[what]
    with guarded(), pytest.raises(ForbiddenWhileLoading, match="was stopped"):
        attempt()  # type: ignore[operator]
    assert not canary.exists()


def test_afterwards_and_on_other_threads_all_is_as_before() -> None:
    data = benign.saved({"a": torch.ones(2)})
    read: list[object] = []

    def elsewhere() -> None:
        read.append(torch.load(io.BytesIO(data), weights_only=True)["a"].tolist())  # noqa: TID251
        read.append(pickle.loads(pickle.dumps(Harmless())))  # noqa: S301

    with guarded():
        with guarded():
            pass
        assert is_armed()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert not is_armed()
    elsewhere()
    assert len(read) == 4


def test_what_a_module_does_while_it_is_imported_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asks_the_system.py").write_text("import os\nANSWER = os.system('true')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with guarded():
        import asks_the_system  # type: ignore[import-not-found]
    assert asks_the_system.ANSWER == 0
    del sys.modules["asks_the_system"]


def test_it_is_armed_while_the_engine_loads(
    home: Path, bottega: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy.write_single_file(tmp_path / "toy.safetensors", "sd1")
    honest = loading.load

    def careless(*args: object, **options: object) -> object:
        os.system("true")
        return honest(*args, **options)

    monkeypatch.setattr(loading, "load", careless)
    ran = bottega(
        "make", "image", "a house", "--model", path, "--steps", 1, "--size", "64x64", "--out", tmp_path / "x.png"
    )
    assert ran.code == 1 and "tried to start a program (os.system)" in ran.err
