"""Measures how long a 2 GB checkpoint pickle takes to become usable tensors, against torch's own loader."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from bottega.errors import SaveError
from bottega.settings import Settings

TENSORS = 1_131  # Stable Diffusion 1.5 has so many
NUMBERS = 1_066_000_000
REPEATS = 5
_CYCLE = (
    (320,), (320, 320, 3, 3), (640,), (640, 640, 3, 3), (1280,), (1280, 1280), (1280,), (10240, 1280), (768, 768),
    (320, 768), (2560, 320), (1280, 2560),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One way to get at the tensors of a file: seconds by the clock and of the processor, each the median of several
    runs made in turns, here and with torch."""

    what: str
    peer: str
    clock: float
    peer_clock: float
    processor: float
    peer_processor: float

    def to_json(self) -> dict[str, Any]:
        """The figure as plain data, with how many times as fast we are."""
        return {**vars(self), "times_faster": self.times_faster, "times_less_processor": self.times_less_processor}

    @property
    def times_faster(self) -> float:
        """How many times as long torch takes, by the clock."""
        return self.peer_clock / self.clock

    @property
    def times_less_processor(self) -> float:
        """How many times as long torch keeps the processor busy."""
        return self.peer_processor / self.processor


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure in a temporary folder and tell."""
    with tempfile.TemporaryDirectory(prefix="bottega-pickles-") as folder:
        figures = list(measure(Path(folder), 20_000_000 if args.quick else NUMBERS))
    if args.json:
        print(json.dumps({"tensors": TENSORS, "figures": [figure.to_json() for figure in figures]}, indent=2))
        return 0
    for figure in figures:
        print(f"{figure.what}\n  here {_times(figure.clock, figure.processor)}")
        print(f"  {figure.peer} {_times(figure.peer_clock, figure.peer_processor)}")
        print(f"  {figure.times_faster:.1f} times as fast, with {figure.times_less_processor:.1f} times less processor")
    return 0


def measure(folder: Path, numbers: int = NUMBERS) -> Iterator[Figure]:
    """Figures for the archive and for the old format, each with the tensors only mapped, and read once."""
    if (free := shutil.disk_usage(folder).free) < 5 * numbers:
        raise SaveError(f"{folder}: only {free / 1e9:.1f} GB are free", "free some space, or measure with --quick")
    path = folder / "model.ckpt"
    for name, old in (("archive", False), ("old format", True)):
        print(f"writing {numbers * 2 / 1e9:.1f} GB", file=sys.stderr)
        _write(path, numbers, old_format=old)
        is_mapped = not old  # the old format can't be
        peer = f"torch.load(weights_only=True{', mmap=True' if is_mapped else ''})"

        def theirs(mmap: bool = is_mapped) -> Any:
            import torch

            # The peer, of a file that this program wrote.
            return torch.load(path, mmap=mmap, weights_only=True)["state_dict"]  # noqa: TID251

        yield _compare(f"{name}: usable tensors", peer, lambda: _ours(path), theirs)
        yield _compare(f"{name}: every number read", peer, lambda: _read(_ours(path)), lambda: _read(theirs()))
        path.unlink()


def _ours(path: Path) -> dict[str, Any]:
    from bottega.formats import read_header
    from bottega.runtime.weights import MappedTensors

    return dict(MappedTensors(read_header(path)))


def _read(tensors: dict[str, Any]) -> int:
    import torch

    return sum(int(tensor.view(torch.int16).amax()) for tensor in tensors.values())


def _compare(what: str, peer: str, ours: Callable[[], object], theirs: Callable[[], object]) -> Figure:
    clocks: tuple[list[float], list[float]] = ([], [])
    processors: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for side, work in enumerate((ours, theirs)):
            gc.collect()
            began, busy = perf_counter(), process_time()
            work()
            if turn:  # the first time, libraries are imported and the file comes into memory
                clocks[side].append(perf_counter() - began)
                processors[side].append(process_time() - busy)
    return Figure(what, peer, median(clocks[0]), median(clocks[1]), median(processors[0]), median(processors[1]))


def _write(path: Path, numbers: int, *, old_format: bool) -> None:
    """A checkpoint in half precision with about so many random numbers."""
    import torch

    state = {}
    noise = torch.randint(-(1 << 14), 1 << 14, (1 << 24,), dtype=torch.int16).view(torch.float16)
    shapes = [_CYCLE[index % len(_CYCLE)] for index in range(TENSORS)]
    scale = numbers / sum(torch.Size(shape).numel() for shape in shapes)
    for index, shape in enumerate(shapes):
        first = max(1, round(shape[0] * scale))
        size = torch.Size((first, *shape[1:])).numel()
        state[f"model.diffusion_model.blocks.{index}.weight"] = noise[:size].view(first, *shape[1:]).clone()
    torch.save({"state_dict": state, "global_step": 1}, path, _use_new_zipfile_serialization=not old_format)


def _times(clock: float, processor: float) -> str:
    return f"{clock * 1000:.1f} ms ({processor * 1000:.1f} ms of a processor)"
