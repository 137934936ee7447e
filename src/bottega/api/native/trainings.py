"""Trainings: what a model is taught by which pictures, checked, begun, watched, stopped and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Response
from fastapi import Path as PathParameter
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.native.datasets import mine as dataset_of
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.jobs import FULL, REUSED, JobCard, Key, check_priority, job_card, told_of
from bottega.api.native.jobs import mine as job_of
from bottega.api.native.models import model_id
from bottega.api.native.pictures import UnknownPreview, picture
from bottega.api.native.recipes import ModelMeant, ref_of
from bottega.api.native.shapes import Asked, DatasetId, JobId, JobInPath, Listed, ModelId, Told, Wished
from bottega.api.native.shelves import destination
from bottega.api.native.subject import subject
from bottega.engine.train import SAMPLES, Prepared
from bottega.errors import FieldProblem, FileError, FormatError, InvalidRecipe, UnknownModel, UnsupportedModel
from bottega.jobs.job import TRAIN, Job, UnknownJob
from bottega.training.journal import CURVE, read_log
from bottega.training.naming import ENDINGS, MADE
from bottega.training.recipe import KINDS, TrainingRecipe, means_nothing_for, training_from, usual
from bottega.workshop import Workshop

router = subject("trainings", "/trainings")

Reader = Annotated[Caller, Depends(need("read"))]
Manager = Annotated[Caller, Depends(need("manage"))]
Kind = Literal["lora", "embedding", "hypernetwork", "full"]
MOST_DATASETS, MOST_SAMPLES, MOST_STEPS = 50, 8, 10_000
TITLES = {"lora": "LoRA", "embedding": "Embedding", "hypernetwork": "Hypernetwork", "full": "Whole model"}
# Fields of a training's recipe that are asked for in a way of their own.
_OTHERWISE = ("version", "kind", "model", "data", "regularisation")


class TrainingDraft(TrainingRecipe):
    """What to teach which model, by which datasets, and how; what is left out is what suits the kind."""

    model: ModelMeant | None = None  # type: ignore[assignment]  # a recipe has no ids
    data: list[DatasetId] = Field(default=[], max_length=MOST_DATASETS)  # type: ignore[assignment]
    regularisation: list[DatasetId] = Field(  # type: ignore[assignment]
        default=[], max_length=MOST_DATASETS, description="datasets of what is not to be forgotten"
    )
    word: str = Field(
        "", max_length=100, description="the word that the pictures teach: put before captions without it"
    )
    begin_with: str = Field("", max_length=300, description="words whose vectors an embedding begins with")
    structure: list[float] = Field(  # type: ignore[assignment]
        [1.0, 2.0, 1.0], max_length=16, description="widths of a hypernetwork's layers"
    )
    samples: list[Annotated[str, Field(max_length=2000)]] = Field(  # type: ignore[assignment]
        default=[], max_length=MOST_SAMPLES, description="prompts of pictures that are made as it goes"
    )


class CheckAsked(Asked):
    """A training that is to be looked at before it is begun."""

    training: TrainingDraft


class Begin(Asked):
    """A training that is to be done."""

    training: TrainingDraft
    name: str = Field(default="", max_length=120, description="what to call the result; empty for the word it teaches")
    force: bool = Field(default=False, description="replace what the home has under this name")
    priority: int = Field(default=0, ge=-100, le=100, description="above 0 comes before what others wait for")
    after: list[JobId] = Field(default=[], max_length=64, description="jobs that must be done before")


class Bucket(Told):
    """A size that pictures are brought to, and how many are."""

    width: int
    height: int
    pictures: int


class Memory(Told):
    """What a training will take of the device's memory, in bytes and in words."""

    fits: bool
    words: str = Field(description="with what to change where it does not fit")
    needed: int
    available: int
    weights: dict[str, int] = Field(description="by the part of the model")
    trained: int
    activations: int


class CheckTold(Told):
    """What a look at a training found."""

    recipe: dict[str, Any] = Field(description="the training's recipe, complete; datasets by their ids")
    digest: str
    pictures: int
    regular: int = Field(description="pictures that keep what it knows")
    buckets: list[Bucket]
    longest: int = Field(description="tokens of the longest caption")
    notes: list[str] = Field(description="what somebody should know before the start")
    memory: Memory


class Setting(Told):
    """A field of a training; the default is null where it depends on the kind or the model."""

    name: str
    type: Literal["int", "float", "bool", "str", "list"]
    default: bool | int | float | str | list[float] | list[str] | None
    help: str
    low: float | int | None
    high: float | int | None
    choices: list[str]


