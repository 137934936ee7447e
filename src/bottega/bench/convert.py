"""Measures how long converting and merging a 2 GB checkpoint takes beside copying it, and in how much memory.

Each work is a command in a process of its own, as a user runs it, imports and checking included; copying is the copy
and its way to the disk. They take turns, as disks are not equally fast at all times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bottega.bench import fresh
from bottega.bench.full_size import full_size_model
from bottega.errors import SaveError
from bottega.settings import STARTER_SHELF, Settings

ROUNDS = 3
MOST_TIMES, MOST_MEMORY = 2.0, 1 << 30  # what issue 3 asks for


@dataclass(frozen=True)
class Figure:
    """One work: the medians of its seconds and of those of copying its source in the same rounds; memory in bytes.

    `equal` says whether the numbers that it wrote were found to be right, by other means than its own.
    """

    what: str
    seconds: float
    copying: float
    peak: int | None
    written: int
    equal: bool

    @property
    def times_copying(self) -> float:
        """How many times as long as the copy it takes."""
        return self.seconds / self.copying

    def is_within(self, *, quick: bool = False) -> bool:
        """Whether it is within the memory and, unless the model is a small one, the time that are allowed."""
        return (self.peak or 0) <= MOST_MEMORY and (quick or self.times_copying <= MOST_TIMES)

    def to_json(self) -> dict[str, Any]:
        """The figure as plain data."""
        return {**vars(self), "times_copying": self.times_copying}


@dataclass(frozen=True)
class Work:
    """A command to measure: its words without the destination, what it reads, and how its result is checked."""

    what: str
    words: tuple[object, ...]
    source: Path
    right: Callable[[Path], bool]
    first_time: bool = True  # without what an earlier run has put into the catalog


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell; 1 if a result was wrong, or took more memory or time than issue 3 allows."""
    figures = list(measure(settings, partial(print, file=sys.stderr), quick=args.quick))
    if args.json:
        print(json.dumps({"figures": [figure.to_json() for figure in figures]}, indent=2))
    else:
        for figure in figures:
            print(_line(figure))
    return 0 if all(figure.equal and figure.is_within(quick=args.quick) for figure in figures) else 1


def _line(figure: Figure) -> str:
    peak = f", {figure.peak / 1e6:.0f} MB of memory" if figure.peak else ""
    right = "right" if figure.equal else "WRONG"
    return (
        f"{figure.what}: {figure.seconds:.1f} s, {figure.times_copying:.2f} times the {figure.copying:.1f} s of copying"
        f"{peak}; {figure.written / 1e9:.2f} GB written, {right}"
    )


def measure(settings: Settings, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """The figures of all works; `quick` takes the starter, where only memory and correctness tell something.

    Raises SaveError if there is no room; all that is written is removed but for the full-size model.
    """
    with tempfile.TemporaryDirectory(prefix="bottega-convert-", dir=None if quick else _roomy(settings)) as folder:
        scratch = Path(folder)
        model = STARTER_SHELF / "starter-image.safetensors" if quick else full_size_model(settings.home / "bench")
        if (free := shutil.disk_usage(scratch).free) < 6 * model.stat().st_size:
            raise SaveError(f"{scratch}: only {free / 1e9:.1f} GB are free", "free some space, or measure with --quick")
        say("writing a second model, and one as a pickle")
        other, pickle = scratch / "other.safetensors", scratch / "model.ckpt"
        shutil.copyfile(model, other)
        _write_pickle(model, pickle)
        for work in _works(model, other, pickle):
            say(work.what)
            yield _figure(work, scratch, 1 if quick else ROUNDS)


def _roomy(settings: Settings) -> Path:
    """Where the model itself lies: copying from one disk to another would be no measure."""
    folder = settings.home / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _works(model: Path, other: Path, pickle: Path) -> Iterator[Work]:
    def same(made: Path) -> bool:
        return _agree(made, model, lambda tensor: tensor)

    def halved(made: Path) -> bool:
        return _agree(made, model, lambda tensor: tensor.bfloat16())

    yield Work("pickle to safetensors", ("convert", pickle), pickle, same)
    yield Work("safetensors to a diffusers folder", ("convert", model), model, lambda made: made.is_dir())
    yield Work("float16 to bfloat16", ("convert", model, "--dtype", "bf16"), model, halved)
    yield Work("float16 to float8", ("convert", model, "--dtype", "fp8"), model, lambda made: made.is_file())
    merge = ("merge", model, other, "--weight", 0.3)
    yield Work("weighted merge of two, hashes included", merge, model, same)
    yield Work("the same, hashes known", merge, model, same, first_time=False)


def _figure(work: Work, scratch: Path, rounds: int) -> Figure:
    copies, times, peaks = [], [], []
    homes = scratch / "homes"
    for round in range(rounds):
        copies.append(_copy(work.source, scratch / "copy"))
        home = homes / (f"{round}" if work.first_time else "known")
        made = scratch / ("made" if "folder" in work.what else "made.safetensors")
        words = [*map(str, work.words), *(["--out"] if work.words[0] == "merge" else []), str(made)]
        environment = {"BOTTEGA_HOME": str(home)}
        if not work.first_time and not round:
            fresh.command(["models", *words], environment)
            made.unlink()
        seconds, peak = fresh.command(["models", *words], environment)
        times.append(seconds)
        peaks.append(peak)
        if round < rounds - 1:
            _remove(made)
        shutil.rmtree(homes / f"{round}", ignore_errors=True)
    written = sum(file.stat().st_size for file in [made, *made.rglob("*")] if file.is_file())
    equal = work.right(made)
    _remove(made)
    known = [peak for peak in peaks if peak is not None]
    return Figure(work.what, median(times), median(copies), max(known, default=None), written, equal)


def _copy(source: Path, target: Path) -> float:
    """The seconds of a copy, until it is on the disk."""
    began = perf_counter()
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    seconds = perf_counter() - began
    target.unlink()
    return seconds


def _remove(made: Path) -> None:
    if made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink()


def _write_pickle(model: Path, pickle: Path) -> None:
    """The model as torch saves it."""
    import torch

    from bottega.formats import read_header
    from bottega.runtime.weights import MappedTensors

    torch.save({"state_dict": dict(MappedTensors(read_header(model)))}, pickle)


def _agree(made: Path, model: Path, change: Callable[[Any], Any]) -> bool:
    """Whether a file has the model's numbers, changed so, by the reference library's reading."""
    import torch
    from safetensors import safe_open

    with safe_open(made, "pt") as one, safe_open(model, "pt") as other:
        return set(one.keys()) == set(other.keys()) and all(
            torch.equal(one.get_tensor(name), change(other.get_tensor(name)))
            for name in other.keys()  # noqa: SIM118
        )
