"""Jobs: recipes handed in, their place in the line, how they go on, and what came of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Query, Response
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.access.refusal import NotAllowed
from bottega.api.errors import without_paths
from bottega.api.native.inside import Aside, Shop, Taken
from bottega.api.native.outputs import OutputCard, card
from bottega.api.native.pictures import SEALED, UnknownPreview
from bottega.api.native.recipes import Draft, at_recipe, awaited_of, draft_of
from bottega.api.native.shapes import Asked, ErrorAnswer, JobId, JobInPath, Listed, Told, Wished
from bottega.api.native.subject import subject
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.jobs.job import MAKE, STATES, Job, UnknownJob
from bottega.workshop import Wanted, Workshop

router = subject("jobs")

Reader = Annotated[Caller, Depends(need("read"))]
Maker = Annotated[Caller, Depends(need("generate"))]
Steerer = Annotated[Caller, Depends(need("generate", "manage"))]  # who could begin one of the kinds of jobs
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,200}$",
        description="the same key with the same request is answered with the same job, however often it is sent",
    ),
]
State = Literal["waiting", "paused", "running", "done", "failed", "cancelled"]
FULL: Any = {429: {"model": ErrorAnswer, "description": "as many jobs wait as may; Retry-After says how long to wait"}}
REUSED: Any = {409: {"model": ErrorAnswer, "description": "it is in another state, or the key was used before"}}


class Progress(Told):
    """How far a job is: `done` of `total` steps of a phase (load, sample, decode, save) of its image number `image`."""

    phase: str
    done: int
    total: int
    image: int = 0


class JobError(Told):
    """Why a job failed."""

    error: str
    what: str
    remedy: str = ""


class JobCard(Told):
    """A piece of work that was asked for."""

    id: JobId
    kind: str = Field(description="make, train, or what is done to the library: scan, get, convert, merge, hash")
    state: State
    owner: str
    title: str = Field(description="the prompt, or what the work is about")
    digest: str = Field(description="of its recipe; equal for equal recipes")
    recipe: dict[str, Any] | None = Field(description="as it was resolved; null for other work than make")
    priority: int = Field(description="higher ones come first, whosever they are")
    position: float = Field(description="its place in the line: what has less comes first")
    attempt: int
    after: list[JobId] = Field(description="jobs that it waits for")
    reuse: bool
    created: float
    started: float | None
    ended: float | None
    cancelling: bool = Field(description="it runs, and was told to stop")
    progress: Progress | None
    eta: float | None = Field(description="seconds that it may still take")
    seen: int = Field(description="the number of the newest event that this tells of; higher ones happened since")
    error: JobError | None
    result: Any = Field(description="what other work than make has found or done")


class JobDetail(JobCard):
    """A job with what it has made so far."""

    outputs: list[OutputCard]


class QueueTold(Told):
    """The line as a whole: whether anything is begun, and how many of the caller's jobs are in each state."""

    paused: bool
    waiting: int
    running: int
    held: int = Field(description="jobs that are paused by themselves")
    done: int
    failed: int
    cancelled: int


class Submission(Asked):
    """A recipe that is to be made."""

    recipe: Draft
    priority: int = Field(default=0, ge=-100, le=100, description="above 0 it needs the scope `manage`")
    after: list[JobId] = Field(default=[], max_length=64, description="jobs that must be done before")
    reuse: bool = Field(default=False, description="answer with outputs that were made from the same recipe before")


class Priority(Asked):
    """Where among others a job is to come."""

    priority: int = Field(ge=-100, le=100)


class Place(Asked):
    """Before which other job one is to come; null for the end of the line."""

    before: JobId | None = None


class Asking(Wished):
    """Which jobs are asked for, and how many at once."""

    state: list[State] = Field(default=[], max_length=len(STATES), description="may be given several times")
    limit: int = Field(default=100, ge=1, le=500)
    before: JobId | None = Field(default=None, description="`next` of the page before")


@router.post("/jobs", summary="Hand a recipe in", status_code=202, responses={**FULL, **REUSED})
async def submit(asked: Submission, shop: Shop, intake: Taken, caller: Maker, key: Key = None) -> JobCard:
    """202 once the job is on disk: from then on it is not lost, whatever happens.

    404 with the nearest names for a model that is not here, 422 with all that is wrong with the recipe.
    """
    check_priority(caller, asked.priority)
    return job_card(await intake.put(partial(_prepare, shop, caller, asked, key)))


