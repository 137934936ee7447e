"""Memory for what a few bytes of somebody's file may become: so much at once in a process, and no more."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LARGE = 32 << 20  # bytes from which on it is worth some milliseconds to give them back


class Room:
    """A number of bytes that threads share. They are served in the order in which they came; one that needs more than
    all of them is served alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait for this many bytes, and have them; what was made of them is to be let go of before the end."""
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                self._changed.wait_for(lambda: self._line[0] is place and self._has(count))
                self._taken += count
            finally:
                self._line.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            if count >= _LARGE:
                give_back()
            with self._changed:
                self._taken -= count
                self._changed.notify_all()

    def _has(self, count: int) -> bool:
        return self._taken == 0 or self._taken + count <= self.most


def give_back() -> None:
    """Give memory that was freed back to the other programs of this machine."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
