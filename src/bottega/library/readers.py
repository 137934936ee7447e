"""Read many headers at once: in threads of this process, or in processes of their own that a file may kill."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO

from bottega.library.disk import Stamp
from bottega.library.entry import Row, row_of
from bottega.library.reading import Job, read, refused, signature
from bottega.spec import Recogniser

THREADS = 8
FEW = 64  # jobs for which processes would take longer to start than to work
PROCESSES = 8  # at most; no disk feeds more
PATIENCE = 30.0  # seconds for one file
MEMORY = 1 << 30  # bytes that a reader may hold, mapped files not counted
AHEAD = 2  # jobs given to a process at once: the next is there when one is done, and the pipe never fills


class Readers:
    """Reads jobs until there are none left, or until nobody wants them any more.

    With the command of a process that calls `serve` they are read in such processes, as many as there are processors,
    unless they are few. A file that kills its process twice is recorded with the reason, and so is one that takes
    longer than `patience` seconds. Where no such process can be had, they are read in threads here.

    Not concurrent.futures: its locks are taken in Python, and a Ctrl-C at the wrong moment leaves one locked for ever.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        recognisers: Sequence[Recogniser],
        command: Sequence[str] = (),
        patience: float = PATIENCE,
    ) -> None:
        self._recognisers = recognisers
        self._patience = patience
        self._todo = deque(jobs)
        self._results: SimpleQueue[Row] = SimpleQueue()
        self._command = tuple(command) if len(jobs) > FEW else ()
        workers = min(PROCESSES, processors()) if self._command else THREADS
        self._lanes = [_Lane(self, self._command) for _ in range(min(workers, len(jobs)))]
        self.wanted = True

    def __enter__(self) -> Readers:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wanted = False
        self._todo.clear()
        for lane in self._lanes:
            lane.stop()

    def next(self) -> Row:
        """The next model that was read, as a row of the catalog, in any order; called once for each job."""
        while True:
            try:
                return self._results.get(timeout=min(1.0, self._patience / 4))
            except Empty:
                for lane in self._lanes:
                    lane.hurry(self._patience)

    def take(self) -> Job | None:
        """A job that nobody works at yet."""
        try:
            return self._todo.popleft()
        except IndexError:
            return None

    def give(self, row: Row) -> None:
        """Hand over what was read."""
        self._results.put(row)

    def read(self, job: Job) -> None:
        """Read it here."""
        self.give(row_of(read(job, self._recognisers)))

    def refuse(self, job: Job, reason: str, *, again: bool) -> None:
        """Record that it can't be read; `again` if the next scan may try."""
        self.give(row_of(refused(job, reason, "" if again else signature(self._recognisers))))

    def expected(self) -> str:
        """How a process must call itself to be of use here."""
        return signature(self._recognisers)


class _Lane:
    """One of several that work side by side: a thread, and the process that it feeds if there is one."""

    def __init__(self, readers: Readers, command: Sequence[str]) -> None:
        self._readers = readers
        self._command = command
        self._process: _Process | None = None
        self._thread = Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        while self._thread.is_alive():
            if process := self._process:
                process.kill()
            self._thread.join(0.05)

    def hurry(self, patience: float) -> None:
        """End the process if it takes too long over its file."""
        if (process := self._process) and process.waits_for() > patience:
            process.late = True
            process.kill()

    def _work(self) -> None:
        flight: deque[Job] = deque()
        if self._command:
            self._feed(flight)
        while self._readers.wanted and (job := flight.popleft() if flight else self._readers.take()):
            self._readers.read(job)

    def _feed(self, flight: deque[Job]) -> None:
        """Have a process read, and another one where that dies; what is left in `flight` has found no reader."""
        blamed: Job | None = None
        while self._readers.wanted and (process := self._started()):
            while len(flight) < AHEAD and (job := self._readers.take()):
                flight.append(job)
            for job in flight:
                process.ask(job)
            while flight and (row := process.answer()) is not None:
                self._readers.give(row)
                flight.popleft()
                if job := self._readers.take():
                    flight.append(job)
                    process.ask(job)
            end = process.end()
            if not flight or not self._readers.wanted:
                return
            if process.late:
                self._readers.refuse(
                    flight.popleft(), "reading it takes too long (half a minute is allowed)", again=True
                )
            elif blamed is flight[0]:
                self._readers.refuse(flight.popleft(), f"it kills whatever reads it ({end})", again=False)
            else:
                blamed = flight[0]  # perhaps it was only the next one when the system took the process away

    def _started(self) -> _Process | None:
        try:
            process = self._process = _Process(self._command)
        except OSError:
            return None
        if process.introduces_itself() == self._readers.expected():
            return process
        process.kill()
        process.end()
        return None


