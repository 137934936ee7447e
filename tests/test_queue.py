"""The queue keeps every job that it took, in order and fairly, through crashes of whoever works with it."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bottega.events import Done, Failed, Made, Note, Result, Started, Step
from bottega.jobs.job import MAKE, KeyReused, QueueError, QueueFull, UnknownJob, WrongState
from bottega.jobs.lock import HomeBusy, HomeLock
from bottega.jobs.queue import Queue

DONE = Done("d", 1, 0.5)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "queue.sqlite")
    yield queue
    queue.close()


def put(queue: Queue, title: str = "a", owner: str = "ann", **more: Any) -> str:
    return queue.submit("make", {"recipe": {"prompt": title}}, lane=MAKE, owner=owner, title=title, **more).id


def take(queue: Queue, most: int = 1) -> list[str]:
    return [job.id for job in queue.lease(MAKE, "w", most=most)]


def kinds(queue: Queue, id: str) -> list[str]:
    return [told.event["event"] for told in queue.events(job=id)]


# --- the life of a job -----------------------------------------------------------------------------------------------


def test_a_job_goes_through_its_states_and_its_events_tell_it(queue: Queue) -> None:
    id = put(queue)
    assert queue.job(id).state == "waiting"
    (job,) = queue.lease(MAKE, "worker")
    assert (job.id, job.state, job.attempt) == (id, "running", 1)
    queue.record(id, [Started("d", 1), Step("sample", 1, 2), Made(0, "", "s", "d", 1, 8, 8, output="o")])
    queue.finish(id, DONE)
    assert queue.job(id).state == "done"
    assert kinds(queue, id) == ["queued", "started", "made", "done"]
    numbers = [told.number for told in queue.events()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("seed", range(5))
def test_how_many_wait_is_known_whatever_becomes_of_them(queue: Queue, seed: int) -> None:
    draw = random.Random(seed)

    def any_of(*states: str) -> str:
        return draw.choice([job.id for job in queue.jobs(states=states, limit=1000)])

    def broken_off() -> None:
        with queue.at_once():
            draw.choice((put, take))(queue)
            raise KeyError("in the middle")

    def in_part() -> None:
        def fails() -> None:
            draw.choice((put, take))(queue)
            raise KeyError("in the middle")

        queue.together([lambda: put(queue), fails, lambda: take(queue)])

    does: list[Callable[[], object]] = [
        lambda: put(queue, owner=draw.choice(("ann", "bob"))),
        lambda: put(queue, after=[any_of("waiting", "running", "done")]),
        lambda: take(queue, most=2),
        lambda: queue.record(any_of("running"), [Started("d", 1)]),
        lambda: queue.record(any_of("failed", "cancelled"), [Note("a word that comes late")]),
        lambda: queue.finish(any_of("running"), DONE),
        lambda: queue.fail(any_of("running", "waiting"), Failed("E", "it failed", "")),
        lambda: queue.cancel(any_of("waiting", "paused", "running")),
        lambda: queue.cancelled(any_of("running")),
        lambda: queue.pause(any_of("waiting")),
        lambda: queue.resume(any_of("paused")),
        lambda: queue.retry(any_of("failed", "cancelled")),
        lambda: queue.requeue(any_of("running"), "the worker crashed", counts=draw.random() < 0.5),
        broken_off,
        in_part,
    ]
    for _ in range(150):
        with suppress(IndexError, KeyError, WrongState):  # where there is no such job, or it is broken off
            draw.choice(does)()
        counts = queue.counts()
        told = queue.events(job=put(queue))[0].event
        assert told["ahead"] == counts.get("waiting", 0) + counts.get("paused", 0)
        if counts.get("waiting", 0) > 20:
            take(queue, most=1)


def test_what_fails_takes_nothing_with_it_of_what_is_put_in_together(queue: Queue) -> None:
    heard: list[str] = []
    queue.listen(lambda told: heard.append(told.job))
    commits: list[str] = []
    queue._write.set_trace_callback(lambda statement: commits.append(statement) if "COMMIT" in statement else None)

    def fails() -> str:
        put(queue, "undone")
        assert heard == []  # not before it is on disk
        raise WrongState("it can't be done", "")

    first, error, second = queue.together([lambda: put(queue), fails, lambda: put(queue, after=[])])
    assert isinstance(error, WrongState)
    assert [job.id for job in queue.jobs(states=["waiting"])] == [first, second] == heard
    assert {told.job for told in queue.events()} == {first, second}
    assert len(commits) == 1


def test_where_the_disk_is_full_nothing_is_put_in(queue: Queue) -> None:
    put(queue)
    (pages,) = queue._write.execute("PRAGMA page_count").fetchone()
    queue._write.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(QueueError, match="full"):
        queue.together([lambda: put(queue), lambda: put(queue, "x" * 100_000), lambda: put(queue)])
    assert len(queue.jobs()) == 1
    queue._write.execute("PRAGMA max_page_count = 1000000")
    assert queue.events(job=put(queue))[0].event["ahead"] == 1


def test_a_job_that_was_cancelled_before_its_turn_can_wait_for_the_same_one_again(queue: Queue) -> None:
    first = put(queue)
    second = put(queue, after=[first])
    queue.cancel(second)
    assert queue.retry(second).state == "waiting"
    assert take(queue) == [first] and take(queue) == []
    queue.finish(first, DONE)
    assert take(queue) == [second]


def test_what_is_submitted_and_told_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from bottega.events import Made, Started
from bottega.jobs.queue import Queue
queue = Queue(Path(sys.argv[1]))
for number in range(20):
    job = queue.submit("make", {"n": number}, lane="make", owner="ann", title=str(number))
    print(job.id, flush=True)
(job,) = queue.lease("make", "1:1")
queue.record(job.id, [Started("d", 1), Made(0, "", "s", "d", 1, 8, 8, output="o")])
print("told", flush=True)
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "queue.sqlite"
    ran = subprocess.run([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)
    assert ran.returncode == -signal.SIGKILL
    *ids, told = ran.stdout.split()
    assert told == "told"
    queue = Queue(path)
    assert [job.id for job in queue.jobs(states=("waiting", "running"))] == ids
    assert queue.job(ids[0]).state == "running"
    assert [job.id for job, _ in queue.running()] == ids[:1]
    assert kinds(queue, ids[0]) == ["queued", "started", "made"]
    queue.close()


def test_a_job_that_waits_for_another_outlives_a_kill_and_a_backup_of_that_moment(tmp_path: Path) -> None:
    program = """
