"""The queue: an SQLite file that holds every job and all that happened to it, and loses neither in a crash."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from bottega.events import (
    Cancelled,
    Changed,
    Done,
    Event,
    Failed,
    Learned,
    Made,
    Note,
    Queued,
    Result,
    Retried,
    Started,
    Step,
)
from bottega.formats.atomic import private_folder
from bottega.formats.database import Schema, connect, explained, is_damage, prepare
from bottega.jobs.job import (
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    OPEN,
    PAUSED,
    RUNNING,
    WAITING,
    Job,
    KeyReused,
    Numbered,
    QueueError,
    QueueFull,
    UnknownJob,
    WrongState,
)

MOST_WAITING = 1000
MOST_ATTEMPTS = 3
KEEP = 20_000  # ended jobs that are remembered, with their events
BUFFERED = (Started, Step, Learned, Note)  # events that may be lost in a crash: the job is begun anew then
PASSING = ("step", "learned")  # the kinds of those that are of no use to anybody once their job is over
FLUSH_EVERY = 1.0  # seconds that these may wait to be written down, while more of them come
GAP = 10_000  # numbers that are left out at every start: what was lost in a crash may have had them
_TABLES = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, lane TEXT NOT NULL,
    owner TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL, digest TEXT NOT NULL, title TEXT NOT NULL,
    priority INTEGER NOT NULL, position REAL NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
    needs TEXT NOT NULL DEFAULT '[]', blocked INTEGER NOT NULL DEFAULT 0, reuse INTEGER NOT NULL DEFAULT 0, key TEXT,
    created REAL NOT NULL, started REAL, ended REAL, error TEXT, result TEXT,
    cancelling INTEGER NOT NULL DEFAULT 0, alike TEXT NOT NULL DEFAULT '', worker TEXT
);
CREATE UNIQUE INDEX jobs_key ON jobs (owner, key) WHERE key IS NOT NULL;
CREATE INDEX jobs_turn ON jobs (state, lane, blocked, priority, owner, position);
CREATE INDEX jobs_owner ON jobs (owner, state);
CREATE TABLE needs (job TEXT NOT NULL, needed TEXT NOT NULL, PRIMARY KEY (needed, job)) WITHOUT ROWID;
CREATE TABLE turns (owner TEXT PRIMARY KEY, served INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    number INTEGER PRIMARY KEY, job TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX events_job ON events (job, number);
CREATE INDEX events_owner ON events (owner, number);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

SCHEMA = Schema(
    what="queue",
    table="jobs",
    migrations=(_TABLES.strip().removesuffix(";"),),
    error=QueueError,
    newer="update Bottega, or move the file away: outputs are not in it",
    damaged="move it away, or restore a backup: outputs are not in it",
)

_COLUMNS = (
    "id, kind, lane, owner, state, request, digest, title, priority, position, attempt, needs, reuse, key, created, "
    "started, ended, error, result, cancelling"
)

_READY = "state = 'waiting' AND lane = :lane AND blocked = 0"
# Of those of the highest priority the first of each owner, and of these the one whose owner was served longest ago.
# Owners are looked up in the index one by one, and not their jobs: a thousand that wait would cost more than all else.
_NEXT = f"""
WITH RECURSIVE
    owners AS (
        SELECT * FROM (SELECT owner AS whose, priority AS most FROM jobs WHERE {_READY}
                       ORDER BY priority DESC, owner DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT owner FROM jobs WHERE {_READY} AND priority = most AND owner < whose
                ORDER BY owner DESC LIMIT 1), most
        FROM owners WHERE whose IS NOT NULL
    ),
    firsts AS (
        SELECT (SELECT seq FROM jobs WHERE {_READY} AND priority = most AND owner = whose
                ORDER BY position LIMIT 1) AS first FROM owners WHERE whose IS NOT NULL
    )
