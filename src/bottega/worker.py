"""The worker: the process in which the work of a server's jobs is done, told what to do over its standard input.

`python -m bottega.worker make` makes outputs on one device, `python -m bottega.worker library` works on the shelves.
Each is told one piece of work at a time and answers with what happens; when nobody listens any more, it ends.
"""

from __future__ import annotations

import base64
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.errors import BottegaError, Interrupted, OutOfMemory
from bottega.events import Done, Event, Failed, Made, Preview, Step
from bottega.jobs.wire import Pipe, messages
from bottega.settings import Settings, read_settings

if TYPE_CHECKING:
    from bottega.workbench import Workbench

BEAT_EVERY = 1.0  # seconds between signs of life, while there is work
LEAVE_WITHIN = 5.0  # seconds in which work has to stop once nobody listens any more
LOAD_WITHIN = 600.0  # seconds that a model may take to load without a sign of progress
STEP_WITHIN = 1800.0  # seconds that one step may take while the processor is busy with it
STEP_EVERY = 0.1  # seconds between two Steps that are told
PREVIEW_EVERY = 0.5  # seconds between two rough pictures


class Life:
    """Signs of life: only while the work gets on, so that one that hangs is missed by whoever waits for it."""

    def __init__(self, pipe: Pipe, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._pipe = pipe
        self._facts = facts
        self._working = threading.Event()
        self._progress = time.monotonic()
        self.phase = ""
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def begin(self) -> None:
        """Work begins."""
        self.went_on("begin")
        self._working.set()

    def end(self) -> None:
        """Nothing is to be done for now."""
        self._working.clear()

    def went_on(self, phase: str) -> None:
        """The work has got on, and is in this phase now."""
        self._progress = time.monotonic()
        self.phase = phase

    def _beat(self) -> None:
        spent = time.process_time()
        while True:
            self._working.wait()
            time.sleep(BEAT_EVERY)
            before, spent = spent, time.process_time()
            silent = time.monotonic() - self._progress
            loads = self.phase in ("begin", "load") and silent < LOAD_WITHIN
            computes = spent - before > BEAT_EVERY / 20 and silent < STEP_WITHIN
            if self._working.is_set() and (silent < 2 * BEAT_EVERY or loads or computes):
                try:
                    self._pipe.send({"say": "beat", "phase": self.phase, **self._facts()})
                except OSError:
                    return


class Told:
    """What the server wants: pieces of work, one after the other, and that one of them stops."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._work: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._job: str | None = None
        self.stop = threading.Event()
        self.leaving = False

    def listen(self) -> None:
        """Hear the server out, in a thread of its own; once it is gone, so is this process."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next piece of work; None when there will be none."""
        told = self._work.get()
        with self._lock:
            if told is None or self.leaving:
                return None
            self._job = told["job"]
            self.stop.clear()
        return told

    def done(self) -> None:
        """That piece of work is over."""
        with self._lock:
            self._job = None

    def _listen(self) -> None:
        for message in messages(sys.stdin.buffer):
            what = message["do"]
            if what == "work":
                self._work.put(message)
            elif what == "cancel":
                with self._lock:
                    if message["job"] == self._job:
                        self.stop.set()
            elif what == "stop":
                break
        with self._lock:
            self.leaving = True
            self.stop.set()
        self._work.put(None)
        time.sleep(LEAVE_WITHIN)
        os._exit(1)  # the work did not obey


class Glimpses:
    """Rough pictures, sent to the server now and then."""

    def __init__(self, pipe: Pipe, job: str) -> None:
        self._pipe, self._job = pipe, job
        self._last = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._last > PREVIEW_EVERY

    def show(self, content: bytes) -> str:
        """Send a PNG; it is no file that has a path."""
        self._last = time.monotonic()
        self._pipe.send({"say": "preview", "job": self._job, "png": base64.b64encode(content).decode()})
        return ""

    def close(self) -> None:
        """There is nothing to take away."""


class Maker:
    """Makes outputs on one device, with models that stay loaded."""

    def __init__(self, settings: Settings, pipe: Pipe, told: Told) -> None:
        from bottega.workbench import Workbench

        self._pipe, self._told = pipe, told
        self._workbench: Workbench = Workbench(settings)
        facts = self._workbench.facts  # imports torch, before anybody waits for a picture
        pipe.send({"say": "hello", "pid": os.getpid(), "facts": facts.to_json()})
        self._life = Life(pipe, lambda: {"free": self._workbench.facts.free})

    def work(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Make one job's outputs and tell how it goes; what there is to say at its end."""
        from bottega.engine.save import Named
        from bottega.recipe import recipe_from

        job = message["job"]
        tell = Telling(self._pipe, job, self._life)
        self._life.begin()
        began = time.monotonic()
        outcome: dict[str, Any] = {}
        try:
            recipe = recipe_from(message["request"]["recipe"])
            target = Named(Path(message["folder"]), job)
            events = self._workbench.run_into(target, recipe, Glimpses(self._pipe, job), self._told.stop)
            for event in events:
                if isinstance(event, Made):
                    tell.made(event, time.monotonic() - began)
                elif isinstance(event, Done):
                    outcome["done"] = {"digest": event.digest, "outputs": event.outputs, "seconds": event.seconds}
                elif not isinstance(event, Failed | Preview):
                    tell(event)
        finally:
            self._life.end()
        return outcome


class Telling:
    """Tells the server what happens to one job; of many small steps only some."""

    def __init__(self, pipe: Pipe, job: str, life: Life) -> None:
        self._pipe, self._job, self._life = pipe, job, life
        self._phase, self._told = "", 0.0

    def __call__(self, event: Event) -> None:
        """Tell of an event."""
        if isinstance(event, Step):
            self._life.went_on(event.phase)
            now = time.monotonic()
            if event.phase == self._phase and now - self._told < STEP_EVERY:
                return
            self._phase, self._told = event.phase, now
        self._pipe.send({"say": "event", "job": self._job, "event": event.to_json()})

    def made(self, event: Made, seconds: float) -> None:
        """Tell of an output, with all that a gallery wants to know of it."""
        from bottega.formats import media

        self._life.went_on("save")
        carried = media.read(event.path)
        told = {"recipe": carried.recipe, "bytes": os.path.getsize(event.path), "seconds": round(seconds, 3)}
        self._pipe.send({"say": "made", "job": self._job, "event": event.to_json(), **told})


def main(lane: str) -> int:
    """Do what the server says until it says no more; the exit code."""
    pipe = _quiet_pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the server, which tells us
    told = Told(pipe)
    told.listen()
    try:
        maker = _maker(lane, pipe, told)
    except BottegaError as error:
        pipe.send({"say": "unable", **_failure(error)})
        return 1
    while (message := told.next()) is not None:
        job = message["job"]
        try:
            answer = {"say": "done", "job": job, **maker.work(message)}
        except Interrupted:
            answer = {"say": "stopped", "job": job}
        except BrokenPipeError:
            return 1
        except (MemoryError, OutOfMemory) as error:
            answer = {"say": "failed", "job": job, **_failure(error)}
        except BottegaError as error:
            answer = {"say": "failed", "job": job, **_failure(error)}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"say": "failed", "job": job, **_failure(error)}
        told.done()
        pipe.send(answer)
    return 0


def _maker(lane: str, pipe: Pipe, told: Told) -> Maker:
    settings = read_settings()
    return Maker(settings, pipe, told)


def _failure(error: BaseException) -> dict[str, str]:
    if isinstance(error, BottegaError):
        return {"error": type(error).__name__, "what": error.what, "remedy": error.remedy}
    return {
        "error": type(error).__name__,
        "what": f"this is a bug in Bottega ({type(error).__name__}: {error})",
        "remedy": "report it to the project's issues, with the worker's log",
    }


def _quiet_pipe() -> Pipe:
    """The way to the server; whatever a library prints goes to the log instead."""
    pipe = Pipe(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # not a moment is spent on taking torch apart
