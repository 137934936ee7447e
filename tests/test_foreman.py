"""The foreman gets every job done or failed, whatever becomes of workers, and never more than once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bottega.errors import FileError, SaveError
from bottega.events import Note
from bottega.formats.database import explained
from bottega.gallery.schema import SCHEMA
from bottega.jobs import foreman as foremen
from bottega.jobs.foreman import Foreman, Limits, Preview
from bottega.jobs.job import ENDED, MAKE, Job
from bottega.jobs.queue import Queue
from bottega.jobs.wire import identity, lives

WORKER = Path(__file__).with_name("odd_worker.py")
QUICK = Limits(silence=2.0, start=20.0, obey=0.3, leave=0.5, idle=0.2, watch=0.05, backoff=(0.0, 0.05))


class Shop:
    """A queue and a foreman over odd workers."""

    def __init__(self, folder: Path, limits: Limits = QUICK, **settings: Any) -> None:
        self.folder = folder
        self.queue = Queue(folder / "queue.sqlite")
        self.kept: list[str] = []
        self.keep: Callable[[Job], None] = lambda job: None
        self.foreman = Foreman(
            self.queue,
            self.command,
            on_made=self.on_made,
            folder=lambda job: folder / "out",
            settings=settings,
            logs=folder / "logs",
            limits=limits,
            environment=lambda lane: {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.foreman.start()

    def command(self, lane: str) -> list[str]:
        return [sys.executable, str(WORKER), str(self.folder / f"starts-{lane}")]

    def on_made(self, job: Job, told: Mapping[str, Any]) -> Note:
        self.keep(job)
        self.kept.append(job.id)
        return Note(told["event"]["path"])

    def put(self, how: str = "make", **request: Any) -> str:
        lane, owner = request.pop("lane", MAKE), request.pop("owner", "ann")
        return self.queue.submit("make", {"how": how, **request}, lane=lane, owner=owner, title=how).id

    def over(self, id: str, timeout: float = 120.0) -> Job:
        """The job once it has ended."""
        ended = threading.Event()
        end = self.foreman.subscribe(lambda told: ended.set() if self.queue.job(id).over else None)
        if not self.queue.job(id).over:
            assert ended.wait(timeout), self.queue.job(id)
        end()
        return self.queue.job(id)

    def until(self, kind: str, id: str) -> None:
        """Wait for an event of a job."""
        heard = threading.Event()

        def hear(told: Any) -> None:
            if not isinstance(told, Preview) and told.job == id and told.event["event"] == kind:
                heard.set()

        end = self.foreman.subscribe(hear)
        if kind not in [told.event["event"] for told in self.queue.events(job=id)]:
            assert heard.wait(120.0)
        end()

    @property
    def starts(self) -> list[int]:
        """The process numbers of all workers so far."""
        file = self.folder / f"starts-{MAKE}"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def outputs(self) -> dict[str, str]:
        """What was made, by name."""
        return {path.name: path.read_text() for path in sorted((self.folder / "out").glob("*"))}

    def close(self) -> None:
        self.foreman.stop(5.0)
        self.queue.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def test_jobs_are_done_by_one_worker_one_after_the_other(shop: Shop) -> None:
    ids = [shop.put(text=f"t{number}") for number in range(5)]
    assert {shop.over(id).state for id in ids} == {"done"}
    assert shop.kept == ids
    assert shop.outputs == {
        f"{id}-0.txt": f"t{number}" for number, id in sorted(enumerate(ids), key=lambda each: each[1])
    }
    assert len(shop.starts) == 1


@pytest.mark.parametrize(
    ("how", "why"),
    [("abort", "SIGABRT"), ("segfault", "SIGSEGV"), ("exit", "exit code 3"), ("babble", "no worker says")],
)
def test_a_worker_that_crashes_costs_its_job_an_attempt_and_nobody_else_anything(
    shop: Shop, how: str, why: str
) -> None:
    bad, good = shop.put(how), shop.put()
    once = shop.put(f"{how}-once")
    job = shop.over(bad)
    assert job.state == "failed" and job.error is not None
    assert job.error["error"] == "WorkerCrashed" and why in job.error["what"]
    assert shop.over(good).state == shop.over(once).state == "done"
    assert shop.queue.job(once).attempt == 2
    assert shop.kept == [good, once] or shop.kept == [once, good]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hang", "hang-deaf"])
def test_a_worker_that_hangs_is_ended_politely_then_not(tmp_path: Path, how: str) -> None:
    shop = Shop(tmp_path, Limits(silence=1.2, start=20.0, leave=0.3, watch=0.05, backoff=(0.0,)))
    id, after = shop.put(f"{how}-once"), shop.put()
    assert shop.over(id).state == "done"
    whys = [told.event["why"] for told in shop.queue.events(job=id) if told.event["event"] == "retried"]
    assert whys == ["it gave no sign of life for 1.2 seconds"]
    assert shop.over(after).state == "done"
    shop.close()


def test_a_worker_that_eats_memory_is_ended(tmp_path: Path) -> None:
    shop = Shop(tmp_path, Limits(memory=400 << 20, watch=0.02, start=20.0, backoff=(0.0,)))
    id, after = shop.put("eat"), shop.put()
    job = shop.over(id)
    assert job.state == "failed" and job.error is not None
    assert job.error["error"] == "OutOfMemory" and "more memory" in job.error["what"]
    assert shop.over(after).state == "done"
    shop.close()


def test_being_killed_from_outside_is_no_attempt(shop: Shop) -> None:
    id = shop.put(steps=1000, pause=0.01)
    for number in range(4):
        until(lambda number=number: len(shop.starts) > number and shop.queue.job(id).state == "running")
        os.kill(shop.starts[-1], signal.SIGKILL)
        until(lambda number=number: len(shop.starts) > number + 1)
    until(lambda: shop.queue.job(id).state == "running")
    assert shop.queue.job(id).attempt == 1
    shop.queue.cancel(id)
    assert shop.over(id).state == "cancelled"


def test_a_job_that_fails_says_why_and_the_next_goes_on(shop: Shop) -> None:
    bad, good = shop.put("fail"), shop.put()
    assert shop.over(bad).error == {"error": "Sad", "what": "it failed", "remedy": "cheer up"}
    assert shop.over(good).state == "done"
    assert len(shop.starts) == 1


def test_cancelling_takes_effect_at_once_and_the_worker_goes_on(shop: Shop) -> None:
    id, next = shop.put(steps=10_000, pause=0.01), shop.put()
    shop.until("step", id)
    began = time.monotonic()
    shop.queue.cancel(id)
    assert shop.over(id).state == "cancelled"
    assert time.monotonic() - began < 1.0
    assert shop.over(next).state == "done"
    assert len(shop.starts) == 1


def test_a_worker_that_does_not_stop_is_made_to(shop: Shop) -> None:
    id, next = shop.put("deaf"), shop.put()
    shop.until("step", id)
    began = time.monotonic()
    shop.queue.cancel(id)
    assert shop.over(id).state == "cancelled"
    assert time.monotonic() - began < 3.0
    assert shop.over(next).state == "done"
    assert len(shop.starts) == 2


def test_stopping_puts_back_what_runs_and_ends_the_workers(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    id = shop.put(steps=10_000, pause=0.01)
    shop.until("step", id)
    (pid,) = shop.starts
    began = time.monotonic()
    shop.foreman.stop(5.0)
    assert time.monotonic() - began < 2.0
    job = shop.queue.job(id)
    assert (job.state, job.attempt) == ("waiting", 0)
    assert not lives(identity(pid)) or identity(pid).endswith(":")
    shop.queue.close()


def test_a_worker_that_does_not_leave_is_killed_in_time(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    id = shop.put("deaf")
    shop.until("step", id)
    began = time.monotonic()
    shop.foreman.stop(1.0)
    assert time.monotonic() - began < 3.0
    job = shop.queue.job(id)
    assert (job.state, job.attempt) == ("waiting", 0)
    shop.queue.close()


def test_a_worker_that_can_not_be_told_anything_is_ended_with_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(tmp_path, home=object())
    until(lambda: len(shop.starts) == 1)
    # One that does not even hear that it is to leave.
    os.kill(shop.starts[0], signal.SIGSTOP)
    stopping = threading.Thread(target=shop.foreman.stop, args=(0.2,), daemon=True)
    stopping.start()
    stopping.join(60.0)
    assert not stopping.is_alive()
    assert sum("is killed" in said for said in caplog.messages) == 1
    assert not lives(identity(shop.starts[0]))
    shop.queue.close()


def test_a_new_server_takes_up_what_a_killed_one_left_and_ends_its_workers(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[str(WORKER.parent), *sys.path]!r}
from pathlib import Path
from test_foreman import Shop
shop = Shop(Path({str(tmp_path)!r}))
id = shop.put(steps=30, pause=0.05)
shop.until("step", id)
print(id, shop.starts[-1], flush=True)
sys.stdin.read()
"""
    server = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with server:
        id, pid = server.stdout.readline().split()
        who = identity(int(pid))
        server.kill()
    shop = Shop(tmp_path)
    assert not lives(who)
    job = shop.over(id)
    assert (job.state, job.attempt) == ("done", 1)
    assert list(shop.outputs) == [f"{id}-0.txt"]
    shop.close()