import os, sys
from contextlib import closing
from pathlib import Path
from bottega.formats.database import connect
from bottega.jobs.queue import Queue
queue = Queue(Path(sys.argv[1]))
first = queue.submit("make", {}, lane="make", owner="ann").id
queue.lease("make", "1:1")
print(first, queue.submit("make", {}, lane="make", owner="ann", after=[first]).id, flush=True)
with closing(connect(sys.argv[1])) as source, closing(connect(sys.argv[2])) as target:
    source.backup(target)
os.kill(os.getpid(), 9)
"""
    paths = (tmp_path / "queue.sqlite", tmp_path / "copy.sqlite")
    ran = subprocess.run([sys.executable, "-c", program, *paths], stdout=subprocess.PIPE, text=True)
    assert ran.returncode == -signal.SIGKILL
    first, follower = ran.stdout.split()
    for path in paths:
        queue = Queue(path)
        assert take(queue) == []
        queue.finish(first, DONE)
        assert take(queue) == [follower]
        queue.finish(follower, DONE)
        assert queue.counts() == {"done": 2}
        queue.close()


def test_numbers_of_events_never_come_twice_even_those_that_were_only_told(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    id, heard = put(queue), []
    take(queue)
    queue.listen(heard.append)
    queue.record(id, [Step("sample", done, 9) for done in range(9)])
    del queue  # it is not closed, as in a crash
    again = Queue(path)
    put(again)
    assert max(told.number for told in again.events()) > max(told.number for told in heard)
    again.close()


def test_listeners_hear_of_what_is_on_disk_in_order(queue: Queue, tmp_path: Path) -> None:
    heard = []
    other = sqlite3.connect(tmp_path / "queue.sqlite", check_same_thread=False)

    def hear(told: Any) -> None:
        if told.event["event"] not in ("started", "step", "note"):
            assert other.execute("SELECT 1 FROM events WHERE number = ?", (told.number,)).fetchone()
        heard.append(told.number)

    end = queue.listen(hear)
    id = put(queue)
    take(queue)
    queue.record(id, [Started("d", 1), Step("sample", 1, 2), Note("n"), Step("sample", 2, 2)])
    queue.finish(id, DONE)
    end()
    put(queue)
    assert len(heard) == 6 and heard == sorted(heard)
    other.close()


def test_events_can_be_had_again_from_any_point(queue: Queue) -> None:
    first, second = put(queue), put(queue, owner="bob")
    queue.cancel(first)
    everything = queue.events()
    assert queue.events(everything[0].number) == everything[1:]
    assert [told.job for told in queue.events(owner="bob")] == [second]
    assert queue.events(limit=1) == everything[:1]
    assert queue.events(queue.last_event) == []
    queue.pause_all()
    assert [told.event["event"] for told in queue.events(owner="bob")] == ["queued", "changed"]


def test_a_job_tells_the_newest_event_that_it_knows_of(queue: Queue) -> None:
    """Whoever hears of a newer one asks again, and must not have to ask for ever."""
    heard: list[int] = []
    queue.listen(lambda told: heard.append(told.number))
    first, second = put(queue), put(queue)
    assert queue.pause(second).seen == heard[-1]
    (job,) = queue.lease(MAKE, "w")
    assert [each.seen for each in queue.jobs()] == [heard[-1]] * 2
    queue.record(job.id, [Started("d", 1)])  # which is written down later
    assert queue.job(first).seen == heard[-1]
    queue.record(job.id, [Made(0, "", "s", "d", 1, 8, 8, output="o"), Step("sample", 1, 2)])
    queue.finish(job.id, DONE)
    assert queue.job(first).seen == heard[-1] == queue.last_event


def test_progress_and_the_time_left_come_from_the_steps(tmp_path: Path) -> None:
    now = [100.0]
    queue = Queue(tmp_path / "q", clock=lambda: now[0])
    id = put(queue)
    take(queue)
    queue.record(id, [Started("d", 2), Step("sample", 0, 10)])
    now[0] += 5
    queue.record(id, [Step("sample", 5, 10)])
    job = queue.job(id)
    assert job.progress == {"phase": "sample", "done": 5, "total": 10, "image": 0}
    assert job.eta == pytest.approx(5 + 10)  # the rest of this picture, and the other one
    queue.finish(id, DONE)
    assert (queue.job(id).progress, queue.job(id).eta) == (None, None)
    queue.close()


def test_a_job_that_is_begun_anew_is_at_its_first_picture(queue: Queue) -> None:
    id = put(queue)
    take(queue)
    queue.record(id, [Started("d", 2), Made(0, "p", "s", "d", 1, 64, 64)])
    queue.record(id, [Started("d", 2), Step("sample", 1, 10)])
    assert queue.job(id).progress == {"phase": "sample", "done": 1, "total": 10, "image": 0}


def test_the_time_left_comes_from_steps_that_were_timed_also_where_the_first_were_not_told(tmp_path: Path) -> None:
    now = [100.0]
    queue = Queue(tmp_path / "q", clock=lambda: now[0])
    id = put(queue)
    take(queue)
    queue.record(id, [Started("d", 2), Step("sample", 4, 20)])
    assert queue.job(id).eta is None
    now[0] += 3
    queue.record(id, [Step("sample", 8, 20)])
    assert queue.job(id).eta == pytest.approx((12 + 20) * 0.75)
    now[0] += 9
    queue.record(id, [Made(0, "p", "s", "d", 1, 64, 64)])
    now[0] += 9
    queue.record(id, [Step("sample", 12, 20)])
    now[0] += 3
    queue.record(id, [Step("sample", 16, 20)])
    assert queue.job(id).eta == pytest.approx(4 * 0.75)
    queue.close()


# --- whose turn it is ------------------------------------------------------------------------------------------------


def test_owners_take_turns_and_priority_goes_before_all(queue: Queue) -> None:
    a = [put(queue, f"a{n}") for n in range(3)]
    b = [put(queue, f"b{n}", owner="bob") for n in range(2)]
    urgent = put(queue, "u", owner="bob", priority=5)
    assert [take(queue)[0] for _ in range(6)] == [urgent, a[0], b[0], a[1], b[1], a[2]]


def test_a_job_can_be_moved_before_another_and_to_the_end(queue: Queue) -> None:
    a, b, c = (put(queue, name) for name in "abc")
    queue.move(c, a)
    assert [job.id for job in queue.jobs(states=("waiting",))] == [c, a, b]
    queue.move(c, None)
    assert [job.id for job in queue.jobs(states=("waiting",))] == [a, b, c]
    queue.prioritise(b, 1)
    queue.move(a, b)  # takes its priority too, or it would not come before it
    assert [take(queue)[0] for _ in range(3)] == [a, b, c]


def test_the_end_of_the_line_is_behind_every_priority(queue: Queue) -> None:
    urgent, usual, idle = (put(queue, name, priority=priority) for name, priority in (("u", 50), ("n", 0), ("i", -3)))
    assert queue.move(urgent, None).priority == -3
    assert queue.move(idle, None).priority == -3
    assert [take(queue)[0] for _ in range(3)] == [usual, urgent, idle]


def test_there_is_no_place_before_a_job_that_is_over(queue: Queue) -> None:
    over, first, second = put(queue), put(queue), put(queue)
    queue.cancel(over)
    with pytest.raises(WrongState, match="cancelled"):
        queue.move(second, before=over)
    assert take(queue) == [first]


def test_moving_for_ever_finds_room_for_ever(queue: Queue) -> None:
    a, b, c = (put(queue, name) for name in "abc")
    for _ in range(200):
        b, c = c, b
        queue.move(b, c)
    assert [job.id for job in queue.jobs(states=("waiting",))] == [a, b, c]


def test_pages_of_jobs_follow_each_other(queue: Queue) -> None:
    ids = [put(queue, str(number), priority=number % 3) for number in range(10)]
    newest = queue.jobs(limit=4)
    assert [job.id for job in newest] == ids[:5:-1]
    assert [job.id for job in queue.jobs(limit=4, before=newest[-1].id)] == ids[5:1:-1]
    in_line, page = [], queue.jobs(states=("waiting",), limit=4)
    while page:
        in_line += [job.id for job in page]
        page = queue.jobs(states=("waiting",), limit=4, before=page[-1].id)
    assert in_line == [job.id for job in queue.jobs(states=("waiting",))]
    assert sorted(in_line) == sorted(ids)


def test_jobs_that_are_alike_are_taken_together(queue: Queue) -> None:
    a, b, c, d = (put(queue, name, alike=kind) for name, kind in zip("abcd", "xyxx", strict=True))
    assert take(queue, most=4) == [a, c, d]
    assert take(queue, most=4) == [b]


def test_nothing_is_begun_while_all_is_paused(queue: Queue) -> None:
    id = put(queue)
    queue.pause_all()
    assert queue.paused and take(queue) == [] and queue.waiting(MAKE) == 0
    queue.resume_all()
    assert take(queue) == [id]


def test_a_pause_outlives_the_server_and_one_that_could_not_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(tmp_path / "queue.sqlite")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(queue, "_set_fact", Mock(side_effect=OSError("full")))
        queue.pause_all()
    assert not queue.paused
    queue.pause_all()
    queue.close()
    queue = Queue(tmp_path / "queue.sqlite")
    assert queue.paused
    queue.close()


def test_whether_all_is_paused_is_told_while_somebody_else_writes(queue: Queue) -> None:
    queue.pause_all()
    told: list[bool] = []
    reader = threading.Thread(target=lambda: told.append(queue.paused))
    with queue.at_once():
        reader.start()
        reader.join(60.0)
        assert told == [True]


def test_a_lane_that_was_idle_is_asked_again_once_there_is_something_to_do(queue: Queue) -> None:
    assert queue.waiting(MAKE) == 0
    first = put(queue)
    second = put(queue, after=[first])
    assert queue.waiting(MAKE) == 1
    assert take(queue) == [first] and queue.waiting(MAKE) == 0
    queue.finish(first, Done("d", 1, 0.1))
    assert queue.waiting(MAKE) == 1
    queue.cancel(second)
    assert queue.waiting(MAKE) == 0
    queue.retry(second)
    assert queue.waiting(MAKE) == 1


# --- steering --------------------------------------------------------------------------------------------------------


def test_pause_resume_cancel_and_retry(queue: Queue) -> None:
    id = put(queue)
    assert queue.pause(id).state == "paused"
    assert take(queue) == []
    assert queue.resume(id).state == "waiting"
    assert queue.cancel(id).state == "cancelled"
    assert queue.cancel(id).state == "cancelled"
    assert queue.retry(id).state == "waiting"
    assert take(queue) == [id]
    with pytest.raises(WrongState, match="running"):
        queue.pause(id)
    with pytest.raises(WrongState, match="running"):
        queue.retry(id)
    assert queue.cancel(id).cancelling
    assert queue.cancelled(id).state == "cancelled"


def test_nothing_more_is_told_of_a_job_that_has_ended(queue: Queue) -> None:
    id = put(queue, priority=3)
    take(queue)
    assert queue.prioritise(id, 2).priority == 2
    queue.finish(id, DONE)
    with pytest.raises(WrongState, match="done"):
        queue.prioritise(id, 1)
    assert queue.job(id).priority == 2 and kinds(queue, id)[-1] == "done"


def test_a_job_that_nobody_knows(queue: Queue) -> None:
    for call in (queue.job, queue.cancel, queue.pause, queue.retry):
        with pytest.raises(UnknownJob, match="no job 'x'"):
            call("x")


def test_the_same_key_is_the_same_job_and_never_another(queue: Queue) -> None:
    first = put(queue, "a", key="k")
    assert put(queue, "a", key="k") == first
    assert put(queue, "a", key="k", owner="bob") != first
    with pytest.raises(KeyReused, match="another request"):
        put(queue, "b", key="k")
    # What was drawn on the way makes no other request of it.
    same = {"draft": 1}
    drawn = queue.submit("make", {"seed": 1}, lane=MAKE, owner="ann", key="d", same=same)
    assert queue.submit("make", {"seed": 2}, lane=MAKE, owner="ann", key="d", same=same) == drawn


def test_a_full_queue_takes_no_more_and_each_owner_has_a_share(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", cap=3)
    queue.quota = {"bob": 1}.get
    known = put(queue, key="k")
    put(queue, owner="bob")
    with pytest.raises(QueueFull, match="as many as you may have") as full:
        put(queue, owner="bob")
    assert full.value.retry_after > 0
    put(queue)
    with pytest.raises(QueueFull, match="all there is room for"):
        put(queue)
    assert put(queue, key="k") == known  # it was taken before
    take(queue)
    put(queue)
    queue.close()


def test_a_full_queue_takes_none_again_but_what_was_broken_off(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", cap=2)
    queue.quota = {"ann": 1}.get
    first = put(queue)
    take(queue)
    cancelled = put(queue)
    queue.cancel(cancelled)
    put(queue)
    with pytest.raises(QueueFull, match="as many as you may have"):
        queue.retry(cancelled)
    put(queue, owner="bob")
    with pytest.raises(QueueFull, match="all there is room for"):
        queue.retry(cancelled)
    assert queue.job(cancelled).state == "cancelled"
    assert queue.requeue(first, "the server ended", counts=False).state == "waiting"
    queue.close()


# --- jobs that wait for others ---------------------------------------------------------------------------------------


def test_what_waits_for_a_job_begins_when_that_is_done(queue: Queue) -> None:
    first = put(queue, "first")
    second = put(queue, "second", after=(first,))
    third = put(queue, "third", after=(first, second))
    assert take(queue) == [first] and take(queue) == []
    queue.finish(first, DONE)
    assert take(queue) == [second] and take(queue) == []
    queue.finish(second, Result({"x": 1}))
    assert queue.job(second).result == {"x": 1}
    assert take(queue) == [third]
    assert put(queue, after=(first,)) in take(queue)


def test_a_job_that_fails_takes_what_waits_for_it_along_and_says_why(queue: Queue) -> None:
    first = put(queue)
    second = put(queue, after=(first,))
    third = put(queue, after=(second,))
    take(queue)
    queue.fail(first, Failed("SaveError", "the disk is full", "free some space"))
    assert queue.job(first).error == {"error": "SaveError", "what": "the disk is full", "remedy": "free some space"}
    for id in (second, third):
        job = queue.job(id)
        assert job.state == "failed" and job.error is not None
        assert "the disk is full" in job.error["what"]
    with pytest.raises(WrongState, match="has failed"):
        put(queue, after=(first,))
    with pytest.raises(UnknownJob):
        put(queue, after=("nobody",))
    queue.retry(first)
    queue.retry(second)
    assert take(queue) == [first] and take(queue) == []


def test_cancelling_what_others_wait_for_fails_them(queue: Queue) -> None:
    first = put(queue)
    second = put(queue, after=(first,))
    queue.cancel(first)
    error = queue.job(second).error
    assert error is not None and "has been cancelled" in error["what"]


# --- workers that end ------------------------------------------------------------------------------------------------


def test_a_job_that_crashes_its_worker_is_tried_three_times(queue: Queue) -> None:
    id = put(queue)
    for attempt in (1, 2, 3):
        assert take(queue) == [id]
        assert queue.job(id).attempt == attempt
        queue.requeue(id, "it ended with SIGSEGV", counts=True)
    job = queue.job(id)
    assert job.state == "failed" and job.error is not None
    assert job.error["what"].startswith("the worker crashed 3 times on it")
    assert kinds(queue, id) == ["queued", "retried", "retried", "failed"]


def test_being_broken_off_from_outside_is_no_attempt_and_keeps_the_place(queue: Queue) -> None:
    id, other = put(queue), put(queue)
    for _ in range(5):
        assert take(queue) == [id]
        queue.requeue(id, "the server ended", counts=False)
    assert queue.job(id).attempt == 0
    assert [job.id for job in queue.jobs(states=("waiting",))] == [id, other]
    take(queue)
    queue.cancel(id)
    assert queue.requeue(id, "the server ended", counts=False).state == "cancelled"


def test_what_comes_late_changes_nothing(queue: Queue) -> None:
    id = put(queue)
    take(queue)
    queue.finish(id, DONE)
    queue.fail(id, Failed("X", "late"))
    queue.requeue(id, "late", counts=True)
    queue.cancelled(id)
    assert queue.job(id).state == "done"
    assert kinds(queue, id).count("done") == 1


# --- the file --------------------------------------------------------------------------------------------------------


def test_old_jobs_are_forgotten_with_all_that_was_said_of_them(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "q", keep=40)
    ids = []
    for _ in range(60):
        ids.append(put(queue, key=str(len(ids)), same={"n": len(ids)}))
        take(queue)
        queue.finish(ids[-1], DONE)
    assert 40 <= queue.counts()["done"] <= 41
    with pytest.raises(UnknownJob):
        queue.job(ids[0])
    assert queue.job(ids[-1]).state == "done"
    assert queue.events(job=ids[0]) == []
    queue.close()


def test_a_damaged_file_is_told_after_an_unclean_end_and_a_newer_one_always(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    for number in range(300):
        put(queue, "x" * 500 + str(number))
    queue._read.close()
    queue._write.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    queue._write.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(QueueError, match="damaged"):
        Queue(path)
    path.unlink()
    Queue(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(QueueError, match="newer Bottega"):
        Queue(path)


LOOKS: dict[str, Callable[[Queue], object]] = {
    "job": lambda queue: queue.job("x"),
    "jobs": Queue.jobs,
    "counts": Queue.counts,
    "events": Queue.events,
    "with_key": lambda queue: queue.with_key("ann", "k"),
    "asked_before": lambda queue: queue.asked_before("ann", "k", {}),
    "submit": lambda queue: put(queue, key="k"),
    "lease": lambda queue: queue.lease(MAKE, "w"),
    "waiting": lambda queue: queue.waiting(MAKE),
    "running": Queue.running,
    "record": lambda queue: queue.record("x", [Note("n")]),
    "cancel": lambda queue: queue.cancel("x"),
    "pause_all": Queue.pause_all,
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_finds_the_file_damaged_says_so(queue: Queue, monkeypatch: pytest.MonkeyPatch, look: str) -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    broken = Mock(in_transaction=False, **{"execute.side_effect": error})
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_read", broken)
        patch.setattr(queue, "_write", broken)
        with pytest.raises(QueueError, match="malformed; move it away"):
            LOOKS[look](queue)
    assert queue.damaged


def test_a_file_that_was_found_damaged_is_looked_at_before_it_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    put(queue)
    queue.close()
    with path.open("r+b") as file:  # where the jobs are
        file.seek(4096)
        file.write(b"\xff" * 4096)
    queue = Queue(path)
    assert not queue.damaged
    with pytest.raises(QueueError, match="malformed"):
        queue.jobs()
    queue.close()
    with pytest.raises(QueueError, match="is damaged"):
        Queue(path)


def test_many_threads_lose_and_double_nothing(queue: Queue) -> None:
    done: list[str] = []
    asked: list[str] = []
    lock, stop = threading.Lock(), threading.Event()

    def ask(owner: str) -> None:
        for number in range(20):
            id = put(queue, f"{owner}{number}", owner=owner)
            with lock:
                asked.append(id)

    def do() -> None:
        while not stop.is_set() or queue.waiting(MAKE):
            for id in take(queue):
                queue.record(id, [Started("d", 1), Step("sample", 1, 1)])
                queue.finish(id, DONE)
                with lock:
                    done.append(id)

    workers = [threading.Thread(target=do) for _ in range(3)]
    clients = [threading.Thread(target=ask, args=(f"o{n}",)) for n in range(8)]
    for thread in (*workers, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    assert sorted(done) == sorted(asked) and len(set(done)) == 160
    assert queue.counts() == {"done": 160}


# --- one server to a home --------------------------------------------------------------------------------------------


def test_a_home_has_one_server_and_the_other_is_told_where_it_is(tmp_path: Path) -> None:
    with HomeLock(tmp_path):
        told = {"url": "http://127.0.0.1:7680", "pid": os.getpid(), "key": "k"}
        (tmp_path / "serve.json").write_text(json.dumps(told))
        with pytest.raises(HomeBusy, match=r"already at http://127\.0\.0\.1:7680") as busy, HomeLock(tmp_path):
            raise AssertionError
        assert busy.value.url == "http://127.0.0.1:7680"
        (tmp_path / "serve.json").write_text(json.dumps({**told, "pid": 1}))  # one that was killed has left it
        with pytest.raises(HomeBusy, match=r"a server runs on .* already;") as busy, HomeLock(tmp_path):
            raise AssertionError
        assert busy.value.url == ""
    with HomeLock(tmp_path):
        pass


def test_the_lock_of_a_killed_server_holds_nobody_up(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from bottega.jobs.lock import HomeLock
HomeLock(Path(sys.argv[1])).__enter__()
print("held", flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HomeBusy), HomeLock(tmp_path):
            raise AssertionError
        holder.kill()
    assert os.path.getsize(tmp_path / "serve.lock")  # it could not tidy up
    with HomeLock(tmp_path):
        pass
