"""What a server does with a home: it takes work, keeps it in order, and shows what came of it; without torch."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

from bottega.diffusion.names import find_sampler
from bottega.engine.inputs import keep_input
from bottega.engine.save import make_writable, sha256_of, write_whole
from bottega.errors import BottegaError, FieldProblem, FileError, InvalidRecipe, OutOfMemory
from bottega.events import Done, Event, Made, Started
from bottega.first_look import FirstLook
from bottega.formats.atomic import atomic
from bottega.gallery import Gallery, Output, UnknownOutput, Upkeep
from bottega.jobs.foreman import Foreman, Limits, Preview
from bottega.jobs.job import (
    CANCELLED,
    DONE,
    FAILED,
    LIBRARY,
    MAKE,
    OPEN,
    OWNER,
    TRAIN,
    Job,
    Numbered,
    UnknownJob,
    WrongState,
)
from bottega.jobs.queue import Queue
from bottega.library.sources.tokens import VARIABLES
from bottega.recipe import Media, Recipe, recipe_from
from bottega.runtime.facts import Facts, facts_from
from bottega.runtime.plan import available_memory
from bottega.settings import Settings, within
from bottega.training.datasets import Datasets
from bottega.training.recipe import TrainingRecipe, training_from
from bottega.version import __version__
from bottega.workbench import BATCH, Workbench

if TYPE_CHECKING:
    from bottega.engine.train import Prepared
    from bottega.library import Catalog

FRESH = 0.5  # seconds for which it is remembered how much memory is free
HELLO_WITHIN = 180.0  # seconds that a first recipe waits for the worker to tell of its device


UNMADE = "0" * 64  # in the place of the SHA-256 of an input that is yet to be made


@dataclass(frozen=True)
class Awaited:
    """An input that is yet to be made: output number `index` of a job, in this role."""

    role: str
    job: str
    index: int = 0


class Wishes(TypedDict, total=False):
    """How a recipe is to be made; see `Queue.submit`, and `Workshop.prepare` for what is awaited."""

    owner: Required[str]
    priority: int
    key: str | None
    after: Sequence[str]
    reuse: bool
    awaited: Sequence[Awaited]


@dataclass(frozen=True)
class Wanted:
    """A resolved recipe that can be put into the queue: the request and what else `Queue.submit` is given, and the
    outputs that answer it without any work."""

    recipe: Recipe
    request: Mapping[str, Any]
    asked: Mapping[str, Any]
    made: Sequence[Output]


class _Known(Exception):
    """The job was asked for before."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.id)
        self.job = job


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
        self.allow: Callable[[str, Recipe], AbstractContextManager[None]] = lambda owner, recipe: nullcontext()
        self.queue = Queue(settings.home / "queue.sqlite")
        self.gallery = Gallery(settings.gallery, settings.outputs, settings.thumbnails)
        self._upkeep = Upkeep(self.gallery, settings.trash_days * 86_400.0, self._owner_of)
        self.datasets = Datasets(settings.datasets)
        self.first_look = FirstLook(settings, lambda: self.catalog)
        self.foreman = Foreman(
            self.queue,
            command,
            on_made=self._keep_output,
            on_hello=self._keep_facts,
            ready=self._ready,
            together=self._together,
            folder=self.output_folder,
            settings=settings.plain,
            logs=settings.logs,
            environment=self._environment,
            limits=limits,
        )
        self._facts: Facts | None = _read_facts(self._facts_file, settings)
        self._facts_told = threading.Event()
        if self._facts is not None:
            self._facts_told.set()
        self._free_at = 0.0
        self._benches = threading.local()
        self._putting = threading.Lock()  # from the look for a key to the job with it

    def start(self) -> None:
        """Take up what an earlier server left, and begin to work."""
        self.first_look.start()
        self.foreman.start()
        self._upkeep.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Stop within a step; what was not finished waits for the next server."""
        self._upkeep.stop()
        self.first_look.stop()
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
        bench.settings = self.settings  # the default model may be another one by now
        return bench

    def facts(self) -> Facts:
        """The device that outputs are made on, with the memory that a new job could have there.

        What the worker keeps loaded counts as free: it goes when a job needs the room. Raises NoDevice if the worker
        has not told of any within HELLO_WITHIN seconds.
        """
        if not self._facts_told.wait(HELLO_WITHIN):
            why = self.foreman.unable(MAKE)
            raise NoDevice(f"the worker did not start{f': {why}' if why else ''}", f"see {self.settings.logs}")
        assert self._facts is not None
        now = time.monotonic()
        if now - self._free_at > FRESH:
            state = self.foreman.state(MAKE)
            on_cpu = not self._facts.device.startswith("cuda")
            free = available_memory() if on_cpu else int(state.get("free", self._facts.free))
            free += sum(model["bytes"] for model in state.get("models", ()))
            waiting = 0 if on_cpu else available_memory()
            waiting += sum(model.get("waiting", 0) for model in state.get("models", ()))
            self._free_at, self._facts = now, replace(self._facts, free=free, waiting=waiting)
        return self._facts

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
            "waiting": sorted(plan.away),
        }

    def submit(self, draft: Recipe, **asked: Unpack[Wishes]) -> Job:
        """Resolve a draft and put it into the queue; see `prepare`. Raises what that and `Queue.submit` raise."""
        (answer,) = self.put([self.prepare(draft, **asked)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def prepare(self, draft: Recipe, **asked: Unpack[Wishes]) -> Wanted:
        """Resolve a draft, for which a model may have to be hashed, so that it can be put into the queue.

        `awaited` are inputs that other jobs of this owner will have made by then. With `reuse`, outputs that were made
        from the same recipe before are the answer at once. Raises what `resolve` raises, and UnknownJob.
        """
        owner, priority, reuse = asked["owner"], asked.get("priority", 0), asked.get("reuse", False)
        after, awaited = asked.get("after", ()), asked.get("awaited", ())
        told = [asdict(each) for each in awaited]
        request: dict[str, Any] = {}
        if awaited:
            recipe = self._resolve_awaiting(draft, owner, awaited)
            request["awaited"] = told
        else:
            recipe = self.resolve(draft)
        request["recipe"] = recipe.model_dump(mode="json", exclude_none=True)
        queued: dict[str, Any] = {
            "lane": MAKE,
            "owner": owner,
            "title": recipe.prompt,
            "digest": "" if awaited else recipe.digest,
            "priority": priority,
            "after": list(dict.fromkeys([*after, *(each.job for each in awaited)])),
            "reuse": reuse,
            "alike": "" if awaited or self._together(MAKE) == 1 else alike(recipe),
        }
        if (key := asked.get("key")) is not None:
            queued["key"] = key
            queued["same"] = {
                "draft": draft.model_dump(mode="json", exclude_none=True),
                "after": list(after),
                "awaited": told,
                "priority": priority,
                "reuse": reuse,
            }
        made = self._made_before(recipe, owner) if reuse and not queued["after"] else []
        return Wanted(recipe, request, queued, made)

    def put(self, wanted: Sequence[Wanted]) -> list[Job | Exception]:
        """Put what is prepared into the queue, all of it with one write: for each its job, or why there is none, which
        is what `Queue.submit` raises, or that its owner may not have it. Raises QueueError where nothing is written."""
        keys = set[tuple[str, str]]()
        with self._putting, ExitStack() as counted:
            works = [self._counted(each, counted.enter_context(ExitStack()), keys) for each in wanted]
            answers = self.queue.together(works)
        return [answer.job if isinstance(answer, _Known) else answer for answer in answers]

    def _counted(self, wanted: Wanted, counted: ExitStack, keys: set[tuple[str, str]]) -> Callable[[], Job]:
        """What puts this into the queue, once it is counted as its owner's; the stack gives back what is not put.

        What is sent twice at once is one job, and counts as one: `keys` are those of what is counted.
        """
        asked = wanted.asked
        key = (asked["owner"], asked["key"]) if "key" in asked else None
        try:
            if key not in keys:
                if key is not None:
                    self._check_new(asked)
                # Before the queue is locked: it is written down in another file, which somebody else may be writing.
                counted.enter_context(self.allow(asked["owner"], wanted.recipe))
        except Exception as error:  # this one's alone
            return partial(_throw, error)
        if key is not None:
            keys.add(key)
        return partial(self._put, wanted, counted)

    def _put(self, wanted: Wanted, counted: ExitStack) -> Job:
        asked = wanted.asked
        try:
            if "key" in asked:
                self._check_new(asked)
            if wanted.made:
                return self.queue.answer("make", wanted.request, *_told_again(wanted.recipe, wanted.made), **asked)
            return self.queue.submit("make", wanted.request, **asked)
        except BaseException as error:
            counted.__exit__(type(error), error, error.__traceback__)
            raise

    def _check_new(self, asked: Mapping[str, Any]) -> None:
        """Raise _Known if there is a job with this key, KeyReused if it is another's."""
        if known := self.queue.asked_before(asked["owner"], asked["key"], asked["same"]):
            raise _Known(known)

    def _resolve_awaiting(self, draft: Recipe, owner: str, awaited: Sequence[Awaited]) -> Recipe:
        """The recipe with placeholders for inputs that are yet to be made, and the size of the first of them."""
        size: tuple[int, int] | None = None
        for number, each in enumerate(awaited, start=len(draft.inputs)):
            job = self.queue.job(each.job)
            if job.owner != owner:
                raise UnknownJob(each.job)
            recipe = job.request.get("recipe", {})
            if not 0 <= each.index < recipe.get("count", 0):
                what = f"the job {each.job} makes no output number {each.index}"
                raise InvalidRecipe([FieldProblem(f"inputs.{number}", what, "count from 0")])
            if each.role == "init":
                size = (recipe["size"]["width"], recipe["size"]["height"])
        inputs = (*draft.inputs, *(Media(role=each.role, sha256=UNMADE) for each in awaited))
        return self._bench.resolve(draft.changed(inputs=inputs), input_size=size)

    def _made_before(self, recipe: Recipe, owner: str) -> list[Output]:
        """An owner's outputs of just this recipe, one for each picture, with their bytes as they were; else none."""
        found = []
        for index in range(recipe.count):
            known = self.gallery.with_digest(recipe.single(index).digest, owner)
            output = next((each for each in known if _is_whole(each)), None)
            if output is None:
                return []
            found.append(output)
        return found

    def submit_work(
        self, kind: str, request: Mapping[str, Any], *, owner: str, title: str, key: str | None = None
    ) -> Job:
        """Put work on the shelves into the queue: `scan`, `get`, `convert`, `merge` or `hash`."""
        return self.queue.submit(kind, request, lane=LIBRARY, owner=owner, title=title, key=key)

    def prepare_training(self, draft: TrainingRecipe) -> Prepared:
        """A training that says everything, its pictures read and checked, and what it will take; see Workbench's."""
        return self._bench.prepare_training(draft)

    def submit_training(
        self,
        draft: TrainingRecipe,
        out: str,
        *,
        owner: str,
        force: bool = False,
        priority: int = 0,
        key: str | None = None,
        after: Sequence[str] = (),
    ) -> Job:
        """Check a training and put it into the queue; it writes `out`, a place on the home's shelf, and only `force`
        lets it replace what is there.

        It learns from datasets of the home alone, and is kept without the home's path, which may be another one later.
        A job of a training that was broken off, whoever did it, goes on where it was when it is tried again. Raises
        what `prepare_training` and `Queue.submit` raise, InvalidRecipe for a name that is taken, and OutOfMemory.
        """
        same = {"draft": self._kept(draft), "out": out, "force": force, "priority": priority, "after": list(after)}
        if known := self._known_or_free(owner, key, same, out, force):
            return known
        prepared = self.prepare_training(draft)
        if not prepared.plan.fits:
            raise OutOfMemory(prepared.plan.words)
        with self.queue.at_once():
            # Another one may have been put in while the pictures were read.
            known = self._known_or_free(owner, key, same, out, force)
            return known or self.queue.submit(
                TRAIN,
                {"training": self._kept(prepared.recipe), "out": out, "force": force},
                lane=MAKE,
                owner=owner,
                title=Path(out).stem,
                digest=prepared.recipe.digest,
                priority=priority,
                key=key,
                after=after,
                same=same,
            )

    def _known_or_free(self, owner: str, key: str | None, same: Mapping[str, Any], out: str, force: bool) -> Job | None:
        """The job of a training that was asked for with this key before, else None; raises as `_check_free` does."""
        with self.queue.at_once():
            if key is not None and (known := self.queue.asked_before(owner, key, same)):
                return known
            self._check_free(out, force)
            return None

    def _kept(self, recipe: TrainingRecipe) -> dict[str, Any]:
        """A training's recipe as plain data, its datasets named by their ids."""
        told = recipe.model_dump(mode="json", exclude_none=True)
        for source in (*told["data"], *told["regularisation"]):
            source["path"] = os.path.relpath(source["path"], self.settings.datasets)
        return told

    def _placed(self, job: Job) -> Job:
        """A training with the paths that a worker needs; FileError for those that lead out of shelf and datasets."""
        told = job.request["training"]
        datasets = self.settings.datasets
        for name in ("data", "regularisation"):
            placed = [{**source, "path": str(within(datasets, source["path"]))} for source in told[name]]
            told = {**told, name: placed}
        return replace(job, request={"training": told, "out": str(self.trained_file(job))})

    def trained_file(self, job: Job) -> Path:
        """What a training writes; FileError for a place that is not on the home's shelf."""
        return within(self.settings.models, job.request["out"])

    def _check_free(self, out: str, force: bool) -> None:
        """Raise InvalidRecipe where a training would write over a file, or over what another one writes."""
        path = self.settings.models.absolute() / out
        if self._writing(out):
            raise InvalidRecipe([FieldProblem("name", f"{path.stem} is being trained already", "choose another name")])
        if path.exists() and not force:
            remedy = "choose another name, or have it replaced (force)"
            raise InvalidRecipe([FieldProblem("name", f"there is a {path.name} already", remedy)])

    def _writing(self, out: str) -> list[Job]:
        """The trainings that are to write a file and are not over."""
        shelf = self.settings.models.absolute()  # jobs of an older version name places on it by their whole paths
        at_it = self.queue.jobs(states=OPEN, kind=TRAIN, limit=self.queue.cap)
        return [job for job in at_it if shelf / job.request["out"] == shelf / out]

    def last_trained(self, out: str) -> Job | None:
        """The training that wrote a file last."""
        shelf = self.settings.models.absolute()
        done = self.queue.jobs(states=(DONE,), kind=TRAIN, limit=self.queue.cap + self.queue.keep)
        wrote = [job for job in done if shelf / job.request["out"] == shelf / out]
        return max(wrote, key=lambda job: job.ended or 0.0, default=None)

    def retry(self, id: str) -> Job:
        """Have a job that failed or was cancelled wait again.

        Raises what `Queue.retry` raises, and for a training InvalidRecipe if its name is taken by now.
        """
        with self.queue.at_once():
            job = self.queue.job(id)
            if job.kind == TRAIN and job.state in (FAILED, CANCELLED):
                self._check_free(job.request["out"], job.request.get("force", False))
            return self.queue.retry(id)

    def forget_training(self, id: str) -> None:
        """Throw away how far a training came; what it has trained stays.

        Raises WrongState for one that is not over, or whose folder another one works in.
        """
        with self.queue.at_once():  # nobody begins one on the way
            job = self.queue.job(id)
            if not job.over:
                raise WrongState(f"the training {id} is {job.state}", "cancel it first")
            folder = self.training_folder(job)
            for other in self._writing(job.request["out"]):
                if self.training_folder(other) == folder:
                    what = f"another training of the same recipe and name is {other.state}, and needs what is there"
                    raise WrongState(what, "cancel that one first")
            shutil.rmtree(folder, ignore_errors=True)

    def unfinished(self, dataset: str) -> int:
        """How many trainings that are not done learn from a dataset, and so can't go on without it."""
        undone = self.queue.jobs(states=(*OPEN, FAILED, CANCELLED), kind=TRAIN, limit=self.queue.cap + self.queue.keep)
        recipes = [job.request["training"] for job in undone]
        return sum(
            any(Path(source["path"]).name == dataset for source in (*recipe["data"], *recipe["regularisation"]))
            for recipe in recipes
        )

    def training_folder(self, job: Job) -> Path:
        """Where a training keeps its state, its log and its samples."""
        return self._bench.training_folder(training_from(job.request["training"]), Path(job.request["out"]))

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
        """Where the outputs of a job go: the folder of the day on which it was asked for.

        Raises FileError for a job whose id, by which they are called, leads out of it.
        """
        folder = self.settings.outputs / datetime.fromtimestamp(job.created).date().isoformat()
        if Path(job.id).name != job.id:  # a queue that came out of a backup may say anything
            raise FileError(folder / job.id, f"is not in {folder}", "ask for it anew")
        return folder

    def _owner_of(self, job: str) -> str:
        """Whose the outputs of a job are; those of none belong to whoever has this home."""
        with suppress(UnknownJob):
            return self.queue.job(job).owner
        return OWNER

    # --- what the foreman asks for

    def _environment(self, lane: str) -> dict[str, str]:
        """What a worker finds in its environment: the keys of sites only where models are fetched."""
        kept = {name: value for name, value in os.environ.items() if lane == LIBRARY or name not in VARIABLES.values()}
        return {**kept, "BOTTEGA_HOME": str(self.settings.home)}

    def _ready(self, job: Job) -> Job | None:
        """The job with inputs that were made meanwhile, and with paths; None if an output of the same recipe was."""
        if job.kind == TRAIN:
            return self._placed(job)
        if job.kind != "make" or not (job.reuse or job.request.get("awaited")):
            return job
        recipe = recipe_from(job.request["recipe"])
        if job.request.get("awaited"):
            recipe = self._with_made(recipe, job)
            request = {"recipe": recipe.model_dump(mode="json", exclude_none=True)}
            self.queue.settle(job.id, request, recipe.digest)
            job = replace(job, request=request, digest=recipe.digest)
        if job.reuse and (made := self._made_before(recipe, job.owner)):
            told, outcome, result = _told_again(recipe, made)
            self.queue.record(job.id, told)
            self.queue.finish(job.id, outcome, result)
            return None
        return job

    def _with_made(self, recipe: Recipe, job: Job) -> Recipe:
        """A recipe with the outputs of the jobs before it in the place of the placeholders."""
        inputs = list(recipe.inputs)
        for number, told in enumerate(job.request["awaited"], start=len(inputs) - len(job.request["awaited"])):
            made = self.outputs(told["job"])
            if len(made) <= told["index"] or not made[told["index"]].path.is_file():
                what = f"output {told['index']} of the job {told['job']} is gone"
                raise InvalidRecipe([FieldProblem(f"inputs.{number}", what, "make it again, then retry this job")])
            inputs[number] = keep_input(made[told["index"]].path, told["role"], self.settings.inputs)
        return recipe.changed(inputs=tuple(inputs))

    def _together(self, lane: str) -> int:
        """How many jobs that are alike a worker makes at once: on a CPU that is no faster than one by one."""
        return 1 if lane != MAKE or (self._facts is not None and self._facts.device == "cpu") else BATCH

    def _keep_output(self, job: Job, told: Mapping[str, Any]) -> Made:
        """Put an output into the gallery; the event that tells of it."""
        event = told["event"]
        id = f"{job.id}-{event['image']}"
        self.gallery.add(
            Output(
                id=id,
                job=job.id,
                index=event["image"],
                owner=job.owner,
                path=Path(event["path"]),
                width=event["width"],
                height=event["height"],
                sha256=event["sha256"],
                seed=event["seed"],
                digest=event["digest"],
                created=time.time(),
                **told["output"],
            )
        )
        return Made(**{**event_fields(event), "path": "", "output": id})

    @property
    def _facts_file(self) -> Path:
        return self.settings.home / "devices.json"

    def _keep_facts(self, lane: str, told: Mapping[str, Any]) -> None:
        """Remember what a worker tells of its device, for the next start too."""
        self._facts, self._free_at = facts_from(told), 0.0
        try:
            # Where it can't be written, the next start has to wait for its worker.
            with suppress(BottegaError), atomic(self._facts_file) as file:
                file.write(json.dumps({"for": _facts_key(self.settings), "facts": dict(told)}).encode())
        finally:
            self._facts_told.set()


