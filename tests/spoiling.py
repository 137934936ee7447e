"""A disk that keeps another bit than it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bottega.library import writing


def spoil_what_arrives(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """One bit of what is written is another one on disk: in byte `at` of all tensors, from their end if negative."""
    for checker in (writing.Comparer, writing.Follower):
        monkeypatch.setattr(checker, "arrived", _spoiling(checker.arrived, at))


def _spoiling(real: Callable[[Any, Path, int, int], None], at: int) -> Callable[[Any, Path, int, int], None]:
    def spoil(checker: Any, file: Path, start: int, end: int) -> None:
        if at < 0 or not checker.places:
            with file.open("rb+") as spoilt:
                spoilt.seek(start + at if at >= 0 else end + at)
                (byte,) = spoilt.read(1)
                spoilt.seek(-1, os.SEEK_CUR)
                spoilt.write(bytes([byte ^ 1]))
        real(checker, file, start, end)

    return spoil
