"""What a server does with a home: it takes work, keeps it in order, and shows what came of it; without torch."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.engine.inputs import keep_input
from bottega.engine.save import make_writable, write_whole
from bottega.errors import BottegaError
from bottega.events import Made
from bottega.formats.atomic import atomic
from bottega.gallery import Gallery, Output, UnknownOutput
from bottega.jobs.foreman import Foreman, Limits, Preview
from bottega.jobs.job import LIBRARY, MAKE, Job, Numbered
from bottega.jobs.queue import Queue
from bottega.recipe import Media, Recipe, read_recipe
from bottega.runtime.facts import Facts, facts_from
from bottega.runtime.plan import available_memory
from bottega.settings import Settings
from bottega.version import __version__
from bottega.workbench import Workbench

if TYPE_CHECKING:
    from bottega.library import Catalog

HELLO_WITHIN = 180.0  # seconds that a first recipe waits for the worker to tell of its device


class NoDevice(BottegaError):
    """The worker does not tell of a device, so nothing can be planned."""


def worker_command(lane: str) -> list[str]:
    """How the worker of a lane is started."""
    return [sys.executable, "-m", "bottega.worker", lane]


class Workshop:
    """A home that works for many at once; every method may be called from any thread.

    `command(lane)` starts a worker.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Callable[[str], Sequence[str]] = worker_command,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        # Raises where a user may not have what they ask for; a server has rules for that.
        self.allow: Callable[[str, Recipe], None] = lambda owner, recipe: None
        self.queue = Queue(settings.home / "queue.sqlite")
        self.gallery = Gallery(settings.home / "gallery.sqlite", settings.outputs)
        self.foreman = Foreman(
            self.queue,
            command,
            on_made=self._keep_output,
            on_hello=self._keep_facts,
            ready=self._ready,
            folder=self.output_folder,
            logs=settings.home / "logs",
            environment={**os.environ, "BOTTEGA_HOME": str(settings.home)},
            limits=limits,
        )
        self._facts: Facts | None = _read_facts(self._facts_file, settings)
        self._facts_told = threading.Event()
        if self._facts is not None:
            self._facts_told.set()
        self._benches = threading.local()

    def start(self) -> None:
        """Take up what an earlier server left, and begin to work."""
        self.foreman.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Stop within a step; what was not finished waits for the next server."""
        self.foreman.stop(timeout)
        self.queue.close()
        self.gallery.close()

    # --- asking for work

    @property
    def catalog(self) -> Catalog:
        """What is known of every model on the shelves; each thread has its own."""
        return self._bench.catalog

    @property
    def _bench(self) -> Workbench:
        if not hasattr(self._benches, "bench"):
            self._benches.bench = Workbench(self.settings, facts=self.facts)
        bench = self._benches.bench
        assert isinstance(bench, Workbench)
        return bench

    def facts(self) -> Facts:
        """The device that pictures are made on, with the memory that a new job could have there.

        Raises NoDevice if the worker has not told of any within HELLO_WITHIN seconds.
        """
        if not self._facts_told.wait(HELLO_WITHIN):
            raise NoDevice("the worker did not start", f"see {self.settings.home / 'logs'}")
        assert self._facts is not None
        if self._facts.device.startswith("cuda"):
            return self._facts
        return replace(self._facts, free=available_memory())

    def resolve(self, draft: Recipe) -> Recipe:
        """The recipe that says everything, just as a Workbench on this machine resolves it; raises what that raises."""
        return self._bench.resolve(draft)

    def plan(self, recipe: Recipe) -> dict[str, Any]:
        """What a resolved recipe will take of the device's memory, in bytes and in words, before it is run."""
        plan = self._bench.memory_plan(recipe)
        return {
            "fits": plan.fits,
            "words": plan.words,
            "needed": plan.needed,
            "available": plan.available,
            "weights": dict(plan.weights),
            "sampling": plan.sampling,
            "decoding": plan.decoding,
            "batch": plan.batch,
            "tiled": plan.tile_vae,
        }

    def submit(
        self,
        draft: Recipe,
        *,
        owner: str,
        priority: int = 0,
        key: str | None = None,
        after: Sequence[str] = (),
        reuse: bool = False,
    ) -> Job:
        """Resolve a draft and put it into the queue.

        With `reuse`, outputs that were made from the same recipe before are the answer at once. Raises what `resolve`
        and `Queue.submit` raise.
        """
        recipe = self.resolve(draft)
        self.allow(owner, recipe)
        return self.queue.submit(
            "make",
            {"recipe": recipe.model_dump(mode="json", exclude_none=True)},
            lane=MAKE,
            owner=owner,
            title=recipe.prompt,
            digest=recipe.digest,
            priority=priority,
            key=key,
            after=after,
            reuse=reuse,
            same={"draft": draft.model_dump(mode="json", exclude_none=True), "after": list(after)},
        )

    def submit_work(
        self, kind: str, request: Mapping[str, Any], *, owner: str, title: str, key: str | None = None
    ) -> Job:
        """Put work on the shelves into the queue: `scan`, `get`, `convert`, `merge` or `hash`."""
        return self.queue.submit(kind, request, lane=LIBRARY, owner=owner, title=title, key=key)

    def keep_input(self, content: bytes, role: str) -> Media:
        """Take a picture in as `init` or `mask` of recipes; FileError for what is no picture."""
        sha256 = hashlib.sha256(content).hexdigest()
        folder = self.settings.inputs
        make_writable(folder, "change its permissions")
        part = folder / f".{sha256}-{threading.get_ident()}"
        try:
            write_whole(part, content)
            return keep_input(part, role, folder)
        finally:
            part.unlink(missing_ok=True)

    def input_path(self, sha256: str) -> Path:
        """Where a picture that was taken in is."""
        return self.settings.inputs / sha256

    # --- what came of it

    def wait(self, id: str, timeout: float | None = None) -> Job:
        """The job once it is over, or as it is after that many seconds."""
        over = threading.Event()
        end = self.foreman.subscribe(lambda told: over.set() if _ends(told, id) else None)
        try:
            if not self.queue.job(id).over:
                over.wait(timeout)
        finally:
            end()
        return self.queue.job(id)

    async def finished(self, id: str) -> Job:
        """The job once it is over."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def heard(told: Numbered | Preview) -> None:
            if _ends(told, id):
                loop.call_soon_threadsafe(over.set)

        end = self.foreman.subscribe(heard)
        try:
            if not self.queue.job(id).over:
                await over.wait()
        finally:
            end()
        return self.queue.job(id)

    def preview(self, id: str) -> bytes | None:
        """The newest rough picture of a job that runs, a PNG."""
        return self.foreman.preview(id)

    def outputs(self, id: str) -> list[Output]:
        """What a job has made so far, in order."""
        job = self.queue.job(id)
        if job.kind == "make" and job.result:
            with_ids = (self._output(each) for each in job.result["outputs"])
            return [output for output in with_ids if output is not None]
        return self.gallery.of_job(id)

    def _output(self, id: str) -> Output | None:
        try:
            return self.gallery.output(id)
        except UnknownOutput:
            return None

    def output_folder(self, job: Job) -> Path:
        """Where the outputs of a job go: the folder of the day on which it was asked for."""
        return self.settings.outputs / datetime.fromtimestamp(job.created).date().isoformat()

    # --- what the foreman asks for

    def _ready(self, job: Job) -> Job:
        return job

    def _keep_output(self, job: Job, told: Mapping[str, Any]) -> Made:
        """Put an output into the gallery; the event that tells of it."""
        event = told["event"]
        recipe = read_recipe(told["recipe"])
        assert recipe.model is not None
        id = f"{job.id}-{event['image']}"
        self.gallery.add(
            Output(
                id=id,
                job=job.id,
                index=event["image"],
                owner=job.owner,
                path=Path(event["path"]),
                medium="image",
                format=recipe.output.format,
                width=event["width"],
                height=event["height"],
                bytes=told["bytes"],
                sha256=event["sha256"],
                seed=event["seed"],
                digest=event["digest"],
                task=recipe.task,
                prompt=recipe.prompt,
                negative=recipe.negative,
                model=recipe.model.name,
                model_sha256=recipe.model.sha256 or "",
                created=time.time(),
                recipe=told["recipe"],
                seconds=told["seconds"],
            )
        )
        return Made(**{**event_fields(event), "path": "", "output": id})

    @property
    def _facts_file(self) -> Path:
        return self.settings.home / "devices.json"

    def _keep_facts(self, lane: str, told: Mapping[str, Any]) -> None:
        """Remember what a worker tells of its device, for the next start too."""
        self._facts = facts_from(told)
        self._facts_told.set()
        # Where it can't be written, the next start has to wait for its worker.
        with suppress(BottegaError), atomic(self._facts_file) as file:
            file.write(json.dumps({"for": _facts_key(self.settings), "facts": dict(told)}).encode())


def event_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event that came as plain data."""
    return {name: value for name, value in event.items() if name != "event"}


def _ends(told: Any, id: str) -> bool:
    kinds = ("done", "result", "failed", "cancelled")
    return isinstance(told, Numbered) and told.job == id and told.event["event"] in kinds


def _facts_key(settings: Settings) -> str:
    return f"{__version__} {settings.device}"


def _read_facts(path: Path, settings: Settings) -> Facts | None:
    """What an earlier worker of this version told of the same device."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return facts_from(told["facts"]) if told["for"] == _facts_key(settings) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
