"""The worker: the process in which the work of a server's jobs is done, told what to do over its standard input.

`python -m bottega.worker make` makes outputs and trains on one device, `python -m bottega.worker library` works on the
shelves. Each is told one piece of work at a time and answers with what happens; when nobody listens any more, it ends.
"""

from __future__ import annotations

import base64
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, cast

from bottega.errors import BottegaError, Interrupted
from bottega.events import Done, Event, Failed, Learned, Made, Preview, Sampled, Started, Step, Trained
from bottega.jobs.job import MAKE, TRAIN
from bottega.jobs.wire import Pipe, messages
from bottega.settings import Settings, settings_from

BEAT_EVERY = 1.0  # seconds between signs of life, while there is work
LEAVE_WITHIN = 5.0  # seconds in which work has to stop once nobody listens any more
LOAD_WITHIN = 600.0  # seconds that a model may take to load, or a site to answer, without a sign of progress
STEP_WITHIN = 1800.0  # seconds that one step may take while the processor is busy with it
STEP_EVERY = 0.5  # seconds between two Steps that are told: a short job is told of in one go
PREVIEW_EVERY = 0.5  # seconds between two rough pictures

PATIENT = ("load", "get")  # phases in which a worker may wait for a disk or a site


class Life:
    """Signs of life: only while the work gets on, so that one that hangs is missed by whoever waits for it.

    `facts` is what is told with each.
    """

    def __init__(self, pipe: Pipe, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._pipe = pipe
        self._facts = facts
        self._working = threading.Event()
        self._progress = time.monotonic()
        self._phase = ""
        self._told = 0.0
        self._held: list[Callable[[], None]] = []
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def begin(self) -> None:
        """Work begins."""
        self.went_on("begin")
        self._working.set()

    def end(self) -> None:
        """Nothing is to be done for now."""
        self._working.clear()
        self._held = []

    def beat_with(self, catch_up: Callable[[], None]) -> None:
        """Until the work ends, call this as often as a sign of life is due: it tells what was not worth it before."""
        self._held.append(catch_up)

    def went_on(self, phase: str) -> None:
        """The work has got on, and is in this phase now."""
        self._progress = time.monotonic()
        self._phase = phase

    def facts(self) -> Mapping[str, Any]:
        """What there is to know, to be told; nothing, where the device is lost and can't be asked."""
        self._told = time.monotonic()
        try:
            return self._facts()
        except RuntimeError as error:
            print(f"the device can't be asked: {error}", file=sys.stderr)
            return {}

    def beat(self) -> None:
        """Give a sign of life; raises OSError if nobody is there to see it."""
        self._pipe.send({"say": "beat", **self.facts()})

    def _beat(self) -> None:
        spent = time.process_time()
        while True:
            if not self._working.is_set():
                self._working.wait()
                time.sleep(min(STEP_EVERY, BEAT_EVERY))
                if not self._catch_up():
                    return
            time.sleep(BEAT_EVERY)
            before, spent = spent, time.process_time()
            silent = time.monotonic() - self._progress
            waits = self._phase in PATIENT and silent < LOAD_WITHIN
            computes = spent - before > BEAT_EVERY / 20 and silent < STEP_WITHIN
            is_known = time.monotonic() - self._told < BEAT_EVERY  # with the end of a job
            if not self._working.is_set():
                continue
            if not self._catch_up():
                return
            try:
                if not is_known and (silent < 2 * BEAT_EVERY or waits or computes):
                    self.beat()
            except OSError:
                return

    def _catch_up(self) -> bool:
        """Have all that is held back told; whether anybody is there to hear it."""
        try:
            for catch_up in self._held:
                catch_up()
        except OSError:
            return False
        return True


class Told:
    """What the server wants: pieces of work, one after the other, and that one of them stops."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._jobs: tuple[str, ...] = ()
        self._ahead: set[str] = set()  # jobs that wait to be taken up
        self._unwanted: set[str] = set()  # those of them that were cancelled meanwhile
        self._leaving = False
        self.stop = threading.Event()

    def listen(self) -> None:
        """Hear the server out, in a thread of its own; once it is gone, so is this process."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next piece of work; None when there will be none."""
        told = self._messages.get()
        with self._lock:
            if told is None or self._leaving:
                return None
            self._jobs = _jobs_of(told)
            self.stop.clear()
            if not self._unwanted.isdisjoint(self._jobs):
                self.stop.set()
            self._ahead.difference_update(self._jobs)
            self._unwanted.difference_update(self._jobs)
        return told

    def done(self) -> None:
        """That piece of work is over."""
        with self._lock:
            self._jobs = ()

    def _listen(self) -> None:
        for message in messages(cast(BufferedReader, sys.stdin.buffer)):
            if message["do"] == "stop":
                break
            if message["do"] != "cancel":
                with self._lock:
                    self._ahead.update(_jobs_of(message))
                self._messages.put(message)
                continue
            with self._lock:
                if message["job"] in self._jobs:
                    self.stop.set()
                elif message["job"] in self._ahead:
                    self._unwanted.add(message["job"])
        with self._lock:
            self._leaving = True
            self.stop.set()
        self._messages.put(None)
        time.sleep(LEAVE_WITHIN)
        os._exit(1)  # the work did not obey


class Telling:
    """Tells the server what happens to one job; of many small steps only some.

    A beginning and an output are told together with what follows, which is one thing less to hear. A step that comes
    too soon after the beginning or another step is told with what follows, too, or with the next sign of life.
    """

    def __init__(self, pipe: Pipe, job: str, life: Life) -> None:
        self._pipe, self.job, self._life = pipe, job, life
        self._told = time.monotonic()
        self._held: list[Mapping[str, Any]] = []
        self._step: Event | None = None  # the newest that is not told yet
        self._lock = threading.Lock()  # what is written is compared in a thread that tells of it, too
        life.beat_with(self.catch_up)

    def __call__(self, event: Event) -> None:
        """Tell of an event."""
        if isinstance(event, Step | Learned | Sampled):
            phase = event.phase if isinstance(event, Step) else "train"
            self._life.went_on(phase)
            is_news = isinstance(event, Sampled) or (
                isinstance(event, Learned) and (event.validation is not None or event.step == event.total)
            )
            if not is_news:
                with self._lock:
                    self._step = event
                if time.monotonic() - self._told >= STEP_EVERY:
                    self.catch_up()
                return
        self._hold(self._told_of(event))
        if not isinstance(event, Started):
            self.catch_up()

    def made(self, event: Made, seconds: float) -> None:
        """Tell of an output, with all that a gallery wants to know of it: the server has other things to do."""
        from bottega.formats import media
        from bottega.recipe import read_recipe

        self._life.went_on("save")
        self._forget_step()
        carried = media.read(event.path).recipe
        assert carried is not None  # it was just written
        recipe = read_recipe(carried)
        assert recipe.model is not None
        output = {
            "medium": "image",
            "format": recipe.output.format,
            "bytes": os.path.getsize(event.path),
            "task": recipe.task,
            "prompt": recipe.prompt,
            "negative": recipe.negative,
            "model": recipe.model.name,
            "model_sha256": recipe.model.sha256 or "",
            "recipe": carried,
            "seconds": seconds,
        }
        self._hold({"say": "made", "job": self.job, "event": event.to_json(), "output": output})

    def over(self, how: str, **more: Any) -> None:
        """Tell that the job has ended, and how: `done`, `failed` or `stopped`; with the state of the device."""
        self._forget_step()
        self._hold({"say": how, "job": self.job, **more, **self._life.facts()})
        self.catch_up()

    def catch_up(self) -> None:
        """Tell what is held, if anything is."""
        with self._lock:
            told, self._held = [*self._held, *self._last_step()], []
            if told:
                self._told = time.monotonic()
                self._pipe.send(*told)

    def _hold(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._held += [*self._last_step(), message]

    def _forget_step(self) -> None:
        """It is behind us."""
        with self._lock:
            self._step = None

    def _last_step(self) -> list[dict[str, Any]]:
        step, self._step = self._step, None
        return [self._told_of(step)] if step else []

    def _told_of(self, event: Event) -> dict[str, Any]:
        return {"say": "event", "job": self.job, "event": event.to_json()}


class Glimpses:
    """Rough pictures of several jobs, sent to the server now and then."""

    def __init__(self, pipe: Pipe, jobs: Sequence[str]) -> None:
        self._pipe, self._jobs = pipe, jobs
        self._last = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._last > PREVIEW_EVERY

    def show(self, part: int, content: bytes) -> str:
        """Send a PNG; it is no file that has a path."""
        self._last = time.monotonic()
        self._pipe.send({"say": "preview", "job": self._jobs[part], "png": base64.b64encode(content).decode()})
        return ""

    def close(self) -> None:
        """There is nothing to take away."""


class Craft(Protocol):
    """What a worker does with a piece of work."""

    def work(self, jobs: Sequence[Mapping[str, Any]], stop: threading.Event) -> None:
        """Do it, and tell how it goes; `stop` is set when it is to end within a step."""

    def unload(self) -> None:
        """Let go of the models that are kept loaded, and tell so."""


class Maker:
    """Makes outputs and trains on one device; the models that outputs are made with stay loaded."""

    def __init__(self, settings: Settings, pipe: Pipe) -> None:
        from bottega.workbench import Workbench

        self._pipe = pipe
        self._workbench = Workbench(settings)
        facts = self._workbench.facts  # imports torch, before anybody waits for a picture
        pipe.send({"say": "hello", "facts": facts.to_json()})
        self._life = Life(pipe, self._state)

    def _state(self) -> dict[str, Any]:
        return {"free": self._workbench.facts.free, "models": self._workbench.loaded}

    def work(self, jobs: Sequence[Mapping[str, Any]], stop: threading.Event) -> None:
        """Make the outputs of jobs that are alike, together; or train."""
        self._life.begin()
        try:
            if jobs[0]["kind"] == TRAIN:
                self._train(jobs[0], stop)
                is_told = False
            else:
                is_told = self._make(jobs, stop)
        finally:
            self._life.end()
        if not is_told:
            self._life.beat()

    def unload(self) -> None:
        """Let go of all models: whatever else is on this machine wants the memory."""
        self._workbench.let_go()
        self._pipe.send({"say": "unloaded", **self._life.facts()})

    def _make(self, jobs: Sequence[Mapping[str, Any]], stop: threading.Event) -> bool:
        """Make them; where one of several fails, those that are left are made one by one.

        Whether all went well, so that what there is to know of the device was told after everything was let go of.
        """
        told = [Telling(self._pipe, job["job"], self._life) for job in jobs]
        left = dict(enumerate(told))
        since = time.monotonic()
        try:
            parts = [_part(job) for job in jobs]
            shown = Glimpses(self._pipe, [job["job"] for job in jobs])
            with closing(self._workbench.run_together(parts, shown, stop)) as said:
                for which, event in said:
                    for number in which:
                        if isinstance(event, Made):
                            told[number].made(event, round(time.monotonic() - since, 3))
                            since = time.monotonic()
                        elif isinstance(event, Done):
                            left.pop(number).over("done", done=_fields(event))
                        elif not isinstance(event, Failed | Preview):
                            told[number](event)
        except Interrupted:
            for each in left.values():
                each.over("stopped")
        except BrokenPipeError:
            raise
        except Exception as error:
            if len(left) > 1:
                for each in left.values():
                    each.catch_up()
                for number in left:
                    self._make([jobs[number]], stop)
                return False
            for each in left.values():
                each.over("failed", **failure(error))
        return not left

    def _train(self, job: Mapping[str, Any], stop: threading.Event) -> None:
        """Train from where an earlier attempt was broken off, if there was one."""
        told = Telling(self._pipe, job["job"], self._life)
        try:
            told.over("done", result=self._taught(job["request"], told, stop))
        except Interrupted:
            told.over("stopped")
        except BrokenPipeError:
            raise
        except Exception as error:
            told.over("failed", **failure(error))
        finally:
            self._workbench.let_go()

    def _taught(self, request: Mapping[str, Any], told: Telling, stop: threading.Event) -> dict[str, Any]:
        """The result of a training as plain data; its file is on record by then."""
        from bottega.library.hashes import hashes_of
        from bottega.training.naming import MADE
        from bottega.training.recipe import training_from

        out, result = Path(request["out"]), dict[str, Any]()
        told(Step("check", 0, 1))
        self._workbench.let_go()  # a training takes all the memory that it can get
        prepared = self._workbench.prepare_training(training_from(request["training"]))
        told(Step("check", 1, 1))
        if stop.is_set():
            raise Interrupted("stopped")
        with closing(self._workbench.train(prepared, out, stop=stop)) as events:
            for event in events:
                if isinstance(event, Sampled | Trained):
                    event = replace(event, path=os.path.basename(event.path))
                if isinstance(event, Trained):
                    result = {"file": event.path, "sha256": event.sha256, "steps": event.steps, "digest": event.digest}
                if not isinstance(event, Done | Failed):
                    told(event)
        hashes_of(self._workbench.catalog, self._workbench.find(str(out), MADE[prepared.recipe.kind]))
        return result


class Shelver:
    """Works on the shelves: scans, fetches, converts, merges, hashes."""

    def __init__(self, settings: Settings, pipe: Pipe) -> None:
        self._settings, self._pipe = settings, pipe
        pipe.send({"say": "hello", "facts": {}})
        self._life = Life(pipe, dict)

    def work(self, jobs: Sequence[Mapping[str, Any]], stop: threading.Event) -> None:
        """Do one job after the other."""
        from bottega.shelfwork import work

        for job in jobs:
            telling = Telling(self._pipe, job["job"], self._life)
            self._life.begin()
            try:
                result = work(job["kind"], job["request"], self._settings, telling, stop)
                telling.over("done", result=result)
            except Interrupted:
                telling.over("stopped")
            except BrokenPipeError:
                raise
            except Exception as error:
                telling.over("failed", **failure(error))
            finally:
                self._life.end()

    def unload(self) -> None:
        """There are none."""
        self._pipe.send({"say": "unloaded"})


def main(lane: str) -> int:
    """Do what the server says until it says no more; the exit code."""
    pipe = _quiet_pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the server, which tells us
    told = Told()
    told.listen()
    begin = told.next()
    if begin is None:
        return 0
    settings = settings_from(begin["settings"])
    try:
        craft: Craft = Maker(settings, pipe) if lane == MAKE else Shelver(settings, pipe)
    except BottegaError as error:
        pipe.send({"say": "unable", **failure(error)})
        return 1
    try:
        while (message := told.next()) is not None:
            if message["do"] == "unload":
                craft.unload()
            else:
                craft.work(message["jobs"], told.stop)
            told.done()
    except BrokenPipeError:  # the server is gone
        return 1
    return 0


def failure(error: Exception) -> dict[str, str]:
    """How a job failed: the name of the error, what happened and what to do about it."""
    if isinstance(error, BottegaError):
        return {"error": type(error).__name__, "what": error.what, "remedy": error.remedy}
    if isinstance(error, OSError | MemoryError):
        what = str(error) or "this machine has not enough memory for that"
        return {"error": type(error).__name__, "what": what, "remedy": "see the worker's log"}
    traceback.print_exception(error)
    what = f"this is a bug in Bottega ({type(error).__name__}: {error})"
    return {"error": type(error).__name__, "what": what, "remedy": "report it to the project's issues, with the log"}


def _jobs_of(message: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the jobs that a piece of work consists of."""
    return tuple(each["job"] for each in message.get("jobs", ()))


def _part(job: Mapping[str, Any]) -> Any:
    """The part of some work that a job is."""
    from bottega.engine.run import Part
    from bottega.engine.save import Named
    from bottega.recipe import recipe_from

    return Part(recipe_from(job["request"]["recipe"]), Named(Path(job["folder"]), job["job"]))


def _fields(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.to_json().items() if name != "event"}


def _quiet_pipe() -> Pipe:
    """The way to the server; whatever a library prints goes to the log instead."""
    pipe = Pipe(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # not a moment is spent on taking torch apart
