"""Recipes: what a client may write in a draft, what becomes of it, and how a prompt is read while it is typed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import Field

from bottega.api import models
from bottega.api.access import Caller, need
from bottega.api.caps import MOST_PICTURES, MOST_PIXELS, MOST_STEPS
from bottega.api.native.inputs import UnknownInput, path_of
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.models import entry_with, model_id, shown
from bottega.api.native.outputs import content_of, mine
from bottega.api.native.shapes import Asked, JobId, ModelId, OutputId, Sha256, Told
from bottega.api.native.subject import subject
from bottega.diffusion.clip_tokenizer import CHUNK
from bottega.diffusion.marks import Placed, marks
from bottega.engine.automatic import AUTOMATIC, NONE, likely
from bottega.engine.resolve import MAX_PROMPT, MAX_SEED
from bottega.errors import FieldProblem, InvalidRecipe, UnknownModel
from bottega.gallery import UnknownOutput
from bottega.library import Catalog, Entry
from bottega.library.find import AmbiguousModel, on_record
from bottega.recipe import Media, Recipe, Ref, recipe_from
from bottega.workshop import Awaited, Workshop

router = subject("recipes")

Maker = Annotated[Caller, Depends(need("generate"))]
# What prompts call the adapters that the library knows by these kinds.
NETWORKS = {"lora": "lora", "lyco": "lora", "lycoris": "lora", "hypernet": "hypernetwork"}
MOST_NETWORKS = 50
MOST_GUESSES = 8  # unknown names of one prompt for which the nearest ones are looked for


class ModelMeant(Asked):
    """A model by its id, or by its name, or as a recipe pins it: by name and SHA-256."""

    id: ModelId | None = None
    name: str | None = Field(default=None, min_length=1, max_length=300)
    sha256: Sha256 | None = None


class AdapterMeant(Asked):
    """An adapter, how strongly it is used, and when."""

    kind: str = Field(max_length=40)
    ref: ModelMeant
    weight: float = Field(default=1.0, ge=-100, le=100)
    unet: float | None = Field(default=None, ge=-100, le=100, description="a strength of its own for the UNet")
    text_encoder: float | None = Field(default=None, ge=-100, le=100, description="and for the text encoders")
    blocks: dict[Annotated[str, Field(max_length=20)], Annotated[float, Field(ge=-100, le=100)]] = Field(
        default={}, max_length=100, description="factors by the names of the UNet's blocks, IN00 to OUT11"
    )
    start: float = Field(default=0.0, ge=0, le=1, description="the part of the steps from which on it works")
    end: float = Field(default=1.0, ge=0, le=1)


class InputMeant(Asked):
    """A picture in its role: one that was posted to /api/inputs, an output, or what a job will have made."""

    role: str = Field(min_length=1, max_length=40, description="init, mask")
    sha256: Sha256 | None = None
    output: OutputId | None = None
    job: JobId | None = None
    index: int = Field(default=0, ge=0, lt=1000, description="which of the job's outputs")


class SamplingMeant(Asked):
    """How noise becomes a picture; what is left out is the model's default."""

    sampler: str | None = Field(default=None, max_length=100)
    schedule: str | None = Field(default=None, max_length=100)
    steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=100)
    seed: int | None = Field(default=None, ge=-1, lt=MAX_SEED, description="-1 draws one")
    strength: float | None = Field(default=None, ge=0, le=1, description="how much of an input picture is made anew")


class SizeMeant(Asked):
    """Width and height in pixels, multiples of 8."""

    width: int = Field(ge=64, le=8192)
    height: int = Field(ge=64, le=8192)


