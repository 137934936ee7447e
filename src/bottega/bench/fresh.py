"""Fresh processes: what a command takes when nothing is loaded yet, imports included.

As a program, `python -m bottega.bench.fresh make image ...` is `bottega make image ...`, and its last line tells the
most memory that it held.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from bottega.bench.machine import peak_memory
from bottega.errors import BottegaError


def first_picture(words: list[str], environment: Mapping[str, str]) -> tuple[float, int | None]:
    """The seconds from the start of `bottega make image` to its end, and the most bytes that it held."""
    return command(["make", "image", *words], environment)


def command(words: list[str], environment: Mapping[str, str]) -> tuple[float, int | None]:
    """The seconds from the start of a command of ours to its end, and the most bytes that it held."""
    began = perf_counter()
    done = _run([sys.executable, "-m", __name__, *words], environment)
    seconds = perf_counter() - began
    told = done.splitlines()[-1]
    return seconds, int(told) if told.isdecimal() else None


def import_torch() -> float:
    """The seconds that a Python takes to start, import torch and end."""
    began = perf_counter()
    _run([sys.executable, "-c", "import torch"], {})
    return perf_counter() - began


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    try:
        told = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise BottegaError(f"a fresh process failed: {error.stderr.strip().splitlines()[-1]}") from None
    return told.stdout


def _main() -> None:
    sys.argv[0] = str(Path(sys.argv[0]).with_name("bottega"))
    try:
        runpy.run_module("bottega", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    print(peak_memory())


if __name__ == "__main__":
    _main()
