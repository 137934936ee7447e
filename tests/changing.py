"""Another program that saves a model while it is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def saved_anew(path: Path) -> Callable[[str, int, int], None]:
    """What is told of progress, which saves the file anew in place as soon as something is written."""
    os.utime(path, (0, 0))  # so that the time of it is another one, however soon that is

    def save(phase: str, done: int, total: int) -> None:
        if phase == "writing" and os.stat(path).st_mtime_ns == 0:
            with path.open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(first)

    return save


def replaced(path: Path) -> Callable[[str, int, int], None]:
    """What is told of progress, which puts a copy in the place of the file: of its size, and as old."""
    copy = path.with_name(f"{path.name}.copy")
    shutil.copy2(path, copy)

    def replace(phase: str, done: int, total: int) -> None:
        if phase == "writing" and copy.exists():
            os.replace(copy, path)

    return replace
