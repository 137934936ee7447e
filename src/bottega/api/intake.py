"""Takes recipes in for all doors: what clients ask for at the same time is put into the queue with one write."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Unpack

from bottega.jobs.job import Job
from bottega.recipe import Recipe
from bottega.workshop import Wanted, Wishes, Workshop

MOST = 8  # jobs that are written down with one write
SLOW = 0.1  # seconds after which nobody is kept waiting any more by a model that has to be hashed
THREADS = 4


class _Asked(NamedTuple):
    prepare: Callable[[], Wanted]
    told: asyncio.Future[Job]


_Answer = tuple["asyncio.Future[Job]", Job | BaseException]


class Intake:
    """One for a server, used in its event loop only.

    A write to the disk takes longer than all else about a job, and threads that wait for each other take the time of
    those that work: so there is one thread, and further ones only where it is kept by a model that has to be hashed.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._coming: deque[_Asked] = deque()
        self._prepared: deque[tuple[_Asked, Wanted]] = deque()
        self._turns: SimpleQueue[tuple[asyncio.AbstractEventLoop, bool] | None] = SimpleQueue()
        self._at_work = self._threads = 0
        self._since: dict[int, float] = {}  # when the threads that prepare something began to
        self._looks = False  # whether a look at who waits is due

    def close(self) -> None:
        """Have the threads end once they are done."""
        for _ in range(self._threads):
            self._turns.put(None)

    async def submit(self, draft: Recipe, **asked: Unpack[Wishes]) -> Job:
        """The job of a draft, once it is on disk; raises what `Workshop.submit` raises."""
        return await self.put(partial(self._workshop.prepare, draft, **asked))

    async def put(self, prepare: Callable[[], Wanted]) -> Job:
        """The job of what this prepares, once it is on disk; raises what it raises, and what `Queue.submit` does.

        Whoever gives up waiting has the job made nevertheless.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(prepare, loop.create_future())
        self._coming.append(asked)
        if not self._at_work:
            self._at_work = 1
            loop.call_soon(self._begin, loop)  # after all that came in the same moment
        else:
            self._help(loop)
        return await asked.told

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._threads < self._at_work:
            self._threads += 1
            # They stay, as each has the catalog open, and the process may end without them: they lose nothing.
            threading.Thread(target=self._work, name="intake", daemon=True).start()
        self._turns.put((loop, self._at_work > THREADS))
        if not self._looks:
            self._look_later(loop)

    def _help(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have another thread help those whom slow ones keep waiting; beyond THREADS it only puts in what is ready."""
        slow = sum(time.monotonic() - since > SLOW for since in [*self._since.values()])
        if slow == self._at_work and (self._prepared if slow == THREADS else self._coming or self._prepared):
            self._at_work += 1
            self._begin(loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looks = False
        if self._at_work:
            self._help(loop)
            self._look_later(loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looks = True
        loop.call_later(SLOW, self._look, loop)

    def _tell(self, answers: Sequence[_Answer], over: bool, loop: asyncio.AbstractEventLoop) -> None:
        """Give answers to whoever asked, from a thread that has nothing more to do if it is `over`."""
        for told, answer in answers:
            if told.done():  # whoever asked has gone
                continue
            if isinstance(answer, Job):
                told.set_result(answer)
            else:
                told.set_exception(_bearable(answer))
        if over:
            self._at_work -= 1
            if self._coming and not self._at_work:  # it came when the thread had just looked
                self._at_work = 1
                self._begin(loop)

    # --- in a thread

    def _work(self) -> None:
        while (turn := self._turns.get()) is not None:
            loop, only_puts = turn
            over = False
            while not over:
                if not only_puts:
                    self._prepare(loop)
                answers = self._put()
                over = only_puts or not (self._coming or self._prepared)
                self._later(loop, answers, over)

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        me = threading.get_ident()
        while len(self._prepared) < MOST and (asked := _next(self._coming)):
            self._since[me] = time.monotonic()
            try:
                self._prepared.append((asked, asked.prepare()))
            except BaseException as error:  # whatever it is, whoever asked is told, and the others are served
                self._later(loop, [(asked.told, error)], False)
            finally:
                del self._since[me]

    def _put(self) -> list[_Answer]:
        """Put what is prepared, by whichever thread, into the queue."""
        ready = list(iter(partial(_next, self._prepared), None))
        if not ready:
            return []
        answers: Sequence[Job | BaseException]
        try:
            answers = self._workshop.put([wanted for _, wanted in ready])
        except BaseException as error:  # nothing of it is on disk
            answers = [error] * len(ready)
        return [(asked.told, answer) for (asked, _), answer in zip(ready, answers, strict=True)]

    def _later(self, loop: asyncio.AbstractEventLoop, answers: Sequence[_Answer], over: bool) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended, and nobody waits any more
            loop.call_soon_threadsafe(self._tell, answers, over, loop)


def _bearable(error: BaseException) -> Exception:
    """The error as a future can bear it: what ends iterations and processes would end those of whoever waits."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    other = RuntimeError(f"{type(error).__name__}: {error}")
    other.__cause__ = error
    return other


def _next(line: deque[Any]) -> Any:
    """The first of a line that several threads take from; None if it is empty."""
    try:
        return line.popleft()
    except IndexError:
        return None
