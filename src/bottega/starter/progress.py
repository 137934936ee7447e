"""What every stage of training shares: a budget of wall-clock time, checkpoints that survive a kill, and a log."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch


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
    """The factor on the learning rate: a short rise, level until 30 % of the budget, then half a cosine to the floor."""
    fall = max(0.0, (share - 0.3) / 0.7)
    return min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * fall)))


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a crash leaves the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".partial"))
    os.replace(path.with_suffix(".partial"), path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote; only tensors and plain values are accepted."""
    return torch.load(path, map_location="cpu", weights_only=True)


def say(text: str) -> None:
    """One line of progress on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
