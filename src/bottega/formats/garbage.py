"""Garbage collection held back while a file is read: what is made then is no garbage, and looking for some costs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_held = 0  # how many readers, in any thread, hold it back
_was_on = True


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection, which goes on when the last thread that holds it back has ended."""
    global _held, _was_on
    with _lock:
        if not _held:
            _was_on = gc.isenabled()
            gc.disable()
        _held += 1
    try:
        yield
    finally:
        with _lock:
            _held -= 1
            if not _held and _was_on:
                gc.enable()