def read_draft(told: Mapping[str, Any]) -> tuple[Recipe, tuple[Awaited, ...]]:
    """A draft from plain data in which inputs may name the output of a job: `{"role": "init", "job": ID, "index": 0}`.

    Raises InvalidRecipe with every wrong field.
    """
    inputs = told.get("inputs")
    if not isinstance(inputs, list):
        return recipe_from(told), ()
    awaited, problems = [], []
    for number, each in enumerate(inputs):
        if isinstance(each, Mapping) and "job" in each:
            role, job, index = each.get("role"), each["job"], each.get("index", 0)
            if isinstance(role, str) and isinstance(job, str) and type(index) is int and len(each) <= 3:
                awaited.append(Awaited(role, job, index))
            else:
                problems.append(FieldProblem(f"inputs.{number}", "is no output of a job", "say role, job and index"))
    if problems:
        raise InvalidRecipe(problems)
    rest = [each for each in inputs if not (isinstance(each, Mapping) and "job" in each)]
    return recipe_from({**told, "inputs": rest}), tuple(awaited)


def alike(recipe: Recipe) -> str:
    """What resolved recipes have in common that can be made in one batch: all but seeds and count.

    Empty for one that has to be made alone: an adaptive sampler's steps depend on the whole batch.
    """
    sampler = find_sampler(recipe.sampling.sampler or "")
    if sampler is None or sampler.adaptive:
        return ""
    knobs = {name: value for name, value in recipe.knobs.items() if name != "variation_seed"}
    return recipe.changed(count=1, sampling=recipe.sampling.model_copy(update={"seed": 0}), knobs=knobs).digest


def _throw(error: Exception) -> Job:
    raise error


def _told_again(recipe: Recipe, made: Sequence[Output]) -> tuple[list[Event], Done, dict[str, Any]]:
    """What a job says that is answered with outputs that are there: its events, its end and its result."""
    told: list[Event] = [Started(recipe.digest, recipe.count)]
    for index, each in enumerate(made):
        told.append(Made(index, "", each.sha256, each.digest, each.seed or 0, each.width, each.height, output=each.id))
    return told, Done(recipe.digest, recipe.count, 0.0), {"outputs": [each.id for each in made]}


def _is_whole(output: Output) -> bool:
    try:
        return sha256_of(output.path.read_bytes()) == output.sha256
    except OSError:
        return False


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