def check_priority(caller: Caller, priority: int) -> None:
    """Raise NotAllowed for a place that the caller may not have.

    Before everybody else is no place that one gives oneself: else fair turns mean nothing."""
    if priority > 0 and not caller.may("manage"):
        raise NotAllowed(
            f"{caller.name} may not put jobs before those of others: it needs the scope manage",
            "leave its priority at 0 or below",
        )


def _prepare(shop: Workshop, caller: Caller, asked: Submission, key: str | None) -> Wanted:
    problems = [
        FieldProblem(field, "there is no such job", "see /api/jobs")
        for field, id in (
            *((f"after.{index}", id) for index, id in enumerate(asked.after)),
            *((f"recipe.inputs.{index}.job", given.job) for index, given in enumerate(asked.recipe.inputs)),
        )
        if id is not None and not _is_mine(shop, caller, id)
    ]
    if problems:
        raise InvalidRecipe(problems)
    with at_recipe():
        return shop.prepare(
            draft_of(shop, caller, asked.recipe),
            owner=caller.name,
            priority=asked.priority,
            key=key,
            after=tuple(dict.fromkeys(asked.after)),
            awaited=awaited_of(asked.recipe),
            reuse=asked.reuse,
        )


@router.get("/jobs", summary="Jobs")
async def jobs(asked: Annotated[Asking, Query()], shop: Shop, aside: Aside, caller: Reader) -> Listed[JobCard]:
    """The caller's jobs (an admin's: everybody's): the newest first, or, where only states are asked for in which a
    job still waits or runs, in the order in which their turn comes."""
    return await aside.look(_jobs, shop, caller, asked)


def _jobs(shop: Workshop, caller: Caller, asked: Asking) -> Listed[JobCard]:
    owner = None if caller.admin else caller.name
    if asked.before is not None:
        mine(shop, caller, asked.before)
    found = shop.queue.jobs(owner=owner, states=asked.state, limit=asked.limit + 1, before=asked.before)
    counts = shop.queue.counts(owner)
    shown = found[: asked.limit]
    return Listed[JobCard](
        items=[job_card(job) for job in shown],
        next=shown[-1].id if len(found) > asked.limit else None,
        total=sum(counts.get(state, 0) for state in set(asked.state) or STATES),
    )


@router.get("/jobs/{id}", summary="One job, with what it has made")
async def job(id: JobInPath, shop: Shop, caller: Reader) -> JobDetail:
    """Its state, its progress, and its outputs so far."""
    # Two look-ups by key: sending them to a thread would cost more, and make them wait behind others.
    found = mine(shop, caller, id)
    outputs = shop.outputs(id) if found.kind == "make" else []
    return JobDetail(**told_of(found), outputs=[card(output) for output in outputs if caller.sees(output.owner)])


