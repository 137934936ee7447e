"""How far a command is: a bar where somebody watches, plain lines where a log is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from bottega.cli.terminal import columns, cut, printable, size_text, speaks, time_text, window

REDRAW_EVERY = 0.1  # seconds, on a terminal
LINE_EVERY = 5.0  # seconds, in a log
WORTH_TELLING = 1.0  # seconds: what is over by then needs no progress
TRUSTED_AFTER = 0.5  # seconds of work before the time left is worth telling
WIDEST_BAR = 32


class Progress:
    """The progress of one command on a stream, usually standard error.

    `update` is called as often as one likes; the time left is that of the phase, at the pace of the phase so far.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._watched = stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._coloured = self._watched and not os.environ.get("NO_COLOR")
        self._full, self._empty = ("━", "─") if speaks(stream, "━─") else ("#", "-")
        self._phase: str | None = None
        self._since = self._shown_at = 0.0
        self._first = 0  # how much was done when the phase began
        self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.finish()

    def update(self, phase: str, done: int, total: int, unit: str = "") -> None:
        """`done` of `total` steps of a phase are behind us; with the unit "bytes" they are written as sizes."""
        now = self._clock()
        begins = phase != self._phase
        if begins:
            self._phase, self._since, self._first = phase, now, done
        ends = done >= total
        every = REDRAW_EVERY if self._watched else LINE_EVERY
        if not begins and now - self._shown_at < every and not (ends and self._watched):
            return
        self._shown_at = now
        told = f"{size_text(done)} of {size_text(total)}" if unit == "bytes" else f"{done}/{total}"
        left = self._left(done, total, now)
        if unit == "bytes" and left:
            left = f"{size_text((done - self._first) / (now - self._since))}/s, {left}"
        if self._watched:
            self._draw(phase, done / total if total else 1.0, told, left)
        else:
            self._write(f"{phase} {told}{f', {left}' if left else ''}\n")

    def hashing(self) -> Callable[[int, int], None]:
        """What is to be told the bytes of a model that is hashed: it shows them once that has taken a second."""
        since: list[float] = []

        def told(done: int, total: int) -> None:
            if not since:
                since.append(self._clock())
            if self._clock() - since[0] > WORTH_TELLING:
                self.update("hash", done, total, "bytes")

        return told

    def wait(self, text: str) -> None:
        """Tell a terminal what goes on before anything can be counted; a log, which nobody watches, is not told."""
        if self._watched:
            # The cursor goes back to the beginning, so that whatever is written next takes the place of it.
            self._write(f"\r\x1b[2K{printable(text)}\r")
            self._drawn = True

    def say(self, text: str) -> None:
        """Write a line that stays, above the bar if there is one."""
        self._erase()
        self._write(f"{printable(text)}\n")
        self._shown_at = 0.0

    def finish(self) -> None:
        """Take the bar away; what was said stays."""
        self._erase()
        self._phase = None

    def _left(self, done: int, total: int, now: float) -> str:
        spent, made = now - self._since, done - self._first
        if spent < TRUSTED_AFTER or made <= 0 or done >= total:
            return ""
        return f"{time_text(spent / made * (total - done))} left"

    def _draw(self, phase: str, share: float, told: str, left: str) -> None:
        room = (window(self._stream) or 80) - 1  # the last cell would make some terminals begin a new line
        words = [printable(phase), told, left]
        cells = min(WIDEST_BAR, room - columns("  ".join(filter(None, words))) - 2)
        if cells >= 8:
            full = round(min(max(share, 0.0), 1.0) * cells)
            bar = self._tinted(self._full * full, "36") + self._tinted(self._empty * (cells - full), "2")
            line = "  ".join(filter(None, [words[0], bar, *words[1:]]))
        else:
            line = cut("  ".join(filter(None, words)), room, "")
        self._write(f"\r\x1b[2K{line}")
        self._drawn = True

    def _tinted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and text else text

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            return  # nobody reads it any more; the work itself goes on