class KindForm(Told):
    """Something that can be trained: the names of its settings, and how long and how fast it is trained as a rule."""

    id: Kind
    title: str
    settings: list[str]
    steps: int
    rate: float


class TrainingForms(Told):
    """All that a form of a training is drawn from."""

    kinds: list[KindForm]
    settings: list[Setting]


class LogLine(Told):
    """A step of a training: its loss, the learning rate, and the loss on held-out pictures where they were judged."""

    step: int
    loss: float
    rate: float
    validation: float | None = None


class LogTold(Told):
    """The steps of a training in order, and the one to go on after (null if there is none yet)."""

    items: list[LogLine]
    next: int | None


class SampleCard(Told):
    """A picture that was made on the way; GET /api/trainings/{id}/samples/{name} has it."""

    name: str
    step: int
    number: int
    prompt: str


class TrainingDetail(JobCard):
    """A training: its job, its recipe, how far it is and what it has made."""

    name: str
    file: str
    training: dict[str, Any] = Field(description="the training's recipe; datasets by their ids")
    step: int
    steps: int
    samples: list[SampleCard]
    model: ModelId | None = Field(description="what was trained, once it is done")


class Asking(Wished):
    """How many trainings are asked for at once."""

    limit: int = Field(default=100, ge=1, le=500)
    before: JobId | None = Field(default=None, description="`next` of the page before")


class After(Wished):
    """Which steps are asked for."""

    after: int = Field(default=0, ge=0, le=1_000_000)
    limit: int = Field(default=MOST_STEPS, ge=1, le=MOST_STEPS)


@router.get("/forms", summary="What can be trained, and with which settings", dependencies=[Depends(need("read"))])
async def forms() -> TrainingForms:
    """Every field of a training with its limits, and which of them mean something for which kind."""
    return _forms()


@cache
def _forms() -> TrainingForms:
    told = TrainingDraft.model_json_schema()["properties"]
    names = [name for name in told if name not in _OTHERWISE]
    return TrainingForms(
        kinds=[
            KindForm(
                id=kind,
                title=TITLES[kind],
                settings=[name for name in names if name not in means_nothing_for(kind)],
                steps=usual(kind)[0],
                rate=usual(kind)[1],
            )
            for kind in KINDS
        ],
        settings=[_setting(name, told[name]) for name in names],
    )


_TYPES: dict[str, Literal["int", "float", "bool", "str", "list"]] = {
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "string": "str",
    "array": "list",
}


def _setting(name: str, told: dict[str, Any]) -> Setting:
    kind = told["anyOf"][0] if "anyOf" in told else told
    return Setting(
        name=name,
        type=_TYPES[kind["type"]],
        default=told.get("default"),
        help=told.get("description", ""),
        low=kind.get("minimum", kind.get("exclusiveMinimum")),
        high=kind.get("maximum", kind.get("exclusiveMaximum")),
        choices=kind.get("enum", []),
    )


@router.post("/check", summary="Look at a training before it is begun")
async def check(asked: CheckAsked, shop: Shop, aside: Aside, caller: Manager) -> CheckTold:
    """What its recipe will be, what its pictures and captions are, and the memory that it will take.

    Reads every picture. 422 with all that is wrong, each at its field.
    """
    return await aside.draw(_check, shop, caller, asked.training)


def _check(shop: Workshop, caller: Caller, asked: TrainingDraft) -> CheckTold:
    with _at_training():
        prepared = shop.prepare_training(_draft(shop, caller, asked))
    return _checked(prepared)


def _checked(prepared: Prepared) -> CheckTold:
    checked, plan = prepared.checked, prepared.plan
    regular = sum(each.regular for each in checked.pictures)
    return CheckTold(
        recipe=_recipe(prepared.recipe),
        digest=prepared.recipe.digest,
        pictures=len(checked.pictures) - regular,
        regular=regular,
        buckets=[
            Bucket(width=width, height=height, pictures=count)
            for (width, height), count in sorted(checked.buckets.items())
        ],
        longest=max(checked.tokens.values(), default=0),
        notes=list(checked.notes),
        memory=Memory(
            fits=plan.fits,
            words=plan.words,
            needed=plan.needed,
            available=plan.available,
            weights=dict(plan.weights),
            trained=plan.trained,
            activations=plan.activations,
        ),
    )