def test_a_worker_whose_server_is_gone_ends_by_itself(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(tmp_path / "starts")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with worker:
        assert worker.stdin is not None
        worker.stdin.write(b'{"do": "begin", "settings": {}}\n')
        worker.stdin.close()
        assert worker.wait(60) == 0


def test_workers_that_can_not_start_are_tried_again_more_and_more_seldom(tmp_path: Path) -> None:
    (tmp_path / f"starts-{MAKE}.crash").touch()
    shop = Shop(tmp_path, Limits(start=20.0, backoff=(0.0, 0.05, 0.1)))
    id = shop.put()
    until(lambda: len(shop.starts) >= 3)
    assert shop.queue.job(id).state == "waiting" and shop.queue.job(id).attempt == 0
    (tmp_path / f"starts-{MAKE}.crash").unlink()
    assert shop.over(id).state == "done"
    shop.close()


def test_what_can_not_be_kept_fails_the_job_and_nothing_else(shop: Shop) -> None:
    def full(job: Job) -> None:
        if job.title == "unlucky":
            raise SaveError("the disk is full", "free some space")

    shop.keep = full
    bad = shop.queue.submit("make", {"how": "make"}, lane=MAKE, owner="ann", title="unlucky").id
    good = shop.put()
    error = shop.over(bad).error
    assert error is not None and error["what"] == "the disk is full"
    assert shop.over(good).state == "done"


def test_a_gallery_that_somebody_else_writes_is_waited_for(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foremen, "RETRY_EVERY", 0.05)
    file, tried = tmp_path / "other.sqlite", []
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")

        def locked(job: Job) -> None:
            tried.append(job.id)
            if len(tried) == 4:
                other.execute("ROLLBACK")
            with closing(sqlite3.connect(file, timeout=0.0, isolation_level=None)) as own, explained(file, SCHEMA):
                own.execute("BEGIN IMMEDIATE")

        shop.keep = locked
        id, next = shop.put(), shop.put()
        assert shop.over(id).state == shop.over(next).state == "done"
    assert shop.kept == [id, next]
    assert tried == [id] * 4 + [next]
    assert [shop.queue.job(each).attempt for each in (id, next)] == [1, 1]
    assert "note" in [told.event["event"] for told in shop.queue.events(job=id)]


def test_a_queue_that_can_not_be_written_for_a_while_loses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foremen, "RETRY_EVERY", 0.05)
    finish, tried = shop.queue.finish, []

    def full(id: str, *more: Any, **said: Any) -> Job:
        tried.append(id)
        if len(tried) < 4:
            raise SaveError("the disk is full")
        return finish(id, *more, **said)

    monkeypatch.setattr(shop.queue, "finish", full)
    id, next = shop.put(), shop.put()
    assert shop.over(id).state == shop.over(next).state == "done"
    assert shop.kept == [id, next]


