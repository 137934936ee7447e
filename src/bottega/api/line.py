"""Blocking work beside the event loop, one piece after the other for as long as none of them holds up the rest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

Told = TypeVar("Told")

TELL_EVERY = 0.005  # seconds after which what is done is told, though more is there to be done


class _Piece:
    """Something to be done, and who waits for it."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.result: Any = None
        self.error: BaseException | None = None

    def do(self) -> None:
        """Do it."""
        try:
            self.result = self.work()
        except BaseException as error:  # it is raised where it is waited for
            self.error = error

    def tell(self) -> None:
        """Have who waits go on."""
        if self.future.cancelled():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Line:
    """Where pieces of one sort wait to be done, for one event loop.

    Threads that all compute take Python's lock from each other at every call into SQLite, which costs more than small
    pieces themselves. So one thread does them in turn, and tells of several at once; another, up to `most`, comes to
    help where none was begun for `patience` seconds. With a patience of 0 there is one for each piece.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most, self._patience = most, patience
        self._pool = ThreadPoolExecutor(most)
        self._lock = threading.Lock()
        self._waiting: deque[_Piece] = deque()
        self._done: list[_Piece] = []  # and not told yet
        self._threads = 0  # that are at it
        self._begun = 0.0  # when a piece was begun last
        self._looks = False  # whether the loop will look after them

    async def do(self, work: Callable[[], Told]) -> Told:
        """The result of some work. Whoever is cancelled while it is done still waits for its end, and for no other."""
        loop = asyncio.get_running_loop()
        piece = _Piece(work, loop.create_future())
        self._add(piece, loop)
        try:
            result: Told = await piece.future
        except asyncio.CancelledError:
            await self._give_up(piece, loop)
            raise
        return result

    def _add(self, piece: _Piece, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._waiting.append(piece)
            helps = self._threads < self._most and (self._threads == 0 or self._patience == 0)
            self._threads += helps
        if helps:
            self._pool.submit(self._work, loop)
        elif not self._looks:
            self._looks = True
            loop.call_later(self._patience or TELL_EVERY, self._look, loop)

    async def _give_up(self, piece: _Piece, loop: asyncio.AbstractEventLoop) -> None:
        """Take a piece back that is not begun; else wait for it, as what it works with may be closed then."""
        with self._lock:
            if piece in self._waiting:
                self._waiting.remove(piece)
                return
            if not piece.future.cancelled():  # it came to its end, and the cancellation after it
                return
            piece.future = loop.create_future()
        while not piece.future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([piece.future])
        piece.future.exception()  # which nobody asks for any more

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell what is done before a piece that takes long, and have another thread do what waits behind it."""
        self._tell()
        with self._lock:
            is_held_up = time.monotonic() - self._begun >= self._patience
            helps = bool(self._waiting) and is_held_up and self._threads < self._most
            self._threads += helps
            self._looks = bool(self._waiting)
        if helps:
            self._pool.submit(self._work, loop)
        if self._looks:
            loop.call_later(self._patience or TELL_EVERY, self._look, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: do what waits until nothing does."""
        told = time.monotonic()
        while piece := self._next():
            piece.do()
            with self._lock:
                self._done.append(piece)
                is_last = not self._waiting
            if is_last or time.monotonic() - told > TELL_EVERY:
                with suppress(RuntimeError):  # the loop has been closed: nobody waits
                    loop.call_soon_threadsafe(self._tell)
                told = time.monotonic()

    def _next(self) -> _Piece | None:
        with self._lock:
            if not self._waiting:
                self._threads -= 1
                return None
            self._begun = time.monotonic()
            return self._waiting.popleft()

    def _tell(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for piece in done:
            piece.tell()