class OutputMeant(Asked):
    """The files that are written; the quality, 1 to 100, is for lossy ones."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=92, ge=1, le=100)


class Draft(Asked):
    """What to make. Whatever is left out is decided by the model, its family and the settings of the server.

    A recipe as it stands in an output is a draft, too.
    """

    version: Literal[1] = 1
    task: str = Field(default="text-to-image", max_length=60, description="GET /api/forms tells which there are")
    model: ModelMeant | None = None
    prompt: str = Field(default="", max_length=MAX_PROMPT)
    negative: str = Field(default="", max_length=MAX_PROMPT)
    adapters: list[AdapterMeant] = Field(default=[], max_length=50)
    inputs: list[InputMeant] = Field(default=[], max_length=16)
    sampling: SamplingMeant = SamplingMeant()
    size: SizeMeant | None = None
    count: int = Field(default=1, ge=1, le=MOST_PICTURES)
    output: OutputMeant = OutputMeant()
    knobs: dict[Annotated[str, Field(max_length=60)], bool | int | float | Annotated[str, Field(max_length=300)]] = (
        Field(default={}, max_length=100, description="the settings that GET /api/models/{id}/form tells of")
    )
    made: dict[str, Any] | None = Field(default=None, description="how an output was made; not looked at")


class ResolveAsked(Asked):
    """A draft that is to be completed."""

    recipe: Draft


class Plan(Told):
    """What a recipe will take of the device's memory, in bytes and in words."""

    fits: bool
    words: str
    needed: int
    available: int
    weights: dict[str, int] = Field(description="by the part of the model")
    sampling: int
    decoding: int
    batch: int = Field(description="pictures that are made at once")
    tiled: bool
    waiting: list[str] = Field(description="parts that are in main memory while others run")


class Resolved(Told):
    """A recipe that says everything, its digest, and what it will take."""

    recipe: dict[str, Any]
    digest: str
    plan: Plan


@router.post("/resolve", summary="Complete a draft without making it")
async def resolve(asked: ResolveAsked, shop: Shop, aside: Aside, caller: Maker) -> Resolved:
    """The recipe that a job would have, and the plan of its memory; all that is wrong with it, each at its field."""
    return await aside.resolve(_resolve, shop, caller, asked.recipe)


def _resolve(shop: Workshop, caller: Caller, asked: Draft) -> Resolved:
    for index, given in enumerate(asked.inputs):
        if given.job is not None:
            field = f"recipe.inputs.{index}.job"
            raise InvalidRecipe([FieldProblem(field, "is only known when that job is done", "name its output then")])
    with at_recipe():
        recipe = shop.resolve(draft_of(shop, caller, asked))
    told = recipe.model_dump(mode="json", exclude_none=True)
    return Resolved(recipe=told, digest=recipe.digest, plan=Plan(**shop.plan(recipe)))


# --- from a draft of a client's to one of ours


def draft_of(shop: Workshop, caller: Caller, asked: Draft) -> Recipe:
    """The draft with its models and pictures found, none of them by a path; inputs of jobs are left out of it.

    Raises InvalidRecipe with all problems at their fields, UnknownModel.
    """
    problems = list(_too_much(asked))
    meant = {f"recipe.adapters.{index}.ref": use.ref for index, use in enumerate(asked.adapters)}
    for field, ref in {"recipe.model": asked.model, **meant}.items():
        if ref is not None and (ref.id, ref.name, ref.sha256) == (None, None, None):
            problems.append(FieldProblem(field, "says nothing", "give its id or its name"))
    inputs = []
    for index, given in enumerate(asked.inputs):
        field = f"recipe.inputs.{index}"
        if sum(each is not None for each in (given.sha256, given.output, given.job)) != 1:
            problems.append(FieldProblem(field, "does not say which picture", "give one of sha256, output, job"))
        elif given.sha256 is not None:
            try:
                path_of(shop, caller, given.sha256)
            except UnknownInput:
                problems.append(
                    FieldProblem(f"{field}.sha256", "no such picture was taken in", "POST it to /api/inputs")
                )
            inputs.append(Media(role=given.role, sha256=given.sha256))
        elif given.output is not None:
            try:
                inputs.append(Media(role=given.role, sha256=input_of_output(shop, caller, given.output)))
            except UnknownOutput:
                problems.append(FieldProblem(f"{field}.output", "there is no such output", "see /api/outputs"))
    if problems:
        raise InvalidRecipe(problems)
    told = asked.model_dump(exclude={"model", "inputs", "adapters", "made"}, exclude_unset=True)
    refs = [ref_of(shop, use.ref, f"recipe.adapters.{index}.ref", use.kind) for index, use in enumerate(asked.adapters)]
    if refs:
        told["adapters"] = [
            {
                **use.model_dump(exclude={"ref"}, exclude_none=True),
                "ref": {**ref.model_dump(exclude_none=True), "name": shown(ref.name)},
            }
            for use, ref in zip(asked.adapters, refs, strict=True)
        ]
    recipe = recipe_from(told)
    # A path may have bytes that are no text, which the JSON of a recipe can't hold.
    adapters = (use.model_copy(update={"ref": ref}) for use, ref in zip(recipe.adapters, refs, strict=True))
    model = ref_of(shop, asked.model, "recipe.model", "checkpoint") if asked.model else None
    return recipe.changed(model=model, adapters=tuple(adapters), inputs=tuple(inputs))