@router.post("", summary="Begin a training", status_code=202, responses={**FULL, **REUSED})
async def begin(asked: Begin, shop: Shop, aside: Aside, caller: Manager, key: Key = None) -> JobCard:
    """202 once the job is on disk. It takes its turn among those that make pictures.

    POST /api/jobs/{id}/cancel stops it after a step, and POST /api/jobs/{id}/retry takes it up again just there; so
    does the server by itself if it was ended on the way. 507 if the device has not enough memory.
    """
    check_priority(caller, asked.priority)
    return await aside.submit(_begin, shop, caller, asked, key)


def _begin(shop: Workshop, caller: Caller, asked: Begin, key: str | None) -> JobCard:
    kind = asked.training.kind
    name = asked.name or asked.training.word.strip()
    if not name:
        raise InvalidRecipe([FieldProblem("name", "is empty", "say what to call the result")])
    for index, id in enumerate(asked.after):
        try:
            job_of(shop, caller, id)
        except UnknownJob:
            raise InvalidRecipe([FieldProblem(f"after.{index}", "there is no such job", "see /api/jobs")]) from None
    out = destination(shop.settings, name, MADE[kind], ENDINGS[kind][0])
    if asked.force and not caller.admin:
        before = shop.last_trained(out)
        if before is not None and before.owner != caller.name:
            what = f"somebody else trained {Path(out).name}"
            raise InvalidRecipe([FieldProblem("name", what, "choose another name")])
    with _at_training():
        job = shop.submit_training(
            _draft(shop, caller, asked.training),
            out,
            owner=caller.name,
            force=asked.force,
            priority=asked.priority,
            key=key,
            after=tuple(dict.fromkeys(asked.after)),
        )
    return job_card(job)


@router.get("", summary="Trainings")
async def trainings(asked: Annotated[Asking, Query()], shop: Shop, aside: Aside, caller: Reader) -> Listed[JobCard]:
    """The caller's (an admin's: everybody's), the newest first."""
    return await aside.look(_trainings, shop, caller, asked)


def _trainings(shop: Workshop, caller: Caller, asked: Asking) -> Listed[JobCard]:
    owner = None if caller.admin else caller.name
    if asked.before is not None:
        job_of(shop, caller, asked.before)
    found = shop.queue.jobs(owner=owner, kind=TRAIN, limit=asked.limit + 1, before=asked.before)
    shown = found[: asked.limit]
    return Listed[JobCard](
        items=[job_card(job) for job in shown],
        next=shown[-1].id if len(found) > asked.limit else None,
        total=sum(shop.queue.counts(owner, TRAIN).values()),
    )


@router.get("/{id}", summary="One training")
async def training(id: JobInPath, shop: Shop, aside: Aside, caller: Reader) -> TrainingDetail:
    """How far it is, the pictures that it has made on the way, and what came of it."""
    return await aside.look(_training, shop, caller, id)


def _training(shop: Workshop, caller: Caller, id: str) -> TrainingDetail:
    job = mine(shop, caller, id)
    recipe = training_from(job.request["training"])
    folder, out = shop.training_folder(job), Path(job.request["out"])
    log = read_log(folder)
    return TrainingDetail(
        **told_of(job),
        name=out.stem,
        file=out.name,
        training=_recipe(recipe),
        step=log[-1]["step"] if log else 0,
        steps=recipe.steps or 0,
        samples=_samples(folder, recipe.samples),
        model=_model(shop, job) if job.state == "done" else None,
    )


def _model(shop: Workshop, job: Job) -> str | None:
    """The id of what was trained, if it lies where it was written and no other training has replaced it."""
    last = shop.last_trained(job.request["out"])
    with suppress(FileError):
        out = shop.trained_file(job)
        return model_id(out) if out.exists() and (last is None or last.id == job.id) else None
    return None


def _samples(folder: Path, prompts: Sequence[str]) -> list[SampleCard]:
    found = []
    for path in sorted((folder / SAMPLES).glob("*-*.png")):
        step, _, number = path.stem.partition("-")
        prompt = prompts[int(number) - 1]
        found.append(SampleCard(name=path.name, step=int(step), number=int(number) - 1, prompt=prompt))
    return found


@router.get("/{id}/log", summary="The steps of a training")
async def log(id: JobInPath, asked: Annotated[After, Query()], shop: Shop, aside: Aside, caller: Reader) -> LogTold:
    """Loss and learning rate of every step; its events tell of some as they are made."""
    return await aside.look(_log, shop, caller, id, asked)


def _log(shop: Workshop, caller: Caller, id: str, asked: After) -> LogTold:
    lines = [line for line in read_log(shop.training_folder(mine(shop, caller, id))) if line["step"] > asked.after]
    shown = lines[: asked.limit]
    return LogTold(items=[LogLine(**line) for line in shown], next=shown[-1]["step"] if shown else asked.after or None)


