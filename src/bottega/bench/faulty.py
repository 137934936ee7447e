"""A server whose workers do what nobody hopes for, when a prompt asks for it: `python -m bottega.bench.faulty serve`.

Nothing else starts such workers; what `bottega serve` starts never does any of this.
"""

from __future__ import annotations

import errno
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bottega.workshop import Workshop

_REFUSED = {"read-only": errno.EROFS, "forbidden": errno.EACCES}  # folders, to the superuser too
FAULTS = ("abort", "segfault", "exit", "hang", "eat", "full", *_REFUSED)
PROMPT = "please "  # before the fault that a prompt asks for
EATEN = 600 << 20  # bytes that a worker may take here
NO_ROOM, ROOM = signal.SIGUSR1, signal.SIGUSR2  # to the server: its queue finds its disk full, or no longer


def serve() -> int:
    """`bottega serve` with faulty workers, and with little patience."""
    from bottega import workshop
    from bottega.jobs.foreman import Limits

    limits = Limits(silence=3.0, memory=EATEN, watch=0.1, leave=1.0)
    honest = workshop.Workshop

    def faulty(*given: Any, **named: Any) -> Workshop:
        shop = honest(*given, **named, command=_command, limits=limits)
        for number, pages in ((NO_ROOM, 1), (ROOM, 1 << 30)):
            signal.signal(number, lambda *_, pages=pages: _allow(shop, pages))
        return shop

    workshop.Workshop = faulty  # type: ignore[misc, assignment]
    sys.argv = ["bottega", "serve", "--port", "0"]
    runpy.run_module("bottega", run_name="__main__")
    return 0


def _allow(shop: Workshop, pages: int) -> None:
    """Let the queue grow to so many pages, and to what it has: beyond that SQLite finds the disk full."""

    def allow() -> None:
        with shop.queue._lock:
            shop.queue._write.execute(f"PRAGMA max_page_count = {pages}")

    threading.Thread(target=allow).start()  # a signal may come while this thread itself writes


def _command(lane: str) -> list[str]:
    return [sys.executable, "-m", "bottega.bench.faulty", "worker", lane]


def worker(lane: str) -> int:
    """A worker that commits the fault that a prompt asks for, and else works."""
    from bottega import worker as workers

    class Faulty(workers.Maker):
        """Makes outputs, or trouble."""

        def work(self, jobs: Sequence[Mapping[str, Any]], stop: threading.Event) -> None:
            """Do as asked."""
            prompt = str(jobs[0]["request"].get("recipe", {}).get("prompt", ""))
            fault = prompt.removeprefix(PROMPT) if prompt.startswith(PROMPT) else ""
            if fault == "full":
                _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
                try:
                    super().work(jobs, stop)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
                return
            if fault in _REFUSED:
                with _refusing(_REFUSED[fault]):
                    super().work(jobs, stop)
                return
            if fault:
                self._life.begin()
                self._life.went_on("sample")
                _commit(fault)
            super().work(jobs, stop)

    workers.Maker = Faulty  # type: ignore[misc]
    return workers.main(lane)


@contextmanager
def _refusing(code: int) -> Iterator[None]:
    """While the block lasts, no file is opened to be written, for this reason."""
    honest = os.open

    def refuse(path: Any, flags: int, *given: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), path)
        return honest(path, flags, *given, **named)

    os.open = refuse
    try:
        yield
    finally:
        os.open = honest


def _commit(fault: str) -> None:
    if fault == "abort":
        os.abort()
    elif fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "exit":
        os._exit(3)
    elif fault == "hang":
        threading.Event().wait()
    elif fault == "eat":
        held = []
        while True:
            held.append(bytearray(os.urandom(1 << 16) * 256))


if __name__ == "__main__":
    what, *lane = sys.argv[1:]
    code = serve() if what == "serve" else worker(lane[0])
    sys.stdout.flush()
    os._exit(code)