class _Process:
    """A process that answers jobs with rows, a line of JSON each."""

    def __init__(self, command: Sequence[str]) -> None:
        self.late = False
        self._since: float | None = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for this process, which ends the others.
            start_new_session=True,
        )

    def introduces_itself(self) -> str | None:
        """What it says first: who it is."""
        line = self._line()
        return line if isinstance(line, str) else None

    def ask(self, job: Job) -> None:
        """Give it a job; it may have died, which its answer will tell."""
        line = [str(job.path), str(job.shelf) if job.shelf else None, *job.stamp, job.called, job.beside]
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(f"{json.dumps(line)}\n".encode())
            stdin.flush()
        except OSError:
            return

    def answer(self) -> Row | None:
        """Its answer to the oldest job that it has not answered yet, or None if it died over it."""
        line = self._line()
        return line if isinstance(line, list) else None

    def waits_for(self) -> float:
        """For how many seconds an answer has been waited for."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self) -> str:
        """Let it end, and tell how it ended."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:
                continue  # what was still to be written finds no reader
        code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def _line(self) -> object:
        stdout = self._process.stdout
        assert stdout is not None
        self._since = time.monotonic()
        try:
            return json.loads(stdout.readline())
        except (OSError, ValueError):  # nothing, or half a line
            return None
        finally:
            self._since = None


def serve(recognisers: Sequence[Recogniser]) -> None:
    """Read what standard input asks for and answer on standard output, until there is no more: the other end.

    A file can make this process die, and so it has limits: of memory, and of processor time for each file.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else is printed is no answer
    _tell(answers, signature(recognisers))
    _limit_memory()
    # Headers are many small objects without cycles: looking for some among them takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(200_000)
    for line in sys.stdin.buffer:
        path, shelf, size, mtime_ns, inode, called, beside = json.loads(line)
        job = Job(Path(path), Path(shelf) if shelf else None, Stamp(size, mtime_ns, inode), called, beside)
        _limit_time()
        _tell(answers, row_of(read(job, recognisers)))


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tell(answers: IO[str], what: object) -> None:
    answers.write(f"{json.dumps(what)}\n")
    answers.flush()


def _limit_memory() -> None:
    """Bound what this process can hold: not its address space, in which a file of any size may be mapped."""
    try:
        import resource

        _lower(resource.RLIMIT_DATA, MEMORY)
        _lower(resource.RLIMIT_CORE, 0)
    except (ImportError, ValueError, OSError):  # on Windows; or a system that knows no such limits
        return


def _limit_time() -> None:
    """Bound the processor time until the next call: the system ends a process that goes beyond."""
    try:
        import resource

        _lower(resource.RLIMIT_CPU, int(time.process_time() + PATIENCE) + 1)
    except (ImportError, ValueError, OSError):
        return


def _lower(limit: int, value: int) -> None:
    import resource

    _, highest = resource.getrlimit(limit)
    resource.setrlimit(limit, (value if highest == resource.RLIM_INFINITY else min(value, highest), highest))


def _environment() -> Mapping[str, str]:
    """Ours, with the folder of this package where Python finds it."""
    places = [str(Path(__file__).parents[2]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}
