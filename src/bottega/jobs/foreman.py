"""The foreman: has workers do what is in the queue, and keeps at it whatever becomes of them."""

from __future__ import annotations

import base64
import logging
import os
import queue as queues
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, cast

from bottega.errors import BottegaError
from bottega.events import Done, Event, Failed, Learned, Note, Result, Sampled, Started, Step, Trained
from bottega.formats.database import is_busy
from bottega.jobs.job import LIBRARY, MAKE, TRAIN, Job, Numbered
from bottega.jobs.queue import Queue
from bottega.jobs.wire import Pipe, batches, identity, kernel_kills, lives, resident

RETRY_EVERY = 1.0  # seconds, while the disk is full or something else here does not work

SMALLER = "make something smaller, or use a smaller model"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how much main memory a worker may take, in bytes (0: any).

    `silence` is how long a worker that works may give no sign of life, `start` how long it may take to be there,
    `obey` how long a job that is told to stop may take beyond its longest step, and `keep` how long a training may
    take on top of that to write down how far it is; `leave` how long a worker has to end when asked to, `idle`
    after how long a worker of the library goes when there is nothing to do. `spare` is how little of the machine's
    memory may be left before a worker that took it is ended.
    """

    silence: float = 60.0
    start: float = 180.0
    obey: float = 1.0
    keep: float = 60.0
    leave: float = 5.0
    idle: float = 60.0
    watch: float = 1.0
    memory: int = 0
    spare: int = 128 << 20
    backoff: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Preview:
    """The newest rough picture of a job, a PNG."""

    job: str
    owner: str
    png: bytes


@dataclass
class _Working:
    """A job that a worker has in hand."""

    job: Job
    last: float  # when it last got on, by the monotonic clock
    longest: float = 0.0  # the longest that one step of it took
    stop_by: float | None = None
    failed: Failed | None = None  # why an output of it could not be kept
    said: list[Any] = field(default_factory=list)  # what is about to be written down
    unkept: list[Mapping[str, Any]] = field(default_factory=list)  # what is told of outputs that are yet to be kept


Given = ParamSpec("Given")
Listener = Callable[[Numbered | Preview], None]
_WAKING = ("queued", "retried", "changed", "done", "result", "failed", "cancelled")


class Foreman:
    """Keeps one worker for each device and one for the library, gives them what the queue holds, and records what they
    answer.

    `command(lane)` is how a worker is started. `on_hello(lane, facts)` is told of each that is ready, `ready(job)`
    makes a job's request complete just before it is begun (None: there is nothing left to do for it), and
    `on_made(job, told)` keeps an output and answers with the event that is recorded of it; where it raises that a file
    is busy, it is called again later. `folder(job)` is where its outputs go, `together(lane)` how many jobs that are
    alike are given to a worker at once. `settings` are what a worker is told before anything else, `logs` is the folder
    for what it prints, `environment(lane)` what it finds in its environment.
    """

    def __init__(
        self,
        queue: Queue,
        command: Callable[[str], Sequence[str]],
        *,
        on_made: Callable[[Job, Mapping[str, Any]], Any],
        on_hello: Callable[[str, Mapping[str, Any]], None] = lambda lane, facts: None,
        ready: Callable[[Job], Job | None] = lambda job: job,
        folder: Callable[[Job], Path],
        settings: Mapping[str, Any],
        logs: Path,
        together: Callable[[str], int] = lambda lane: 1,
        environment: Callable[[str], Mapping[str, str]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.queue = queue
        self.limits = limits or Limits()
        self.command = command
        self.on_made, self.on_hello, self.ready, self.folder = on_made, on_hello, ready, folder
        self.settings, self.logs, self.together = settings, logs, together
        self.environment = environment
        self.lanes = {lane: Lane(self, lane) for lane in (MAKE, LIBRARY)}
        self._stopping = False
        self._previews: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._end_listening: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Take up what an earlier server left, and begin."""
        take_up(self.queue)
        self._end_listening = self.queue.listen(self._heard)
        for lane in self.lanes.values():
            lane.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Begin nothing more, and have what runs stop within a step and wait again; by force after so many seconds."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
        for lane in self.lanes.values():
            lane.stop(deadline)
        for lane in self.lanes.values():
            lane.join()
        self._end_listening()

    def also_on(self, device: str) -> None:
        """Have outputs made on another device of this machine, too."""
        with self._lock:
            name = f"{MAKE}-{device}"
            if self._stopping or name in self.lanes:
                return
            lane = Lane(self, name, device=device)
            self.lanes = {**self.lanes, name: lane}
        lane.start()

    def devices(self) -> list[dict[str, Any]]:
        """What each lane is doing, on what device, with which models loaded."""
        return [lane.told() for lane in self.lanes.values()]

    def state(self, lane: str) -> Mapping[str, Any]:
        """What the worker of a lane last told of its device: free bytes, and the models that it keeps loaded."""
        return self.lanes[lane].state

    def unload(self, patience: float = 10.0) -> None:
        """Have the workers let go of the models that they keep loaded.

        Those that work do so after it; on the others this waits, up to so many seconds.
        """
        wait([lane.unload() for lane in self.lanes.values() if lane.kind == MAKE], patience)

    def unable(self, lane: str) -> str:
        """Why there is no worker in a lane, in words; empty if none says that it can't."""
        failed = self.lanes[lane].unable
        return f"{failed.what}; {failed.remedy}" if failed else ""

    def preview(self, job: str) -> bytes | None:
        """The newest rough picture of a job that runs, a PNG."""
        with self._lock:
            return self._previews.get(job)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call this, which has to be quick, with every event and every Preview as they come; the answer ends it."""
        with self._lock:
            self._listeners = [*self._listeners, listener]

        def end() -> None:
            with self._lock:
                self._listeners = [each for each in self._listeners if each is not listener]

        return end

    def _heard(self, told: Numbered) -> None:
        kind = told.event["event"]
        if kind in _WAKING:
            is_to_stop = kind == "changed" and told.event["what"] == "cancelling"
            for lane in self.lanes.values():
                if is_to_stop:
                    lane.cancel(told.job)
                elif lane.is_free():
                    lane.wake()
        if kind in ("done", "failed", "cancelled"):
            with self._lock:
                self._previews.pop(told.job, None)
        for listener in self._listeners:
            listener(told)

    def show(self, job: Job, png: bytes) -> None:
        """Keep a rough picture for whoever asks for it."""
        with self._lock:
            self._previews[job.id] = png
            listeners = self._listeners
        for listener in listeners:
            listener(Preview(job.id, job.owner, png))


class Lane:
    """One worker process after the other, and the thread that looks after it."""

    def __init__(self, foreman: Foreman, name: str, device: str = "") -> None:
        self.foreman = foreman
        self.name = name
        self.kind = LIBRARY if name == LIBRARY else MAKE  # of the jobs that are done here
        self._settings = {**foreman.settings, "device": device} if device else foreman.settings
        self.device = name
        self._inbox: queues.SimpleQueue[tuple[str, Any]] = queues.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"lane-{name}", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._who = ""
        self._born = 0
        self._ready = False
        self._working: dict[str, _Working] = {}
        self._heard_at = self._since = 0.0
        self._term_at: float | None = None
        self._ending = ""
        self._full = False  # whether it is ended because of its memory
        self._crashes = 0
        self._start_at = 0.0
        self._stop_by: float | None = None
        self._retry_at: float | None = None  # when to go on after something went wrong here
        self._look_at = 0.0  # when to look at the worker's memory again
        self._leased: list[Job] = []  # what is to be given next
        self._owed: dict[str, Callable[[], object]] = {}  # what is still to be written down of jobs that are over
        self._kills = 0
        self._unloading: list[Future[None]] = []  # who wants to know when the models are gone
        self.state: dict[str, Any] = {}
        self.unable: Failed | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Begin nothing more, and end by then (monotonic seconds)."""
        self._inbox.put(("stop", deadline))

    def join(self) -> None:
        """Wait for the end."""
        if self._thread.ident is not None:
            self._thread.join()

    def is_free(self) -> bool:
        """Whether there may be something to begin here: a lane that works looks for itself when it is done."""
        return not self._working and (self.kind == MAKE or self.foreman.queue.waiting(self.kind) > 0)

    def wake(self) -> None:
        """Something has changed in the queue."""
        self._inbox.put(("wake", None))

    def cancel(self, job: str) -> None:
        """A job is to stop, whoever works on it."""
        self._inbox.put(("cancel", job))

    def unload(self) -> Future[None]:
        """Have the worker let go of its models; done once it has, or at once where it works on something before."""
        done = Future[None]()
        self._inbox.put(("unload", done))
        return done

    def told(self) -> dict[str, Any]:
        """What the lane is doing, as plain data."""
        process = self._process
        state = "off" if process is None else "starting" if not self._ready else "working" if self._working else "idle"
        return {
            "lane": self.device,
            "state": state,
            "pid": process.pid if process else None,
            "jobs": list(self._working),
            "models": [],
            **self.state,
        }

    # --- the thread

    def _run(self) -> None:
        while True:
            self._attempt(self._tend)
            if self._stop_by is not None and self._process is None:
                return
            try:
                what, told = self._inbox.get_nowait() if self._inbox.qsize() else self._wait()
            except queues.Empty:
                continue
            if what == "said":
                for message in told:
                    self._attempt(self._hear, message)
            else:
                self._attempt(self._handle, what, told)

    def _attempt(self, work: Callable[Given, object], *args: Given.args, **named: Given.kwargs) -> None:
        """Whatever goes wrong, a full disk or a bug: the lane goes on as soon as it can."""
        try:
            work(*args, **named)
        except Exception as error:
            self._complain(error)
            self._retry_at = time.monotonic() + RETRY_EVERY

    def _wait(self) -> tuple[str, Any]:
        """What comes next; until it does there is time to write down what was said."""
        for working in self._working.values():
            self._record(working)
        return self._inbox.get(timeout=self._patience())

    def _record(self, working: _Working) -> None:
        said, working.said = working.said, []
        try:
            if said:
                self.foreman.queue.record(working.job.id, said)
        except BottegaError as error:  # no job fails for want of a word about it
            log.error("%s: %s", self.name, error)

    def _complain(self, error: Exception) -> None:
        if isinstance(error, BottegaError):
            log.error("%s: %s", self.name, error)
        else:
            log.exception("%s: this is a bug in Bottega", self.name)

    def _patience(self) -> float | None:
        """Seconds until something has to be looked at although nobody says anything; None: for ever."""
        now = time.monotonic()
        moments = [self._retry_at, self._term_at, self._stop_by if self._process else None]
        if self._process is None:
            if self._start_at > now:
                moments.append(self._start_at)
        elif not self._ready:
            moments.append(self._since + self.foreman.limits.start)
        elif self._working:
            moments += [max(now, self._look_at), *(each.stop_by for each in self._working.values())]
        elif self.kind == LIBRARY:
            moments.append(self._since + self.foreman.limits.idle)
        due = [moment for moment in moments if moment is not None]
        return max(0.0, min(due) - now) if due else None

    def _tend(self) -> None:
        now, limits = time.monotonic(), self.foreman.limits
        if self._process is not None and self._stop_by is not None and now >= self._stop_by:
            self._kill("the server ended")
            self._stop_by = self._term_at  # it is gone as soon as the system gets round to it
            return
        if self._retry_at is not None:
            if now < self._retry_at:
                return
            self._pay()
        if self._process is None:
            wanted = self.kind == MAKE or self.foreman.queue.waiting(self.kind)
            if wanted and self._stop_by is None and now >= self._start_at:
                self._spawn()
            return
        if self._term_at is not None:
            if now >= self._term_at:
                self._kill(self._ending)
        elif not self._ready:
            if now > self._since + limits.start:
                self._kill("it did not start")
        elif self._working:
            self._watch(now)
        elif self._stop_by is None and not self._give() and self.kind == LIBRARY and now > self._since + limits.idle:
            self._ask_to_leave()

    def _owe(self, id: str, action: Callable[[], object]) -> None:
        """Write down what became of a job that the worker no longer has in hand, now or as soon as it can be."""
        self._owed[id] = action
        action()
        del self._owed[id]

    def _pay(self) -> None:
        """After something went wrong: write down what is owed, and put back what nobody has in hand."""
        for id, action in list(self._owed.items()):
            self._owe(id, action)
        for job, worker in self.foreman.queue.running():
            if worker == self._who and job.id not in self._working:
                self.foreman.queue.requeue(job.id, "something went wrong in the server", counts=True)
        self._retry_at = None

    def _watch(self, now: float) -> None:
        limits = self.foreman.limits
        assert self._process is not None
        for each in self._working.values():
            if each.stop_by is not None and now >= each.stop_by:
                self._kill("it did not stop when told to")
                return
        if now - self._heard_at > limits.silence:
            self._ending = f"it gave no sign of life for {limits.silence:g} seconds"
            log.warning("%s: worker %s: %s", self.name, self._who, self._ending)
            self._process.terminate()
            self._term_at = now + limits.leave
            return
        if now < self._look_at:
            return
        self._look_at = now + limits.watch
        taken = resident(self._process.pid)
        if (limits.memory and taken > limits.memory) or _memory_is_short(limits.spare, taken):
            self._full = True
            self._kill("it took more memory than there is")

    def _spawn(self) -> None:
        self.foreman.logs.mkdir(parents=True, exist_ok=True)
        with open(self.foreman.logs / f"worker-{self.name}.log", "ab") as errors:
            process = subprocess.Popen(
                list(self.foreman.command(self.kind)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.foreman.environment(self.kind) if self.foreman.environment else None,
                start_new_session=True,  # a Ctrl-C in the server's terminal is not for it
            )
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):  # where memory runs out, the kernel takes the worker and not the server
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("500")
        self._process, self._pipe = process, Pipe(cast(BinaryIO, process.stdin))
        self._who, self._ready, self._ending, self._term_at = identity(process.pid), False, "", None
        self._since, self._kills, self.state = time.monotonic(), kernel_kills(), {}
        threading.Thread(target=self._read, args=(process,), name=f"read-{self.name}", daemon=True).start()
        with suppress(OSError):  # it has died: its end will be in the inbox
            self._pipe.send({"do": "begin", "settings": self._settings})

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for told in batches(cast(BufferedReader, process.stdout)):
            self._inbox.put(("said", told))
        self._inbox.put(("gone", process))

    def _give(self) -> bool:
        """Give the worker what is next; whether there was anything."""
        assert self._pipe is not None
        foreman, given = self.foreman, []
        leased, self._leased = self._leased or self._lease(), []
        for leased_job in leased:
            try:
                job = foreman.ready(leased_job)
                if job is None:
                    continue
                folder = foreman.folder(job)
            except BottegaError as error:
                failed = Failed(type(error).__name__, error.what, error.remedy)
                self._owe(leased_job.id, partial(foreman.queue.fail, leased_job.id, failed))
                continue
            self._working[job.id] = _Working(job, time.monotonic())
            given.append({"job": job.id, "kind": job.kind, "request": job.request, "folder": str(folder)})
        self._heard_at = time.monotonic()
        if given:
            with suppress(OSError):  # it has died: its end is in the inbox
                self._pipe.send({"do": "work", "jobs": given})
        elif leased:
            self._inbox.put(("wake", None))  # to look again
        return bool(leased)

    def _handle(self, what: str, told: Any) -> None:
        if what == "gone":
            self._bury(told)
        elif what == "cancel":
            self._cancel(told)
        elif what == "unload":
            self._unload(told)
        elif what == "stop":
            self._stop_by = told
            self._ask_to_leave()

    def _unload(self, done: Future[None]) -> None:
        self._unloading.append(done)
        if self._pipe is not None and self._ready:
            with suppress(OSError):  # it has died, and its models are gone
                self._pipe.send({"do": "unload"})
        if self._working or not self._ready:
            self._unloaded()

    def _unloaded(self) -> None:
        gone, self._unloading = self._unloading, []
        for done in gone:
            done.set_result(None)

    def _ask_to_leave(self) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.send({"do": "stop"})

    def _cancel(self, id: str) -> None:
        working = self._working.get(id)
        if working is None or working.stop_by is not None or self._pipe is None:
            return
        limits = self.foreman.limits
        working.stop_by = time.monotonic() + limits.obey + max(2 * working.longest, 1.0)
        if working.job.kind == TRAIN:
            working.stop_by += limits.keep
        with suppress(OSError):
            self._pipe.send({"do": "cancel", "job": id})

    def _hear(self, message: Mapping[str, Any]) -> None:
        say = message["say"]
        self._heard_at = now = time.monotonic()
        if say == "hello":
            self._ready, self._since, self._crashes, self.unable = True, now, 0, None
            self.device = message["facts"].get("device", self.name)
            self.state = {"name": message["facts"].get("name", ""), "memory": message["facts"].get("memory")}
            if self.name == MAKE:
                self.foreman.on_hello(self.name, message["facts"])
                for device in message["facts"].get("others", ()):
                    self.foreman.also_on(device)
            return
        if "free" in message:
            self.state |= {"free": message["free"], "models": message["models"]}
        if say == "beat":
            return
        if say == "unloaded":
            self._unloaded()
            return
        if say == "unable":
            self.unable = Failed(message["error"], message["what"], message["remedy"])
            log.error("%s: %s", self.name, self.unable.what)
            return
        working = self._working.get(message["job"])
        if working is None:
            return
        working.longest, working.last = max(working.longest, now - working.last), now
        job = working.job
        if say == "event":
            working.said.append(_event(message["event"]))
        elif say == "preview":
            self.foreman.show(job, base64.b64decode(message["png"]))
        elif say == "made":
            working.unkept.append(message)
            self._keep(working)
        else:
            del self._working[job.id]
            self._since = now
            self._owe(job.id, partial(self._settle, working, message))

    def _keep(self, working: _Working) -> None:
        """Keep what a job has made; raises where somebody else is writing there, as that passes."""
        while working.unkept:
            try:
                working.said.append(self.foreman.on_made(working.job, working.unkept[0]))
            except BottegaError as error:
                if is_busy(error):
                    raise
                working.failed = Failed(type(error).__name__, error.what, error.remedy)
            del working.unkept[0]

    def _settle(self, working: _Working, message: Mapping[str, Any]) -> None:
        """Write down how a job has ended, and before that what it has made."""
        self._keep(working)
        queue, say, id = self.foreman.queue, message["say"], working.job.id
        if say != "done":
            self._record(working)
        if working.failed is not None:
            queue.fail(id, working.failed)
        elif say == "done":
            self._finish(id, _outcome(message), working.said)
        elif say == "failed":
            queue.fail(id, Failed(message["error"], message["what"], message["remedy"]))
        elif working.stop_by is not None:
            queue.cancelled(id)
        else:
            why = "the server was stopped" if self._stop_by is not None else "one that was made with it was stopped"
            queue.requeue(id, why, counts=False)

    def _finish(self, id: str, outcome: Done | Result, said: Sequence[Any]) -> None:
        """A job is done; what is next is taken in the same breath, so that there is one write less to wait for."""
        with self.foreman.queue.at_once():
            self.foreman.queue.finish(id, outcome, told=said)
            leased = [] if self._working or self._stop_by is not None else self._lease()
        self._leased += leased

    def _lease(self) -> list[Job]:
        return self.foreman.queue.lease(self.kind, self._who, most=self.foreman.together(self.kind))

    # --- the end of a worker

    def _kill(self, why: str) -> None:
        assert self._process is not None
        self._ending = self._ending or why
        log.warning("%s: worker %s is killed: %s", self.name, self._who, self._ending)
        with suppress(OSError):
            self._process.kill()
        self._term_at = time.monotonic() + 60.0

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """The worker has hung up: it ends, and what it had in hand waits again, or fails."""
        if process is not self._process:
            return
        assert self._pipe is not None and process.stdout is not None
        self._pipe.close()
        try:
            code = process.wait(timeout=self.foreman.limits.leave)
        except subprocess.TimeoutExpired:
            self._ending = self._ending or "it said what no worker says"
            process.kill()
            code = process.wait()
        process.stdout.close()
        asked = self._stop_by is not None or (not self._working and code == 0)
        outside = code == -signal.SIGKILL and not self._ending and kernel_kills() == self._kills
        why = self._ending or ("it was killed" if outside else _how(code))
        if not asked:
            log.warning("%s: worker %s is gone: %s", self.name, self._who, why)
        was_ready, self._ready = self._ready, False
        self._process = self._pipe = None
        self._term_at = None
        self.state = {name: told for name, told in self.state.items() if name not in ("free", "models")}
        self._unloaded()
        queue, full, self._full = self.foreman.queue, self._full, False
        counts = not (outside or self._stop_by is not None)
        hands, self._working = self._working, {}
        for working in hands.values():
            self._record(working)
        for job in self._leased:
            self._owed[job.id] = partial(queue.requeue, job.id, why, counts=False)
        self._leased = []
        for id, working in hands.items():
            if working.stop_by is not None:
                self._owed[id] = partial(queue.cancelled, id)
            elif full and working.job.attempt > 1:
                self._owed[id] = partial(queue.fail, id, Failed("OutOfMemory", f"the worker was ended: {why}", SMALLER))
            else:
                # Whoever kills a worker from outside says nothing against the job that it had in hand.
                self._owed[id] = partial(queue.requeue, id, why, counts=counts)
        if not asked:
            if not was_ready:
                self._crashes += 1
            backoff = self.foreman.limits.backoff
            self._start_at = time.monotonic() + backoff[min(self._crashes, len(backoff) - 1)]
        self._pay()


def take_up(queue: Queue) -> None:
    """Have what a server that is gone had in hand wait again."""
    for job, worker in queue.running():
        end_orphan(worker)
        queue.requeue(job.id, "the server ended while it ran", counts=False)


def end_orphan(worker: str) -> None:
    """Make sure that a worker of a server that is gone is gone as well, so that no two do the same."""
    number = worker.partition(":")[0]
    if not worker.endswith(":") and lives(worker):
        with suppress(OSError):
            os.kill(int(number), signal.SIGKILL)
        deadline = time.monotonic() + 5.0
        while lives(worker) and time.monotonic() < deadline:
            time.sleep(0.01)


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"it ended with {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"


def _memory_is_short(spare: int, taken: int) -> bool:
    from bottega.runtime.plan import available_memory

    return taken > spare and available_memory() < spare


_SAID = {kind.__name__.lower(): kind for kind in (Started, Step, Note, Learned, Sampled, Trained)}


def _event(told: Mapping[str, Any]) -> Event:
    return _SAID[told["event"]](**{name: value for name, value in told.items() if name != "event"})


def _outcome(message: Mapping[str, Any]) -> Done | Result:
    if "result" in message:
        return Result(message["result"])
    return Done(**message["done"])
