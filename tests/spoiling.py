"""A disk that keeps another bit than it was given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bottega.library import writing


def spoil_what_arrives(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """One bit of what is written is another one on disk: in byte `at` of all tensors, from their end if negative."""
    real = writing.Follower.arrived

    def spoil(follower: writing.Follower, file: Path, start: int, end: int) -> None:
        if at < 0 or not follower.places:
            with file.open("rb+") as spoilt:
                spoilt.seek(start + at if at >= 0 else end + at)
                (byte,) = spoilt.read(1)
                spoilt.seek(-1, os.SEEK_CUR)
                spoilt.write(bytes([byte ^ 1]))
        real(follower, file, start, end)

    monkeypatch.setattr(writing.Follower, "arrived", spoil)