@router.patch("/jobs/{id}", summary="Give a job another priority", responses=REUSED)
async def prioritise(id: JobInPath, asked: Priority, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """Higher ones come first. Above 0 it needs the scope `manage`. 409 for one that has ended."""
    mine(shop, caller, id)
    check_priority(caller, asked.priority)
    return job_card(await aside.submit(shop.queue.prioritise, id, asked.priority))


@router.post("/jobs/{id}/cancel", summary="End a job")
async def cancel(id: JobInPath, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """At once if it waits, within a step if it runs; one that has ended stays as it is."""
    mine(shop, caller, id)
    return job_card(await aside.submit(shop.queue.cancel, id))


@router.post("/jobs/{id}/pause", summary="Keep a job from being begun", responses=REUSED)
async def pause(id: JobInPath, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """It keeps its place. 409 for one that does not wait."""
    mine(shop, caller, id)
    return job_card(await aside.submit(shop.queue.pause, id))


@router.post("/jobs/{id}/resume", summary="Let a paused job go on", responses=REUSED)
async def resume(id: JobInPath, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """It waits for its turn again. 409 for one that is not paused."""
    mine(shop, caller, id)
    return job_card(await aside.submit(shop.queue.resume, id))


@router.post("/jobs/{id}/retry", summary="Try a job again", responses={**FULL, **REUSED})
async def retry(id: JobInPath, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """One that failed or was cancelled waits again, with the same recipe, if its like may be begun. 409 for others, 429
    where as many wait as may, 422 for a training whose name is taken by now."""
    _check_kind(caller, mine(shop, caller, id).kind)
    return job_card(await aside.submit(shop.retry, id))


@router.post("/jobs/{id}/move", summary="Move a job in the line", responses=REUSED)
async def move(id: JobInPath, asked: Place, shop: Shop, aside: Aside, caller: Steerer) -> JobCard:
    """Right before another one, whose priority it takes, or to the end, with the lowest that a waiting one has. To rise
    above 0 it needs the scope `manage`. 409 for one that does not wait."""
    found = mine(shop, caller, id)
    if asked.before is not None:
        if not _is_mine(shop, caller, asked.before):
            raise InvalidRecipe([FieldProblem("before", "there is no such job", "see /api/jobs")])
        taken = shop.queue.job(asked.before).priority
        if taken > found.priority:
            check_priority(caller, taken)
    return job_card(await aside.submit(shop.queue.move, id, asked.before))


@router.get(
    "/jobs/{id}/preview",
    summary="The newest rough picture of a job",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "a PNG"}},
)
async def preview(id: JobInPath, shop: Shop, caller: Reader) -> Response:
    """While it runs; 404 before its first preview and after its end."""
    mine(shop, caller, id)
    content = shop.preview(id)
    if content is None:
        raise UnknownPreview("there is no preview of this job now", "its events tell when there is one")
    return Response(content, media_type="image/png", headers={**SEALED, "Cache-Control": "no-store"})


@router.get("/queue", summary="The line as a whole")
async def queue(shop: Shop, aside: Aside, caller: Reader) -> QueueTold:
    """Whether anything is begun at all, and how many of the caller's jobs (an admin's: of all) are in each state."""
    return await aside.look(_queue, shop, caller)


@router.post("/queue/pause", summary="Begin no job any more")
async def pause_all(shop: Shop, aside: Aside, caller: Annotated[Caller, Depends(need("manage"))]) -> QueueTold:
    """What runs goes on to its end."""
    await aside.submit(shop.queue.pause_all)
    return await aside.look(_queue, shop, caller)


@router.post("/queue/resume", summary="Begin jobs again")
async def resume_all(shop: Shop, aside: Aside, caller: Annotated[Caller, Depends(need("manage"))]) -> QueueTold:
    """In their order."""
    await aside.submit(shop.queue.resume_all)
    return await aside.look(_queue, shop, caller)


def _queue(shop: Workshop, caller: Caller) -> QueueTold:
    counts = shop.queue.counts(None if caller.admin else caller.name)
    told = {state: counts.get(state, 0) for state in STATES if state != "paused"}
    return QueueTold(paused=shop.queue.paused, held=counts.get("paused", 0), **told)


# --- what a job is over HTTP


def mine(shop: Workshop, caller: Caller, id: str) -> Job:
    """The job of that id, if the caller may see it; else it is unknown."""
    found = shop.queue.job(id)
    if not caller.sees(found.owner):
        raise UnknownJob(id)
    return found


def _check_kind(caller: Caller, kind: str) -> None:
    """Raise NotAllowed for work that the caller may not begin, although it may be theirs from when they might."""
    scope = "generate" if kind == MAKE else "manage"
    if not caller.may(scope):
        what = f"{caller.name} may not begin this again: it needs the scope {scope}"
        raise NotAllowed(what, "ask an admin of this server")


def _is_mine(shop: Workshop, caller: Caller, id: str) -> bool:
    try:
        mine(shop, caller, id)
    except UnknownJob:
        return False
    return True


def job_card(job: Job) -> JobCard:
    """A job without anything that only this machine has to know."""
    return JobCard(**told_of(job))


_PLAIN = ("id", "kind", "state", "owner", "title", "digest", "priority", "position", "attempt", "reuse", "created",
          "started", "ended", "cancelling", "eta", "seen")  # fmt: skip


def told_of(job: Job) -> dict[str, Any]:
    """The fields of a JobCard."""
    return {
        **{name: getattr(job, name) for name in _PLAIN},
        "recipe": job.request.get("recipe") if job.kind == "make" else None,
        "after": list(job.after),
        "progress": job.progress,
        "error": pathless(job.error) if job.error else None,
        "result": pathless(job.result) if job.kind != "make" else None,
    }


def pathless(told: Any) -> Any:
    """Plain data with every path in its texts cut down to its last name."""
    if isinstance(told, str):
        return without_paths(told)
    if isinstance(told, dict):
        return {name: pathless(value) for name, value in told.items()}
    return [pathless(value) for value in told] if isinstance(told, (list, tuple)) else told
