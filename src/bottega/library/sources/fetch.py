"""Several downloads at a time: threads fetch, the caller's own thread looks at what arrived and puts it on a shelf."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType

from bottega.errors import BottegaError, Interrupted
from bottega.library.sources.client import Client
from bottega.library.sources.download import MIB, Fetched, download, forget_state
from bottega.library.sources.exclusive import exclusive
from bottega.library.sources.install import (
    Installed,
    Shelf,
    Target,
    already_here,
    complete_beside,
    install_file,
    install_folder,
)
from bottega.library.sources.names import safe_name
from bottega.library.sources.offers import Offer, RemoteFile
from bottega.settings import Settings

STAGING = ".downloads"  # in the root of a shelf: hidden, and on the same disk
LEAVE_WITHIN = 2.0  # seconds that an interrupt waits for the threads
_POLL = 0.1

Told = Callable[[str, int, int], None]  # (what, bytes done, bytes in all)


class Stop:
    """Tells threads to end, also while they wait."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise Interrupted once the user wants to stop."""
        if self.asked:
            raise Interrupted("stopped")

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the user wants to."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _POLL))


@dataclass
class _Job:
    """One offer on its way: its place among those asked for, what of it has arrived, where it is gathered, and what is
    held until it is settled."""

    index: int
    offer: Offer
    place: Path
    held: ExitStack
    missing: int
    fetched: list[Fetched] = field(default_factory=list)
    error: BottegaError | None = None


@dataclass
class _Task:
    """One file of a job, for a thread."""

    job: _Job
    file: RemoteFile
    part: Path
    done: int = 0
    size: int | None = None
    result: Fetched | Exception | None = None


def get(
    client: Client,
    stop: Stop,
    settings: Settings,
    shelf: Shelf,
    offers: Sequence[Offer],
    target: Target,
    told: Told = lambda what, done, total: None,
) -> list[Installed | BottegaError]:
    """Fetch the offers and put them on the shelf; for each, in that order, what became of it.

    One that fails does not keep the others. Raises Interrupted on Ctrl-C: what has arrived is gone on with by the next
    call for the same.
    """
    results: dict[int, Installed | BottegaError] = {}
    jobs: list[_Job] = []
    tasks: list[_Task] = []
    seen: dict[str, int] = {}
    try:
        for index, offer in enumerate(offers):
            if offer.short_key in seen:
                continue
            seen[offer.short_key] = index
            try:
                if here := already_here(shelf, offer, client, target):
                    complete_beside(client, here, offer, shelf.root)
                    results[index] = Installed(offer, here, False, offer.notes)
                    continue
                job = _begin(index, offer, target.folder or shelf.root)
                jobs.append(job)
                tasks += _tasks(job)
            except BottegaError as error:
                results[index] = error
        for job in _arrivals(client, stop, settings, tasks, told):
            try:
                results[job.index] = _settled(client, shelf, job, target)
            except BottegaError as error:
                results[job.index] = error
            finally:
                job.held.close()
    except KeyboardInterrupt:
        stop.asked = True
        raise Interrupted("stopped; what has arrived is kept", "run the same command again to go on") from None
    finally:
        for job in jobs:
            job.held.close()
            with suppress(OSError):  # something is still in it
                job.place.parent.rmdir()
    return [results[seen[offer.short_key]] for offer in offers]


def _begin(index: int, offer: Offer, root: Path) -> _Job:
    """Make room for a job, which nobody else may work at meanwhile."""
    staging = root / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    name = safe_name(offer.title.rpartition("/")[2] if offer.is_folder else PurePosixPath(offer.files[0].path).stem, "")
    place = staging / f"{name[:80]}.{offer.short_key}{'' if offer.is_folder else '.part'}"
    held = ExitStack()
    held.enter_context(exclusive(place.with_name(f"{place.name}.lock"), offer.title))
    return _Job(index, offer, place, held, len(offer.files))