def test_a_job_that_can_not_be_made_ready_fails_and_the_next_goes_on(shop: Shop) -> None:
    def ready(job: Job) -> Job:
        if job.title == "bad":
            raise FileError("init.png", "is gone")
        return job

    shop.foreman.ready = ready
    bad = shop.queue.submit("make", {}, lane=MAKE, owner="ann", title="bad").id
    good = shop.put()
    assert shop.over(bad).state == "failed"
    assert shop.over(good).state == "done"


def test_alike_jobs_go_to_a_worker_together_and_cancelling_one_puts_the_others_back(shop: Shop) -> None:
    shop.foreman.together = lambda lane: 3
    shop.queue.pause_all()
    ids = [
        shop.queue.submit(
            "make", {"steps": 1000, "pause": 0.005}, lane=MAKE, owner="ann", title=str(number), alike="x"
        ).id
        for number in range(3)
    ]
    shop.queue.resume_all()
    shop.until("step", ids[0])
    assert {shop.queue.job(id).state for id in ids} == {"running"}
    shop.queue.cancel(ids[0])
    assert shop.over(ids[0]).state == "cancelled"
    for id in ids[1:]:
        shop.queue.cancel(id)
        assert shop.over(id).state == "cancelled"
    assert shop.kept == []


def test_the_worker_of_the_library_comes_when_needed_and_goes_when_idle(shop: Shop) -> None:
    def state() -> str:
        return str(shop.foreman.devices()[1]["state"])

    assert state() == "off"
    id = shop.put(lane="library")
    assert shop.over(id).state == "done"
    until(lambda: state() == "off")
    assert shop.over(shop.put(lane="library")).state == "done"


