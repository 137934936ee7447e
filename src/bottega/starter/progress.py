"""What every stage of training shares: a budget of wall-clock time, checkpoints that survive a kill, and a log."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bottega.formats import safetensors
from bottega.runtime.weights import MappedTensors, rows

SAVE_EVERY = 120
"""Seconds between two checkpoints."""


class Budget:
    """Minutes of work, counted over all the runs that a stage took; stops early on Ctrl-C and SIGTERM."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.seconds = minutes * 60
        self._started = time.monotonic() - spent
        self.interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True

    @property
    def spent(self) -> float:
        """Seconds of the budget that are gone."""
        return time.monotonic() - self._started

    @property
    def share(self) -> float:
        """How far along the stage is, 0..1."""
        return min(1.0, self.spent / self.seconds)

    @property
    def over(self) -> bool:
        return self.interrupted or self.spent >= self.seconds


def rate(share: float, step: int, warmup: int = 50, floor: float = 0.02) -> float:
    """The factor on the learning rate: a short rise, level for 30 % of the budget, then half a cosine to the floor."""
    fall = max(0.0, (share - 0.3) / 0.7)
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fall)))


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new one, never half of one.

    Dictionaries and lists may nest; tensors go into a safetensors file under their joined names, numbers into notes.
    """
    tensors: dict[str, torch.Tensor] = {}
    notes: dict[str, Any] = {}
    for name, value in _leaves(state, ""):
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            notes[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, rows(tensors), {"notes": json.dumps(notes)})


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote: nested dictionaries, with a list's places as whole numbers for keys."""
    state: dict[str, Any] = {}
    header = safetensors.read_header(path)
    leaves = json.loads(header.metadata["notes"])
    leaves.update(MappedTensors(header))
    for name, value in leaves.items():
        *folders, last = (int(part) if part.isdigit() else part for part in name.split("/"))
        room = state
        for folder in folders:
            room = room.setdefault(folder, {})
        room[last] = value
    return state


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything that is neither a dictionary nor a list, with the joined names that lead to it."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


def say(text: str) -> None:
    """One line of progress on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