_PNG: Any = {200: {"content": {"image/png": {}}, "description": "a PNG"}}


@router.get("/{id}/curve", summary="The loss of a training as a picture", response_class=Response, responses=_PNG)
async def curve(id: JobInPath, shop: Shop, aside: Aside, caller: Reader) -> Response:
    """As it was when the training's state was last written down; 404 before that."""
    return await aside.look(_picture, shop, caller, id, CURVE)


@router.get(
    "/{id}/samples/{name}",
    summary="A picture that a training made on the way",
    response_class=Response,
    responses=_PNG,
)
async def sample(
    id: JobInPath,
    name: Annotated[str, PathParameter(pattern=r"^[0-9]{6,7}-[0-9]{1,2}\.png$", description="as `samples` tells it")],
    shop: Shop,
    aside: Aside,
    caller: Reader,
) -> Response:
    """Made of a prompt of the training's, always with the same seed."""
    return await aside.look(_picture, shop, caller, id, f"{SAMPLES}/{name}")


def _picture(shop: Workshop, caller: Caller, id: str, name: str) -> Response:
    try:
        content = (shop.training_folder(mine(shop, caller, id)) / name).read_bytes()
    except FileNotFoundError:
        raise UnknownPreview("this training has no such picture", "see GET /api/trainings/{id}") from None
    tag = hashlib.blake2b(content, digest_size=16).hexdigest()
    return picture(content, "png", Path(name).stem, tag, lasting=False)


@router.delete("/{id}", summary="Forget how far a training came", status_code=204, responses=REUSED)
async def forget(id: JobInPath, shop: Shop, aside: Aside, caller: Manager) -> None:
    """Its state, its log and its pictures; what it has trained stays. Tried again, it begins anew. 409 for one that is
    not over, or whose state another one of the same recipe and name goes on from."""
    await aside.submit(_forget, shop, caller, id)


def _forget(shop: Workshop, caller: Caller, id: str) -> None:
    mine(shop, caller, id)
    shop.forget_training(id)


# --- between what a client says and a training's recipe


@contextmanager
def _at_training() -> Iterator[None]:
    """What is wrong with a training is told at its fields in the request; what a picture lacks, at the datasets."""
    try:
        yield
    except InvalidRecipe as error:
        raise InvalidRecipe(
            [
                each
                if each.field.startswith(("training", "name"))
                else FieldProblem(f"training.{each.field}", each.what, each.remedy)
                for each in error.problems
            ]
        ) from None
    except UnsupportedModel as error:
        raise InvalidRecipe([FieldProblem("training.model", error.what, error.remedy)]) from None
    except (FormatError, UnknownModel):
        raise
    except FileError as error:
        subject = f"the picture {error.path.stem[:12]}" if error.path.suffix else "one of the datasets"
        what = f"{subject} {error.what.removeprefix(f'{error.path}: ')}"
        raise InvalidRecipe([FieldProblem("training.data", what, error.remedy)]) from None


def mine(shop: Workshop, caller: Caller, id: str) -> Job:
    """The training of that id, if the caller may see it; else it is unknown."""
    job = job_of(shop, caller, id)
    if job.kind != TRAIN:
        raise UnknownJob(id)
    return job


def _draft(shop: Workshop, caller: Caller, asked: TrainingDraft) -> TrainingRecipe:
    """The draft with its model and its datasets found. Raises UnknownModel, UnknownDataset, InvalidRecipe."""
    told = asked.model_dump(exclude={"model", "data", "regularisation"}, exclude_unset=True)
    for name, ids in (("data", asked.data), ("regularisation", asked.regularisation)):
        told[name] = [{"path": str(shop.datasets.place(dataset_of(shop, caller, id).id))} for id in ids]
    if asked.model is not None:
        if (asked.model.id, asked.model.name, asked.model.sha256) == (None, None, None):
            raise InvalidRecipe([FieldProblem("training.model", "says nothing", "give its id or its name")])
        told["model"] = ref_of(shop, asked.model, "training.model", "checkpoint").model_dump(exclude_none=True)
    return training_from(told)


def _recipe(recipe: TrainingRecipe) -> dict[str, Any]:
    """A training's recipe as plain data, with ids in the place of paths."""
    told = recipe.model_dump(mode="json", exclude_none=True)
    for name in ("data", "regularisation"):
        told[name] = [Path(source["path"]).name for source in told[name]]
    return told