def awaited_of(asked: Draft) -> tuple[Awaited, ...]:
    """The inputs that other jobs are yet to make."""
    return tuple(Awaited(given.role, given.job, given.index) for given in asked.inputs if given.job is not None)


def _too_much(asked: Draft) -> Iterator[FieldProblem]:
    size = asked.size
    if size is not None and size.width * size.height > MOST_PIXELS:
        yield FieldProblem(
            "recipe.size", f"{size.width}x{size.height} is too much for a server", "4096x4096 is the most"
        )
    for name, value in asked.knobs.items():
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            yield FieldProblem(f"recipe.knobs.{name}", "is too large a number")


def ref_of(shop: Workshop, asked: ModelMeant, field: str, kind: str) -> Ref:
    """The model that is meant, by its place: it may be named anyhow, but only one that is on record is found.

    Raises UnknownModel with its problem at the field, InvalidRecipe.
    """
    try:
        return _ref_of(shop, asked, field, kind)
    except UnknownModel as error:
        error.problems = [FieldProblem(field, error.what, error.remedy)]
        for gone in shop.catalog.gone():
            if model_id(gone.path) == asked.id or gone.name.casefold() == (asked.name or "").casefold():
                what = f"{shown(gone.name)} is not on the shelf any more"
                error.problems = [FieldProblem(field, what, "leave it out, or put its file back and scan")]
        raise


def _ref_of(shop: Workshop, asked: ModelMeant, field: str, kind: str) -> Ref:
    if asked.id is not None:
        entry = entry_with(shop, asked.id)
        return Ref(name=str(entry.path), sha256=asked.sha256)
    catalog, name = shop.catalog, asked.name or ""
    if kind == "vae" and name.lower() in (NONE, AUTOMATIC):
        return Ref(name=name)
    if asked.sha256 is not None and (same := catalog.with_sha256(asked.sha256)):
        # An embedding's name is the word that stands for it, whatever its file is called by now.
        is_word = kind == "embedding" and name and os.sep not in name
        return Ref(name=name if is_word else str(same[0].path), sha256=asked.sha256)
    assert asked.name is not None or asked.sha256 is not None
    try:
        entry = on_record(catalog, asked.name or str(asked.sha256), kind=kind)
    except AmbiguousModel as error:
        ids = " or ".join(model_id(path) for path in error.candidates[:8])
        what = f"{asked.name!r} is the name of {len(error.candidates)} models"
        raise InvalidRecipe([FieldProblem(field, what, f"say which by id: {ids}")]) from None
    return Ref(name=str(entry.path), sha256=asked.sha256)


def input_of_output(shop: Workshop, caller: Caller, id: str) -> str:
    """Take an output in as a picture to start from; the SHA-256 of its bytes."""
    output = mine(shop, caller, id)
    if not shop.input_path(output.sha256).is_file():
        shop.keep_input(content_of(output), "init")
    return output.sha256


@contextmanager
def at_recipe() -> Iterator[None]:
    """What is wrong with a recipe is told at its fields in the request."""
    try:
        yield
    except InvalidRecipe as error:
        raise InvalidRecipe(
            [
                each
                if each.field.startswith("recipe")
                else FieldProblem(f"recipe.{each.field}", each.what, each.remedy)
                for each in error.problems
            ]
        ) from None