def test_models_are_let_go_of_at_once_or_after_the_work(shop: Shop) -> None:
    until(lambda: shop.foreman.devices()[0]["state"] == "idle")
    shop.foreman.state(MAKE)["models"] = ["one"]
    shop.foreman.unload(60.0)
    assert shop.foreman.state(MAKE)["models"] == []
    id = shop.put(steps=1000, pause=0.01)
    shop.until("step", id)
    shop.foreman.state(MAKE)["models"] = ["one"]
    shop.foreman.unload(60.0)  # does not wait for what has just begun
    assert shop.foreman.state(MAKE)["models"] == ["one"] and shop.queue.job(id).state == "running"
    shop.queue.cancel(id)
    until(lambda: shop.foreman.state(MAKE)["models"] == [])
    assert shop.over(shop.put()).state == "done"


def test_a_worker_that_dies_has_let_go_of_its_models(shop: Shop) -> None:
    until(lambda: shop.foreman.devices()[0]["state"] == "idle")
    (shop.folder / "starts-make.dies").touch()
    shop.foreman.state(MAKE)["models"] = ["one"]
    shop.foreman.unload(60.0)
    assert "models" not in shop.foreman.state(MAKE)
    assert shop.over(shop.put()).state == "done"


def test_every_device_has_a_worker_of_its_own(shop: Shop) -> None:
    until(lambda: shop.foreman.devices()[0]["state"] == "idle")
    shop.foreman.also_on("cpu:1")
    shop.foreman.also_on("cpu:1")
    first, second = shop.put(steps=1000, pause=0.01), shop.put(steps=1000, pause=0.01)
    until(lambda: {shop.queue.job(id).state for id in (first, second)} == {"running"})
    assert [each["jobs"] for each in shop.foreman.devices()] == [[first], [], [second]]
    for id in (first, second):
        shop.queue.cancel(id)
        assert shop.over(id).state == "cancelled"


def until(true: Callable[[], bool], timeout: float = 120.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


@pytest.mark.slow
def test_every_job_ends_however_often_workers_are_killed(shop: Shop) -> None:
    ids = [shop.put(owner=f"o{number % 4}", steps=5, pause=0.01, text=f"t{number}") for number in range(30)]
    seen = 0
    while not all(shop.queue.job(id).state in ENDED for id in ids):
        if len(shop.starts) > seen and len(shop.starts) < 15:
            seen = len(shop.starts)
            until(
                lambda: (
                    any(shop.queue.job(id).state == "running" for id in ids)
                    or all(shop.queue.job(id).over for id in ids)
                )
            )
            os.kill(shop.starts[-1], signal.SIGKILL)
        threading.Event().wait(0.005)
    assert {shop.queue.job(id).state for id in ids} == {"done"}
    assert shop.outputs == {f"{id}-0.txt": f"t{number}" for number, id in enumerate(ids)}
    for id in ids:
        assert [told.event["event"] for told in shop.queue.events(job=id)].count("done") == 1


@pytest.mark.slow
def test_many_jobs_leave_no_more_behind_than_a_few(shop: Shop) -> None:
    def held() -> tuple[int, int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), threading.active_count(), len(os.listdir("/proc/self/fd"))

    shop.queue.keep = 100
    for number in range(1200):
        id = shop.put(steps=2)
        if number % 50 == 49:
            assert shop.over(id).state == "done"
        if number == 199:
            memory, threads, files = held()
    later, threads_later, files_later = held()
    assert later - memory < 3 << 20
    assert threads_later <= threads
    assert files_later <= files + 8  # a few are opened at first need; a leak would be hundreds
    assert shop.queue.counts()["done"] <= 103
    assert len(shop.starts) == 1