def _tasks(job: _Job) -> list[_Task]:
    if not job.offer.is_folder:
        return [_Task(job, job.offer.files[0], job.place, size=job.offer.files[0].size)]
    tasks = []
    for file in job.offer.files:
        path = job.place / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        if path.exists() and not part.exists():  # all had arrived, but were not put on the shelf
            path.rename(part)
        tasks.append(_Task(job, file, part, size=file.size))
    return tasks


class _Threads:
    """Threads that fetch until there is nothing left to fetch, or until the user stops them.

    Not concurrent.futures: its locks are taken in Python, and a Ctrl-C at the wrong moment leaves one locked for ever.
    """

    def __init__(self, client: Client, stop: Stop, settings: Settings, tasks: Sequence[_Task]) -> None:
        self._client, self._stop, self._keep_free = client, stop, settings.keep_free_mb * MIB
        self._todo: SimpleQueue[_Task] = SimpleQueue()
        self._done: SimpleQueue[_Task] = SimpleQueue()
        for task in tasks:
            self._todo.put(task)
        count = min(settings.parallel_downloads, len(tasks))
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(count)]

    def __enter__(self) -> _Threads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.asked = self._stop.asked or error is not None
        end = time.monotonic() + LEAVE_WITHIN
        for thread in self._threads:
            # One that waits for a silent server is left behind; what it has written is whole at any moment.
            thread.join(max(0.0, end - time.monotonic()) if self._stop.asked else None)

    def next(self) -> _Task | None:
        """The next file that arrived or failed; None if there is none within a moment."""
        try:
            return self._done.get(timeout=_POLL)
        except Empty:
            return None

    def _work(self) -> None:
        while True:
            try:
                task = self._todo.get_nowait()
            except Empty:
                return
            try:
                task.result = download(self._client, task.file, task.part, self._keep_free, partial(self._told, task))
            except Exception as error:  # handed over to the thread that waits for the result
                task.result = error
            self._done.put(task)

    def _told(self, task: _Task, done: int, size: int | None) -> None:
        self._stop.check()
        if task.job.error:
            raise task.job.error  # another file of the same folder failed: this one can wait
        task.done = done
        task.size = size if size is not None else task.size


def _arrivals(client: Client, stop: Stop, settings: Settings, tasks: Sequence[_Task], told: Told) -> Iterator[_Job]:
    """The jobs, each when all of its files have arrived or one of them has failed for good."""
    with _Threads(client, stop, settings, tasks) as threads:
        waiting = len(tasks)
        while waiting:
            task = threads.next()
            told(*_progress(tasks))
            if task is None:
                continue
            waiting -= 1
            job = task.job
            job.missing -= 1
            if isinstance(task.result, Fetched):
                job.fetched.append(task.result)
            elif not isinstance(task.result, BottegaError):
                assert task.result is not None
                raise task.result
            elif job.error is None:
                job.error = task.result
            if job.missing == 0:
                yield job


def _progress(tasks: Sequence[_Task]) -> tuple[str, int, int]:
    titles = {id(task.job): task.job.offer.title for task in tasks}
    what = next(iter(titles.values())) if len(titles) == 1 else f"{len(titles)} models"
    done = sum(task.done for task in tasks)
    return what, done, sum(max(task.size or 0, task.done) for task in tasks)


def _settled(client: Client, shelf: Shelf, job: _Job, target: Target) -> Installed:
    """Put what has arrived of a job on the shelf; raises what kept it from arriving."""
    if job.error:
        raise job.error
    if not job.offer.is_folder:
        return install_file(client, shelf, job.offer, job.fetched[0], target)
    parts = [job.place / f"{file.path}.part" for file in job.offer.files]
    for part in parts:
        part.rename(part.with_suffix(""))
    for part in parts:
        forget_state(part)
    hashes = {arrived.path.with_suffix("").relative_to(job.place).as_posix(): arrived.sha256 for arrived in job.fetched}
    return install_folder(client, shelf, job.offer, job.place, target, hashes)
