"""A worker that does what a test's job asks of it, good or bad, and says so as a real one does; without torch."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bottega.jobs.wire import Pipe
from bottega.worker import Life, Told


class Odd:
    """Does odd things with jobs."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.life = Life(pipe, dict)

    def step(self, job: str, done: int, total: int) -> None:
        self.life.went_on("sample")
        event = {"event": "step", "phase": "sample", "done": done, "total": total, "image": 0}
        self.pipe.send({"say": "event", "job": job, "event": event})

    def make(self, job: str, folder: Path, request: dict[str, Any], stop: threading.Event) -> bool:
        """Make an output in many small steps; False if it was stopped."""
        steps = int(request.get("steps", 3))
        for done in range(steps):
            self.step(job, done, steps)
            if stop.wait(float(request.get("pause", 0.0))):
                return False
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{job}-0.txt"
        path.write_text(str(request.get("text", job)))
        self.pipe.send({"say": "made", "job": job, "event": {"event": "made", "path": str(path)}})
        return True

    def work(self, jobs: list[dict[str, Any]], stop: threading.Event) -> None:
        self.life.begin()
        for each in jobs:
            job, request, folder = each["job"], each["request"], Path(each["folder"])
            how = request.get("how", "make")
            once = folder.parent / f"{job}-began"
            if how.endswith("-once"):
                how = "make" if once.exists() else how.removesuffix("-once")
                once.parent.mkdir(parents=True, exist_ok=True)
                once.touch()
            self.step(job, 0, 1)
            if how == "abort":
                os.abort()
            elif how == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif how == "exit":
                os._exit(3)
            elif how == "hang":
                threading.Event().wait()
            elif how == "hang-deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                threading.Event().wait()
            elif how == "eat":
                held = []
                while True:
                    held.append(bytearray(os.urandom(1 << 16) * 256))  # 16 MiB that can't be shared
                    self.step(job, len(held), 1 << 20)
            elif how == "deaf":
                while True:
                    self.step(job, 0, 1)
                    time.sleep(0.01)
            elif how == "babble":
                os.write(1, b"this is no message\n")
                self.pipe._stream.write(b"{broken\n")
                self.pipe._stream.flush()
                threading.Event().wait()
            elif how == "fail":
                self.pipe.send({"say": "failed", "job": job, "error": "Sad", "what": "it failed", "remedy": "cheer up"})
                continue
            if self.make(job, folder, request, stop):
                done = {"digest": "d", "outputs": 1, "seconds": 0.1}
                self.pipe.send({"say": "done", "job": job, "done": done})
            else:
                self.pipe.send({"say": "stopped", "job": job})
        self.life.end()


def main(mark: str) -> None:
    """Be a worker; each start leaves a line in the file `mark`."""
    with open(mark, "a") as starts:
        starts.write(f"{os.getpid()}\n")
    pipe = Pipe(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    told = Told()
    told.listen()
    if told.next() is None:
        return
    if Path(f"{mark}.crash").exists():
        os.abort()
    odd = Odd(pipe)
    pipe.send({"say": "hello", "facts": {"device": "cpu", "name": "odd"}})
    while (message := told.next()) is not None:
        if message["do"] == "unload":
            if Path(f"{mark}.dies").exists():
                os.abort()
            pipe.send({"say": "unloaded", "free": 1, "models": []})
        else:
            odd.work(message["jobs"], told.stop)
        told.done()


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)