# --- what a prompt says


class TokensAsked(Asked):
    """A prompt, and the model that is to read it (the server's own choice if none is given)."""

    text: str = Field(max_length=MAX_PROMPT)
    model: ModelId | None = None


class Piece(Told):
    """A stretch of the prompt and how strongly its words weigh."""

    start: int
    end: int
    weight: float


class NetworkNamed(Told):
    """An adapter that the prompt names, in a tag or, an embedding, by its word; and whether there is such a model."""

    kind: str
    name: str
    start: int
    end: int
    known: bool
    nearest: list[str] = Field(description="names of models of this kind that come close")


class Tokens(Told):
    """How a prompt is read; places are characters (Unicode code points) from its start."""

    count: int
    room: int = Field(description="tokens for which there is room in the chunks that it takes")
    chunk: int = Field(description="tokens that the text encoder reads at once")
    chunks: list[int] = Field(
        description="where each chunk begins; empty for a prompt that says something else from step to step"
    )
    pieces: list[Piece]
    networks: list[NetworkNamed]


@router.post("/tokens", summary="How a prompt is read", dependencies=[Depends(need("read"))])
async def tokens(asked: TokensAsked, shop: Shop, aside: Aside) -> Tokens:
    """Its tokens and chunks, the weights of its parts, and the adapters that it names."""
    return await aside.look(_tokens, shop, asked)


def _tokens(shop: Workshop, asked: TokensAsked) -> Tokens:
    base = entry_with(shop, asked.model) if asked.model is not None else models.usual(shop)
    # Every family that runs reads CLIP's tokens.
    found = marks(asked.text, vectors=_vectors(shop, asked.text, base))
    guesses = iter(range(MOST_GUESSES))
    return Tokens(
        count=found.tokens.used,
        room=found.tokens.room,
        chunk=CHUNK,
        chunks=list(found.chunks),
        pieces=[Piece(start=begin, end=end, weight=round(weight, 4)) for begin, end, weight in found.weighted],
        networks=[
            *(_named(shop.catalog, placed, guesses) for placed in found.networks[:MOST_NETWORKS]),
            *(
                NetworkNamed(
                    kind="embedding", name=shown(each.name), start=each.begin, end=each.end, known=True, nearest=[]
                )
                for each in found.embedded[:MOST_NETWORKS]
            ),
        ],
    )


def _vectors(shop: Workshop, text: str, base: Entry) -> dict[str, int]:
    """How many tokens the embeddings take that a text may name and that fit a model, by name."""
    names = {name for name, _, _ in shop.catalog.of_kind("embedding")}
    if not (said := set(likely(names, [text]))):
        return {}
    fitting = models.attachable(shop, "embedding", base)
    return {each.name: int(each.dimensions.get("vectors") or 1) for each in fitting if each.name in said}


def _named(catalog: Catalog, placed: Placed, guesses: Iterator[int]) -> NetworkNamed:
    network = placed.network
    kind = NETWORKS.get(network.kind.lower(), network.kind.lower())
    known = any(entry.kind == kind and not entry.error for entry in catalog.named([network.name]))
    nearest: list[str] = []
    if not known and network.name and next(guesses, None) is not None:
        nearest = [shown(entry.name) for entry in catalog.search(network.name[:100], kind=kind, limit=3)]
        nearest = nearest or _close(catalog, network.name, kind)
    return NetworkNamed(
        kind=network.kind, name=network.name, start=placed.begin, end=placed.end, known=known, nearest=nearest
    )


def _close(catalog: Catalog, name: str, kind: str) -> list[str]:
    """The names of models of a kind that are spelled nearly so."""
    from difflib import get_close_matches

    names = {shown(called).casefold(): shown(called) for called, _, its_kind in catalog.names() if its_kind == kind}
    return [names[near] for near in get_close_matches(name[:100].casefold(), names, n=3, cutoff=0.6)]
