"""Reads mutated pickle checkpoints by the hundred thousand: whatever a file holds, the answer is a header or an error.

Each mutation is known by its number, and the same number always gives the same file: `mutated(seed, number)` makes it.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bottega.errors import BottegaError, DangerousModel
from bottega.formats import read_header
from bottega.settings import Settings

PROCESSES = 2
_CHUNK = 5_000
_MOST_FAILURES = 20

# Opcodes that move the stack, call, remember or frame: what a random byte hits too seldom.
_OPCODES = (
    b"(.0120FGIJKLMNPQRSTUVX]abcdeghijloqrstu}"
    b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8e\x8f\x90\x91\x92\x93\x94\x95"
)
_WORDS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n", b"h\x00", b"q\x00", b"X\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f",
    b"J\xff\xff\xff\x7f",    b"PK\x05\x06", b"PK\x01\x02", b"storage", b"\xff" * 8, bytes(8),
)  # fmt: skip


@dataclass
class Report:
    """How many files were read, how fast, with which verdicts; the slowest, and those that raised what they may not."""

    mutations: int = 0
    seed: int = 0
    processes: int = PROCESSES
    seconds: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    slowest: int = 0
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self) | {"verdicts": dict(self.verdicts), "per_second": self.mutations / self.seconds}

    def add(self, other: Report) -> None:
        """Count what another process has found."""
        self.mutations += other.mutations
        self.verdicts += other.verdicts
        self.failures += other.failures
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = other.slowest_seconds, other.slowest


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read `args.mutations` files and tell; 1 if one of them raised anything but an error of ours."""
    report = fuzz(args.mutations, seed=0)
    if args.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        verdicts = ", ".join(f"{name} {count:,}" for name, count in report.verdicts.most_common())
        print(
            f"{report.mutations:,} files in {report.seconds:.0f} s ({report.mutations / report.seconds:,.0f} a second)"
        )
        print(f"verdicts: {verdicts}")
        print(f"slowest: {report.slowest_seconds * 1000:.0f} ms (number {report.slowest})")
        print("\n".join(report.failures) or "no file raised anything but an error of ours")
    return 1 if report.failures else 0


def fuzz(mutations: int, seed: int) -> Report:
    """Read so many mutated files in two processes."""
    report = Report(seed=seed)
    began = time.perf_counter()
    sources = samples()
    chunks = [range(first, min(first + _CHUNK, mutations)) for first in range(0, mutations, _CHUNK)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(read_all, sources, seed, chunk) for chunk in chunks]):
                report.add(done.result())
                print(f"{report.mutations:,} of {mutations:,}", end="\r", file=sys.stderr, flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever interrupts waits for no chunk that has not begun
    print(file=sys.stderr)
    report.seconds = time.perf_counter() - began
    return report


def read_all(sources: Sequence[bytes], seed: int, numbers: Iterable[int]) -> Report:
    """Read the mutations with these numbers, one after the other."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="bottega-fuzz-", dir=_memory()) as folder:
        path = Path(folder) / "model"
        for number in numbers:
            path.write_bytes(mutated(sources, seed, number))
            began = time.process_time()
            report.verdicts[_verdict(path, number, report.failures)] += 1
            taken = time.process_time() - began
            report.mutations += 1
            if taken > report.slowest_seconds:
                report.slowest_seconds, report.slowest = taken, number
    return report


def _memory() -> str | None:
    """A folder that is kept in memory, where there is one: a million files need not reach a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _verdict(path: Path, number: int, failures: list[str]) -> str:
    try:
        return read_header(path).safety.verdict
    except DangerousModel:
        return "dangerous"
    except BottegaError:
        return "refused"
    except Exception as error:  # what a fuzz run looks for
        if len(failures) < _MOST_FAILURES:
            failures.append(f"number {number}: {type(error).__name__}: {error}")
        return "failed"


# --- files -----------------------------------------------------------------------------------------------------------


def samples() -> list[bytes]:
    """Small checkpoints of every kind, as torch writes them, and plain pickles of the older protocols."""
    import torch
    from torch import nn

    numbers = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {"a.weight": numbers, "a.bias": numbers[0].half(), "view": numbers.t()[1:3]}
    embedding = {"string_to_param": nn.ParameterDict({"*": nn.Parameter(numbers)}), "name": "style", "step": 5}
    hyper = {
        6: ({"linear.0.weight": numbers}, {"linear.0.weight": numbers}),
        "layer_structure": [1, 2.5, 1],
        "on": True,
    }
    training = {
        "state_dict": state,
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}},
        "odd": numbers.long().short(),
    }
    made = []
    for value in (state, embedding, hyper, training):
        for options in ({}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}):
            file = io.BytesIO()
            torch.save(value, file, **options)
            made.append(file.getvalue())
    return [*made, *_PLAIN]


_PLAIN = (
    b"(dp0\nS'a'\np1\n(lp2\nI1\naF2.5\nasS'b'\np3\nccollections\nOrderedDict\np4\n(tRp5\ns.",
    b"}q\x00(U\x01aq\x01]q\x02(K\x01G?\xf0\x00\x00\x00\x00\x00\x00eU\x01bq\x03L12345678901L\nu.",
    b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94]\x94(K\x01K\x02C\x02xy\x94\x8f\x94(K\x01\x90es.",
)


def mutated(sources: Sequence[bytes], seed: int, number: int) -> bytes:
    """One of the samples with a few changes; those of an archive are often made in its pickle, and packed again."""
    chance = random.Random(seed << 40 | number)
    data = sources[number % len(sources)]
    if data.startswith(b"PK") and chance.random() < 0.7:
        return _repacked(data, chance, sources)
    return bytes(_changed(bytearray(data), chance, sources))


def _repacked(data: bytes, chance: random.Random, sources: Sequence[bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", chance.choice((0, 8))) as new:
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                content = _changed(content, chance, sources)
            new.writestr(zipfile.ZipInfo(name), bytes(content))
    return file.getvalue()


def _changed(data: bytearray, chance: random.Random, sources: Sequence[bytes]) -> bytearray:
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(9):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                data[at:at] = bytes([chance.choice(_OPCODES)])
            case 2:
                data[at : at + 1] = bytes([chance.choice(_OPCODES)])
            case 3:
                data[at:at] = chance.choice(_WORDS)
            case 4:
                del data[at : at + chance.choice((1, 1, 2, 9, 100))]
            case 5:
                data[at:at] = data[at : at + chance.choice((1, 4, 40))] * chance.choice((1, 2, 50))
            case 6:
                number = chance.choice((0, 1, 255, 65_535, 1 << 31, (1 << 32) - 1, 1 << 62))
                data[at : at + 4] = struct.pack("<Q", number)[: chance.choice((1, 2, 4, 8))]
            case 7:
                other = chance.choice(sources)
                start = chance.randrange(len(other))
                data[at:at] = other[start : start + chance.choice((2, 20, 200))]
            case 8 if chance.random() < 0.2:
                del data[at:]
    return data