SELECT id, owner, alike FROM firsts JOIN jobs ON seq = first
ORDER BY coalesce((SELECT served FROM turns WHERE turns.owner = jobs.owner), 0), position LIMIT 1
"""

Listener = Callable[[Numbered], None]
Told = TypeVar("Told")


@dataclass
class _Pace:
    """How a running job gets on: which picture of how many it is at, and since when in which phase."""

    owner: str
    count: int = 1
    made: int = 0
    step: Step | None = None
    since: float = 0.0
    first: int = 0  # steps of the phase that were done then
    heard: float = 0.0
    picture: float | None = None  # seconds that one takes
    began: float = 0.0
    anew: bool = False  # whether the next step is the first of another picture

    def hear(self, event: Event, now: float) -> None:
        """Take note of what the job says."""
        if isinstance(event, Learned):
            event = Step("train", event.step, event.total)
        if isinstance(event, Started):
            self.count, self.made, self.began = event.count, 0, now
        elif isinstance(event, Made):
            self.made, self.picture, self.began, self.anew = event.image + 1, now - self.began, now, True
        elif isinstance(event, Step):
            if self.anew or self.step is None or self.step.phase != event.phase or event.done < self.step.done:
                self.since, self.first, self.anew = now, event.done, False
                if event.phase == "sample":
                    self.began = now
            self.step = event
        self.heard = now

    @property
    def progress(self) -> dict[str, Any] | None:
        """The newest step, with the number of the picture that it belongs to."""
        if self.step is None:
            return None
        return {"phase": self.step.phase, "done": self.step.done, "total": self.step.total, "image": self.made}

    def eta(self, now: float) -> float | None:
        """Seconds until the end at the pace so far, once there is one."""
        step = self.step
        left = 0.0
        if step is not None and step.phase != "load" and self.first < step.done < step.total:
            each = (self.heard - self.since) / (step.done - self.first)
            left = (step.total - step.done) * each
            picture = self.picture or step.total * each
        elif self.picture is not None:
            picture = self.picture
        else:
            return None
        return round(max(0.0, left + (self.count - self.made - 1) * picture - (now - self.heard)), 1)


class Queue:
    """An open queue, safe to share between threads; one process at a time writes to it.

    `cap` is how many jobs may wait at once, `quota(owner)` how many of one owner (None: as many as there is room for).
    """

    def __init__(
        self, path: Path, *, cap: int = MOST_WAITING, keep: int = KEEP, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.cap = cap
        self.keep = keep
        self.quota: Callable[[str], int | None] = lambda owner: None
        self._clock = clock
        self._lock = threading.RLock()
        self._reading = threading.Lock()
        self._listeners: list[Listener] = []
        self._told: list[Numbered] = []  # within a transaction: heard once it is committed
        self._buffer: list[Numbered] = []  # not written down yet
        self._paces: dict[str, _Pace] = {}  # of the jobs that run
        self._flushed = 0.0
        self._idle: set[str] = set()  # lanes of which it is known that no job is open
        self._waiting: Counter[str] | None = None  # how many jobs of each owner wait, if that is known
        self._is_damaged = False
        self._write = _open(path)
        self._read = _connect(path)
        with self._explained():
            (last,) = self._write.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
            self._number = max(int(last), int(self._fact("number", "0"))) + GAP
            self._written = self._number  # of the newest event whose doings a reader finds on disk
            (self._last,) = self._write.execute("SELECT coalesce(max(position), 0) FROM jobs").fetchone()
            ended = f"SELECT count(*) FROM jobs WHERE state IN {_quoted(ENDED)}"
            (self._ended,) = self._write.execute(ended).fetchone()
            self._is_paused = self._fact("paused", "") == "1"

    def close(self) -> None:
        """Write down what is left, and let go of the file."""
        with self._lock, self._reading:
            self._flush()
            with self._transaction():
                if not self._is_damaged:  # else the next start looks at all of it
                    self._set_fact("clean", "1")
            self._write.close()
            self._read.close()

    # --- asking for work

    def submit(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        lane: str,
        owner: str,
        title: str = "",
        digest: str = "",
        priority: int = 0,
        key: str | None = None,
        after: Sequence[str] = (),
        reuse: bool = False,
        alike: str = "",
        same: Mapping[str, Any] | None = None,
    ) -> Job:
        """Put a job at the end of its owner's line; once this returns, it is on disk.

        The same key of the same owner with the same request answers with the job that there is already; `same` is what
        is compared instead of the request where that has something drawn in it. Jobs that are `alike` may be done
        together. Raises QueueFull, KeyReused, UnknownJob for one of `after`.
        """
        told = _dump(request)
        asked = _dump(same) if same is not None else told
        with self._lock, self._explained():
            if key is not None and (known := self._with_key(owner, key, asked)):
                return known
            ahead, id = self._check_room(owner), secrets.token_hex(10)
            with self._transaction():
                blocked, position, now = self._depend(id, after), self._end_of_line(), self._clock()
                self._write.execute(
                    "INSERT INTO jobs (id, kind, lane, owner, state, request, digest, title, priority, position, needs,"
                    " blocked, reuse, key, created, alike) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (id, kind, lane, owner, WAITING, told, digest, title, priority, position, json.dumps(list(after)),
                     blocked, reuse, key, now, alike),
                )  # fmt: skip
                if key is not None and same is not None:
                    self._set_fact(f"asked {id}", asked)
                self._idle.discard(lane)
                assert self._waiting is not None
                self._waiting[owner] += 1
                self._say(id, owner, Queued(id, ahead))
                return Job(
                    id=id, kind=kind, lane=lane, owner=owner, state=WAITING, request=json.loads(told), digest=digest,
                    title=title, priority=priority, position=position, attempt=0, after=tuple(after), reuse=reuse,
                    key=key, created=now, started=None, ended=None, progress=None, error=None, result=None,
                    seen=self._number,
                )  # fmt: skip

    def _check_room(self, owner: str) -> int:
        """How many jobs wait; QueueFull if there is no room for another one of this owner."""
        if self._waiting is None:
            query = f"SELECT owner, count(*) FROM jobs WHERE state IN {_quoted((WAITING, PAUSED))} GROUP BY owner"
            self._waiting = Counter(dict(self._write.execute(query)))
        waiting, own = self._waiting.total(), self._waiting[owner]
        allowed = self.quota(owner)
        if waiting >= self.cap:
            raise QueueFull(f"{waiting:,} jobs are waiting, which is all there is room for", "try again later", 10)
        if allowed is not None and own >= allowed:
            raise QueueFull(f"{own:,} of your jobs are waiting, as many as you may have", "wait for them", 10)
        return int(waiting)

    def answer(
        self, kind: str, request: Mapping[str, Any], told: Sequence[Event], outcome: Done, result: Any, **asked: Any
    ) -> Job:
        """Put a job on record that is done already; `asked` is as for `submit`, which see for what it raises."""
        with self._lock, self._transaction():
            job = self.submit(kind, request, **asked)
            if not job.over:
                for event in told:
                    self._say(job.id, job.owner, event)
                self._end(job.id, job.owner, DONE, outcome, result)
            return self._job(self._write, job.id)

    def _end_of_line(self) -> float:
        """The next position; no job's is larger."""
        self._last += 1
        return float(self._last)

    def with_key(self, owner: str, key: str) -> Job | None:
        """The job that an owner asked for with this idempotency key, if there is one."""
        with self._reading, self._explained():
            row = self._read.execute("SELECT id FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
        return self.job(row[0]) if row else None

    def asked_before(self, owner: str, key: str, asked: Mapping[str, Any]) -> Job | None:
        """The job that there is already for this key; `asked` is what `submit` would compare. Raises KeyReused."""
        with self._lock, self._explained():
            return self._with_key(owner, key, _dump(asked))

    def _with_key(self, owner: str, key: str, asked: str) -> Job | None:
        row = self._write.execute("SELECT id, request FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
        if row is None:
            return None
        if self._fact(f"asked {row[0]}", row[1]) != asked:
            raise KeyReused(f"the idempotency key {key!r} was used for another request", "use a new key for a new job")
        return self._job(self._write, row[0])

    def _depend(self, id: str, after: Sequence[str]) -> int:
        blocked = 0
        for needed in dict.fromkeys(after):
            other = self._job(self._write, needed)
            if other.state in (FAILED, CANCELLED):
                raise WrongState(
                    f"the job {needed} that it is to follow has {_past(other.state)}", "retry that one first"
                )
            if not other.over:
                self._write.execute("INSERT INTO needs (job, needed) VALUES (?, ?)", (id, needed))
                blocked += 1
        return blocked

    # --- looking

    def job(self, id: str) -> Job:
        """The job of that id; raises UnknownJob."""
        with self._reading, self._explained():
            return self._with_pace(self._job(self._read, id))

    def _with_pace(self, job: Job) -> Job:
        pace = self._paces.get(job.id)
        return replace(job, progress=pace.progress, eta=pace.eta(self._clock())) if pace else job

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[str] = (),
        kind: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, the newest first; those of states that are still open in the order in which their turn comes.

        `before` is the last job of the page before this one.
        """
        in_order = bool(states) and set(states) <= set(OPEN)
        key = "(state = 'running', priority, -position)" if in_order else "(seq)"
        order = "state = 'running' DESC, priority DESC, position" if in_order else "seq DESC"
        where, values = ["1"], []
        if owner is not None:
            where.append("owner = ?")
            values.append(owner)
        if kind is not None:
            where.append("kind = ?")
            values.append(kind)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if before is not None:
            where.append(f"{key} < (SELECT {key.strip('()')} FROM jobs WHERE id = ?)")
            values.append(before)
        query = f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
        with self._reading, self._explained():
            seen = self._written
            return [self._with_pace(_job_of(row, seen)) for row in self._read.execute(query, (*values, limit))]

    def counts(self, owner: str | None = None, kind: str | None = None) -> dict[str, int]:
        """How many jobs are in each state."""
        query = (
            "SELECT state, count(*) FROM jobs WHERE (? IS NULL OR owner = ?) AND (? IS NULL OR kind = ?) GROUP BY state"
        )
        with self._reading, self._explained():
            return dict(self._read.execute(query, (owner, owner, kind, kind)).fetchall())

    def starts_from(self, sha256: str, owner: str) -> bool:
        """Whether there is a job of this owner that has the picture with these bytes as an input."""
        query = "SELECT 1 FROM jobs WHERE owner = ? AND instr(json_extract(request, '$.recipe.inputs'), ?) LIMIT 1"
        with self._reading, self._explained():
            return self._read.execute(query, (owner, sha256)).fetchone() is not None

    def events(
        self, after: int = 0, *, job: str | None = None, owner: str | None = None, limit: int = 1000
    ) -> list[Numbered]:
        """What happened after the event of that number, in order; an owner's with those of the whole queue."""
        self.flush()
        where, values = ["number > ?"], cast(list[object], [after])
        for clause, value in (("job = ?", job), ("owner IN (?, '')", owner)):
            if value is not None:
                where.append(clause)
                values.append(value)
        query = f"SELECT number, job, owner, at, event FROM events WHERE {' AND '.join(where)} ORDER BY number LIMIT ?"
        with self._reading, self._explained():
            rows = self._read.execute(query, (*values, limit)).fetchall()
        return [Numbered(number, job, owner, at, json.loads(event)) for number, job, owner, at, event in rows]

    @property
    def last_event(self) -> int:
        """The number of the newest event."""
        return self._number

    @property
    def damaged(self) -> bool:
        """Whether somebody has found the file to be damaged."""
        return self._is_damaged

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call this with every event, in order, once it is on disk (a Step: at once); the answer ends it.

        It is called by whoever caused the event, and has to be quick.
        """
        with self._lock:
            self._listeners = [*self._listeners, listener]

        def end() -> None:
            with self._lock:
                self._listeners = [each for each in self._listeners if each is not listener]

        return end

    # --- steering

    def cancel(self, id: str) -> Job:
        """End a job: at once if it waits, else within a step. One that has ended stays as it is."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.state == RUNNING and not job.cancelling:
                self._write.execute("UPDATE jobs SET cancelling = 1 WHERE id = ?", (id,))
                self._say(id, job.owner, Changed("cancelling"))
            elif job.state in (WAITING, PAUSED):
                self._end(job.id, job.owner, CANCELLED, Cancelled())
            return self._job(self._write, id)

    def pause(self, id: str) -> Job:
        """Keep a job that waits from being begun; WrongState for one that does not wait."""
        return self._change(id, (WAITING, PAUSED), PAUSED, "paused")

    def resume(self, id: str) -> Job:
        """Let a paused job wait for its turn again."""
        return self._change(id, (PAUSED, WAITING), WAITING, "resumed")

    def _change(self, id: str, allowed: Sequence[str], state: str, word: str) -> Job:
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.state not in allowed:
                raise WrongState(f"the job {id} is {job.state}, so it can't be {word}", "see how it stands by now")
            if job.state != state:
                self._write.execute("UPDATE jobs SET state = ? WHERE id = ?", (state, id))
                self._say(id, job.owner, Changed(word))
            return self._job(self._write, id)

    def retry(self, id: str) -> Job:
        """Have a job that failed or was cancelled wait again, as if it had never run. Raises QueueFull."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.state not in (FAILED, CANCELLED):
                raise WrongState(f"the job {id} is {job.state}: there is nothing to try again", "submit it anew")
            self._check_room(job.owner)
            self._write.execute("DELETE FROM needs WHERE job = ?", (id,))  # it may have been cancelled while it waited
            blocked = self._depend(id, job.after)
            self._write.execute(
                "UPDATE jobs SET state = ?, attempt = 0, error = NULL, ended = NULL, started = NULL, "
                "cancelling = 0, blocked = ? WHERE id = ?",
                (WAITING, blocked, id),
            )
            self._ended -= 1
            self._waiting = None
            self._paces.pop(id, None)
            self._idle.discard(job.lane)
            self._say(id, job.owner, Retried(0, "somebody asked for it"))
            return self._job(self._write, id)

    def move(self, id: str, before: str | None) -> Job:
        """Give a waiting job the place right before another one, whose priority it takes, or the last of all, with the
        lowest priority that a waiting one has."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.state not in (WAITING, PAUSED):
                raise WrongState(f"the job {id} is {job.state}, so it has no place in the line", "move one that waits")
            priority = job.priority
            if before is None:
                position = self._end_of_line()
                (priority,) = self._write.execute(
                    f"SELECT min(priority) FROM jobs WHERE state IN {_quoted((WAITING, PAUSED))}"
                ).fetchone()
            elif before == id:
                return job
            else:
                other = self._job(self._write, before)
                if other.over:
                    raise WrongState(
                        f"the job {before} is {other.state}, so it has no place in the line", "name one that waits"
                    )
                priority = other.priority
                (prior,) = self._write.execute(
                    "SELECT coalesce(max(position), ? - 1) FROM jobs WHERE position < ? AND id != ?",
                    (other.position, other.position, id),
                ).fetchone()
                position = (prior + other.position) / 2
                if not prior < position < other.position:  # halved until nothing is left in between
                    self._spread()
                    return self.move(id, before)
            self._write.execute("UPDATE jobs SET position = ?, priority = ? WHERE id = ?", (position, priority, id))
            self._say(id, job.owner, Changed("moved"))
            return self._job(self._write, id)

    def _spread(self) -> None:
        self._write.execute(
            "UPDATE jobs SET position = places.place FROM (SELECT id AS job, row_number() OVER (ORDER BY position) AS "
            "place FROM jobs) AS places WHERE id = places.job"
        )

    def prioritise(self, id: str, priority: int) -> Job:
        """Give a job another priority: higher ones come first, whosever they are. WrongState for one that has ended."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.over:
                raise WrongState(
                    f"the job {id} is {job.state}, so its turn can't change", "name one that has not ended"
                )
            self._write.execute("UPDATE jobs SET priority = ? WHERE id = ?", (priority, id))
            self._say(id, job.owner, Changed("prioritised"))
            return self._job(self._write, id)

    @property
    def paused(self) -> bool:
        """Whether nothing is begun until somebody resumes it all."""
        # As it is on disk: that is read also while somebody waits to write.
        with self._reading, self._explained():
            return bool(self._read.execute("SELECT 1 FROM facts WHERE name = 'paused' AND value = '1'").fetchone())

    def pause_all(self) -> None:
        """Begin no job any more; what runs goes on."""
        self._pause(True, "paused")

    def resume_all(self) -> None:
        """Begin jobs again."""
        self._pause(False, "resumed")

    def _pause(self, paused: bool, word: str) -> None:
        with self._lock, self._explained():
            self._is_paused = paused
            try:
                with self._transaction():
                    self._set_fact("paused", "1" if paused else "")
                    self._say("", "", Changed(word))
            finally:
                self._is_paused = self._fact("paused", "") == "1"

    # --- for the foreman

    def lease(self, lane: str, worker: str, *, most: int = 1) -> list[Job]:
        """The jobs of a lane whose turn it is, given to a worker: one, or up to `most` that are alike.

        It has them until it says how they ended, or is known to be gone: a server that starts takes up what was given.

        The highest priority comes first, then whose owner was served longest ago, then who came first.
        """
        with self._lock, self._explained():
            if self._is_paused:
                return []
            first = self._next(lane)
            if first is None:
                return []
            ids = [first[0]]
            if most > 1 and first[2]:
                ids += [
                    id
                    for (id,) in self._write.execute(
                        "SELECT id FROM jobs WHERE state = 'waiting' AND lane = ? AND blocked = 0 AND alike = ? AND "
                        "id != ? ORDER BY priority DESC, position LIMIT ?",
                        (lane, first[2], first[0], most - 1),
                    )
                ]
            now = self._clock()
            with self._transaction():
                for id in ids:
                    self._write.execute(
                        "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = ?, worker = ? "
                        "WHERE id = ?",
                        (now, worker, id),
                    )
                self._write.execute(
                    "INSERT INTO turns (owner, served) VALUES (?, (SELECT coalesce(max(served), 0) + 1 FROM turns)) "
                    "ON CONFLICT (owner) DO UPDATE SET served = excluded.served",
                    (first[1],),
                )
            leased = [self._job(self._write, id) for id in ids]
            if self._waiting is not None:
                self._waiting.subtract(job.owner for job in leased)
            return leased

    def _next(self, lane: str) -> tuple[str, str, str] | None:
        row: tuple[str, str, str] | None = self._write.execute(_NEXT, {"lane": lane}).fetchone()
        return row

    def waiting(self, lane: str) -> int:
        """How many jobs of a lane could be begun now."""
        query = (
            "SELECT count(*), coalesce(sum(state = 'waiting' AND blocked = 0), 0) FROM jobs "
            f"WHERE state IN {_quoted(OPEN)} AND lane = ?"
        )
        with self._lock, self._explained():
            if self._is_paused or lane in self._idle:
                return 0
            opened, waiting = self._write.execute(query, (lane,)).fetchone()
            if not opened:
                self._idle.add(lane)
            return int(waiting)

    def record(self, id: str, events: Iterable[Event]) -> None:
        """Keep what a running job tells of; what is BUFFERED is heard at once and written down a little later."""
        with self._lock, self._explained():
            pace = self._paces.get(id)
            if pace is None:
                pace = self._paces[id] = _Pace(self._owner(id)[0])
            owner = pace.owner
            for event in events:
                pace.hear(event, self._clock())
                if isinstance(event, BUFFERED):
                    self._number += 1
                    if not self._write.in_transaction:
                        self._written = self._number  # such an event changes nothing of a job that is on disk
                    told = Numbered(self._number, id, owner, self._clock(), event.to_json())
                    self._buffer.append(told)
                    for listener in self._listeners:
                        listener(told)
                else:
                    with self._transaction():
                        self._say(id, owner, event)
            if self._buffer and time.monotonic() - self._flushed > FLUSH_EVERY:
                self._flush()

    def settle(self, id: str, request: Mapping[str, Any], digest: str, alike: str = "") -> None:
        """Give a job the request that it turns out to be, now that the jobs before it are done."""
        with self._lock, self._transaction():
            self._write.execute(
                "UPDATE jobs SET request = ?, digest = ?, alike = ? WHERE id = ?", (_dump(request), digest, alike, id)
            )

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Write down all that is done in the block together, or nothing of it; it is heard when it is on disk."""
        with self._lock, self._transaction():
            yield

    def together(self, works: Sequence[Callable[[], Told]]) -> list[Told | Exception]:
        """Do several things and write them down together, as in `at_once`; for each its answer, or the error that it
        raised: what fails is undone, and nothing else with it."""
        with self._lock, self._transaction():
            return [self._apart(work) for work in works]

    def _apart(self, work: Callable[[], Told]) -> Told | Exception:
        told, ended = len(self._told), self._ended
        self._write.execute("SAVEPOINT apart")
        try:
            answer = work()
        except Exception as error:  # whatever it is, whoever asked for the work is told
            if not self._write.in_transaction:  # SQLite has given up all of it, as where the disk is full
                raise
            self._write.execute("ROLLBACK TO apart")
            self._write.execute("RELEASE apart")
            del self._told[told:]
            self._waiting, self._ended = None, ended
            return error
        self._write.execute("RELEASE apart")
        return answer

    def finish(self, id: str, event: Done | Result, result: Any = None, told: Iterable[Event] = ()) -> None:
        """A job is done, with this result or that of the event; what waited for it may begin.

        `told` are the last things that it had to say.
        """
        with self._lock:
            self._forget_steps(id)
        with self._lock, self._transaction():
            owner, state = self._owner(id)
            if state not in ENDED:
                for each in told:
                    self._say(id, owner, each, kept=_kind(each) not in PASSING)
                self._end(id, owner, DONE, event, event.data if isinstance(event, Result) else result)

    def fail(self, id: str, error: Failed) -> Job:
        """A job has failed for good, and with it what waited for it."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if not job.over:
                self._end(job.id, job.owner, FAILED, error)
            return self._job(self._write, id)

    def cancelled(self, id: str) -> Job:
        """A running job has stopped because it was cancelled."""
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if not job.over:
                self._end(job.id, job.owner, CANCELLED, Cancelled())
            return self._job(self._write, id)

    def requeue(self, id: str, why: str, *, counts: bool) -> Job:
        """A running job was broken off through no choice of anybody: it waits again, in its old place.

        An attempt that `counts` is one of the MOST_ATTEMPTS that a job has; when they are used up, it fails.
        """
        with self._lock, self._transaction():
            job = self._job(self._write, id)
            if job.state != RUNNING:
                return job
            if job.cancelling:
                self._end(job.id, job.owner, CANCELLED, Cancelled())
            elif counts and job.attempt >= MOST_ATTEMPTS:
                what = f"the worker crashed {job.attempt} times on it; the last time {why}"
                self._end(
                    job.id, job.owner, FAILED, Failed("WorkerCrashed", what, "see the log; it may be too much for it")
                )
            else:
                self._paces.pop(id, None)
                self._waiting = None
                self._write.execute(
                    "UPDATE jobs SET state = 'waiting', started = NULL, worker = NULL, attempt = ? WHERE id = ?",
                    (job.attempt if counts else job.attempt - 1, id),
                )
                self._say(id, job.owner, Retried(job.attempt, why))
            return self._job(self._write, id)

    def running(self) -> list[tuple[Job, str]]:
        """The jobs that somebody is said to work on, and who."""
        with self._lock, self._explained():
            rows = self._write.execute(f"SELECT worker, {_COLUMNS} FROM jobs WHERE state = 'running' ORDER BY seq")
            return [(_job_of(rest, self._number), worker or "") for worker, *rest in rows]

    def flush(self) -> None:
        """Write down what was only told so far."""
        with self._lock:
            self._flush()

    # --- within

    def _end(self, id: str, owner: str, state: str, event: Event, result: Any = None) -> None:
        """The last thing that happens to a job; Steps of it are no longer of use to anybody, and a training has a log
        of its own."""
        error = _dump(_without_kind(event.to_json())) if isinstance(event, Failed) else None
        if self._paces.pop(id, None) is None:  # it may have waited
            self._waiting = None
        self._write.execute(f"DELETE FROM events WHERE job = ? AND kind IN {_quoted(PASSING)}", (id,))
        self._write.execute(
            "UPDATE jobs SET state = ?, ended = ?, error = ?, result = ?, cancelling = 0, worker = NULL WHERE id = ?",
            (state, self._clock(), error, None if result is None else _dump(result), id),
        )
        self._say(id, owner, event)
        self._ended += 1
        followers = [id for (id,) in self._write.execute("SELECT job FROM needs WHERE needed = ?", (id,))]
        if followers:
            self._write.execute("DELETE FROM needs WHERE needed = ?", (id,))
        for follower in followers:
            whose, now = self._owner(follower)
            if state == DONE:
                self._write.execute("UPDATE jobs SET blocked = blocked - 1 WHERE id = ?", (follower,))
            elif now not in ENDED:
                what = f"the job {id} that it was to follow has {_past(state)}"
                why = f": {event.what}" if isinstance(event, Failed) else ""
                self._end(
                    follower, whose, FAILED, Failed("DependencyFailed", what + why, "retry that one, then this one")
                )
        if self._ended > self.keep + self.keep // 40:  # not one by one
            self._prune()

    def _forget_steps(self, id: str) -> None:
        """Steps that are not written down by the end of their job need not be."""
        self._buffer = [told for told in self._buffer if told.job != id or told.event["event"] not in PASSING]

    def _prune(self) -> None:
        """Forget the oldest of the jobs that have ended, beyond those that are kept."""
        self._write.execute("CREATE TEMP TABLE IF NOT EXISTS forgotten AS SELECT id FROM jobs WHERE 0")
        self._write.execute("DELETE FROM temp.forgotten")
        self._write.execute(
            f"INSERT INTO temp.forgotten SELECT id FROM jobs WHERE state IN {_quoted(ENDED)} ORDER BY ended LIMIT ?",
            (self._ended - self.keep,),
        )
        self._write.execute("DELETE FROM events WHERE job IN (SELECT id FROM temp.forgotten)")
        self._write.execute("DELETE FROM facts WHERE name IN (SELECT 'asked ' || id FROM temp.forgotten)")
        self._ended -= self._write.execute("DELETE FROM jobs WHERE id IN (SELECT id FROM temp.forgotten)").rowcount
        self._write.execute("DELETE FROM events WHERE job = '' AND number < ?", (self._number - 100_000,))

    def _say(self, id: str, owner: str, event: Event, *, kept: bool = True) -> None:
        """Within a transaction: write an event down, if it is to be kept; it is heard when the transaction ends."""
        self._number += 1
        told = Numbered(self._number, id, owner, self._clock(), event.to_json())
        self._told.append(told)
        if kept:
            self._put(told)

    def _put(self, told: Numbered) -> None:
        self._write.execute(
            "INSERT INTO events (number, job, owner, at, kind, event) VALUES (?, ?, ?, ?, ?, ?)",
            (told.number, told.job, told.owner, told.at, told.event["event"], _dump(told.event)),
        )

    def _flush(self) -> None:
        if not self._buffer:
            return
        with self._transaction():
            pass  # a transaction writes them down first

    def _write_buffer(self) -> None:
        for told in self._buffer:
            self._put(told)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, on disk when it ends; only then the listeners hear what was said in it."""
        if self._write.in_transaction:
            yield
            return
        ended = self._ended
        with self._explained():
            try:
                self._write.execute("BEGIN IMMEDIATE")
                self._write_buffer()
                yield
                self._write.execute("COMMIT")
            except BaseException:
                self._told, self._waiting, self._ended = [], None, ended
                if self._write.in_transaction:
                    self._write.execute("ROLLBACK")
                raise
        self._buffer = []
        self._written = self._number
        self._flushed = time.monotonic()
        told, self._told = self._told, []
        for each in told:
            for listener in self._listeners:
                listener(each)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Around all that is done with the file; that it is damaged is remembered."""
        with explained(self.path, SCHEMA):
            try:
                yield
            except sqlite3.DatabaseError as error:
                self._is_damaged = self._is_damaged or is_damage(error)
                raise

    def _job(self, connection: sqlite3.Connection, id: str) -> Job:
        seen = self._number if connection is self._write else self._written
        row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise UnknownJob(id)
        return _job_of(row, seen)

    def _owner(self, id: str) -> tuple[str, str]:
        """Whose a job is, and its state."""
        row = self._write.execute("SELECT owner, state FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise UnknownJob(id)
        return row[0], row[1]

    def _fact(self, name: str, otherwise: str) -> str:
        row = self._write.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else otherwise

    def _set_fact(self, name: str, value: str) -> None:
        self._write.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))


def _connect(path: Path) -> sqlite3.Connection:
    connection = connect(os.fspath(path), check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def has_jobs(path: Path, owner: str) -> bool:
    """Whether the file of a queue holds jobs of this owner. It is only read: a server may have it open."""
    with explained(path, SCHEMA), closing(_connect(path)) as connection:
        return connection.execute("SELECT 1 FROM jobs WHERE owner = ? LIMIT 1", (owner,)).fetchone() is not None


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a sound queue of this version, made if there is none."""
    try:
        private_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise QueueError(f"{path.parent}: can't be made ({reason})", "set BOTTEGA_HOME to a folder of yours") from None
    with explained(path, SCHEMA):
        connection = _connect(path)
        try:
            prepare(connection, SCHEMA)
            if connection.execute("DELETE FROM facts WHERE name = 'clean'").rowcount == 0:
                _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise QueueError for a file that is damaged.

    SQLite 3.40's quick_check finds "NULL value in needs.job" in a sound table, as its key is not in the order of its
    columns; integrity_check takes several times as long and is right, so it has the last word.
    """
    for check in ("quick_check", "integrity_check"):
        (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
        if verdict == "ok":
            return
    raise QueueError(f"{path} is damaged: {verdict}", SCHEMA.damaged)


def _job_of(row: Sequence[Any], seen: int) -> Job:
    (id, kind, lane, owner, state, request, digest, title, priority, position, attempt, needs, reuse, key, created,
     started, ended, error, result, cancelling) = row  # fmt: skip
    return Job(
        id=id,
        kind=kind,
        lane=lane,
        owner=owner,
        state=state,
        request=json.loads(request),
        digest=digest,
        title=title,
        priority=priority,
        position=position,
        attempt=attempt,
        after=tuple(json.loads(needs)),
        reuse=bool(reuse),
        key=key,
        created=created,
        started=started,
        ended=ended,
        progress=None,
        error=json.loads(error) if error else None,
        result=json.loads(result) if result else None,
        cancelling=bool(cancelling),
        seen=seen,
    )


def _kind(event: Event) -> str:
    return type(event).__name__.lower()


def _without_kind(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "event"}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _quoted(words: Sequence[str]) -> str:
    return "(" + ", ".join(f"'{word}'" for word in words) + ")"


def _past(state: str) -> str:
    return {FAILED: "failed", CANCELLED: "been cancelled"}.get(state, state)
