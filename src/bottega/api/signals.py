"""The signals that end a server: the first one lets it end in order, a second one ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Signals:
    """Obeyed while the block lasts, from the first moment on: an exception would break off what can't be broken off.

    The first signal calls `end` and is kept in `came`, for what has yet to begin; `at_once` is called before a second
    one ends the process.
    """

    def __init__(self) -> None:
        self.came = False
        self.end: Callable[[], None] = lambda: None
        self.at_once: Callable[[], None] = lambda: None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # A terminal that is closed sends it; `nohup` has it ignored.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._obey) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        # A signal that comes while the rest of the process ends is the second one, too.
        if not self.came:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _obey(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            self.at_once()
            os._exit(128 + number)
        self.came = True
        self.end()
