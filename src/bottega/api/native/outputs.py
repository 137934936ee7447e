"""The gallery: everything that was made, its files, what came from what, and what its owner says of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StringConstraints

from bottega.api.access import Caller, need
from bottega.api.access.refusal import Refusal
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.pictures import TYPES, picture, unchanged
from bottega.api.native.shapes import (
    MANY,
    Asked,
    ErrorAnswer,
    JobId,
    Listed,
    OutputId,
    OutputInPath,
    Seconds,
    Told,
    Wished,
)
from bottega.api.native.subject import subject
from bottega.api.streamed import Streamed
from bottega.errors import FieldProblem, FileError, InvalidRecipe
from bottega.gallery import Output, UnknownOutput, Wishes
from bottega.workshop import Workshop

router = subject("outputs")

LATEST = 4e9  # unix seconds: the year 2096
Reader = Annotated[Caller, Depends(need("read"))]
Maker = Annotated[Caller, Depends(need("generate"))]


class OutputGone(Refusal):
    """The file of an output is not what it was, or not there."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(410, what, remedy)


class OutputCard(Told):
    """One file that was made, and how."""

    id: OutputId
    job: JobId | Literal[""] = Field(description="the job that made it; empty for what came without one")
    index: int
    owner: str
    medium: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int | None
    digest: str
    task: str
    prompt: str
    negative: str
    model: str
    model_sha256: str
    created: Seconds
    favourite: bool
    folder: str
    deleted: Seconds | None = Field(description="since when it lies in the trash")
    missing: bool = Field(description="its file is gone")
    changed: bool = Field(description="its file has other bytes by now")
    seconds: float


class OutputDetail(OutputCard):
    """One file that was made, and the recipe that makes it again."""

    recipe: dict[str, Any] | None = Field(description="can be submitted as it is; null for what carries none")


class LineageNode(Told):
    """An output, or a picture from elsewhere that was used as an input: that one is at /api/inputs/{sha256}."""

    id: str
    kind: Literal["output", "input"]
    sha256: str
    prompt: str
    output: OutputCard | None


class LineageEdge(Told):
    """`source` was used for `target`: as the input that `kind` says (init, mask), or with its recipe: the same one
    (replay), with another variation (variation) or another seed (seed)."""

    source: str
    target: str
    kind: str


class Lineage(Told):
    """What an output came from, what came from it, and what shares its recipe; the oldest first."""

    nodes: list[LineageNode]
    edges: list[LineageEdge]
    left_out: int = Field(description="how many neighbours are not shown")


class Difference(Told):
    """A field in which two recipes differ; null where one of them has none."""

    field: str
    a: Any = None
    b: Any = None


class Comparison(Told):
    """Two outputs, and the fields of their recipes that differ."""

    a: OutputCard
    b: OutputCard
    differences: list[Difference]


class FolderCount(Told):
    """A folder and how many outputs lie in it."""

    name: str
    outputs: int


class Folders(Told):
    """The caller's folders, with how many outputs lie in each."""

    items: list[FolderCount]


class Mark(Asked):
    """What the owner says of an output; what is left out stays as it is. The folder "" is none."""

    favourite: bool | None = None
    folder: Annotated[str, StringConstraints(max_length=120)] | None = None


class Ids(Asked):
    """Some outputs."""

    ids: list[OutputId] = Field(min_length=1, max_length=MANY)


class Filters(Wished):
    """Which outputs are asked for."""

    # `field.NAME` may have any name; they are read from the request.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)

    q: str = Field(default="", max_length=300, description="beginnings of words of the prompts and the model's name")
    model: str = Field(default="", max_length=200, description="a part of its name, or 8 digits or more of its SHA-256")
    task: str = Field(default="", max_length=60)
    since: float | None = Field(default=None, ge=0, le=LATEST)
    until: float | None = Field(default=None, ge=0, le=LATEST)
    favourite: bool | None = None
    folder: str | None = Field(default=None, max_length=120, description="empty for what is in none")
    deleted: bool = Field(default=False, description="what lies in the trash instead")


class Asking(Filters):
    """Which outputs are asked for, and how many at once."""

    limit: int = Field(default=100, ge=1, le=500)
    before: str | None = Field(default=None, max_length=40, description="`next` of the page before")
    offset: int = Field(default=0, ge=0, le=10_000_000, description="how many are left out from there on")


class Ratios(Told):
    """The proportions of outputs: width over height in thousandths, newest first."""

    ratios: list[int]


FIELD = "field."
MOST_FIELDS = 8
_BY_FIELD: Any = {
    "name": "fields",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": "values of a recipe's fields: field.sampler=Euler",
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": r"^field\..{1,60}$"},
        "additionalProperties": {"type": "string", "maxLength": 200},
        "maxProperties": MOST_FIELDS,
    },
}
_PICTURE: Any = {200: {"content": {type: {} for type in TYPES.values()}, "description": "the picture"}}
_GONE: Any = {410: {"model": ErrorAnswer, "description": "its file is gone, or is not what was made"}}


@router.get("/outputs", summary="What was made, newest first", openapi_extra={"parameters": [_BY_FIELD]})
async def outputs(
    request: Request, asked: Annotated[Asking, Query()], shop: Shop, aside: Aside, caller: Reader
) -> Listed[OutputCard]:
    """The caller's outputs (an admin's: everybody's) that meet all conditions, a page at a time.

    `field.NAME=VALUE` asks for the value of a recipe's field, by its place (`field.sampling.sampler`,
    `field.knobs.clip_skip`) or its name alone (`field.sampler`); up to eight of them.
    """
    return await aside.look(_outputs, shop, asked, _wishes(request, asked, caller))


def _outputs(shop: Workshop, asked: Asking, wishes: Wishes) -> Listed[OutputCard]:
    page = shop.gallery.outputs(limit=asked.limit, before=asked.before, offset=asked.offset, **wishes)
    return Listed[OutputCard](items=[card(output) for output in page.items], next=page.next, total=page.total)


@router.get(
    "/outputs/ratios",
    summary="The proportions of what was made, newest first",
    response_model=Ratios,
    openapi_extra={"parameters": [_BY_FIELD]},
)
async def ratios(
    request: Request, asked: Annotated[Filters, Query()], shop: Shop, aside: Aside, caller: Reader
) -> Response:
    """All outputs that meet the conditions of a list, as far as it takes to lay them out before any is looked at."""
    told = await aside.look(partial(shop.gallery.ratios, **_wishes(request, asked, caller)))
    return Response(f'{{"ratios":{told}}}', media_type="application/json")


def _wishes(request: Request, asked: Filters, caller: Caller) -> Wishes:
    """What a query asks for; raises InvalidRecipe for what outputs are not asked for by."""
    fields = {name.removeprefix(FIELD): value for name, value in request.query_params.items() if name.startswith(FIELD)}
    known = type(asked).model_fields
    strange = [name for name in request.query_params if not name.startswith(FIELD) and name not in known]
    problems = [FieldProblem(name, "is nothing that outputs are asked for by") for name in strange]
    for name, value in fields.items():
        if not 0 < len(name) <= 60 or len(value) > 200:
            problems.append(FieldProblem(f"{FIELD}{name[:60]}", "is too long, or has no name"))
    if len(fields) > MOST_FIELDS:
        problems.append(FieldProblem("field", f"{len(fields)} fields are asked for", f"ask for {MOST_FIELDS} at most"))
    if problems:
        raise InvalidRecipe(problems)
    return Wishes(
        owner=None if caller.admin else caller.name,
        text=asked.q,
        model=asked.model,
        task=asked.task,
        field=fields,
        since=asked.since,
        until=asked.until,
        favourite=asked.favourite,
        folder=asked.folder,
        deleted=asked.deleted,
    )


@router.get("/outputs/{id}", summary="One output, with its recipe")
async def output(id: OutputInPath, shop: Shop, aside: Aside, caller: Reader) -> OutputDetail:
    """All that is known of an output."""
    return detail(await aside.look(mine, shop, caller, id))


@router.get("/outputs/{id}/file", summary="The file itself", response_class=Response, responses={**_PICTURE, **_GONE})
async def file(id: OutputInPath, request: Request, shop: Shop, aside: Aside, caller: Reader) -> Response:
    """Byte for byte as it was made, with its recipe inside."""
    found = await aside.look(mine, shop, caller, id)
    known = unchanged(request, found.sha256)
    return known if known else await aside.draw(_file, found)


def _file(output: Output) -> Response:
    content = content_of(output)
    return picture(content, output.format, output.id, output.sha256, lasting=True)


def content_of(output: Output) -> bytes:
    """The bytes of an output's file, which are those that were made; raises OutputGone."""
    remedy = "its recipe is kept: make it again"
    try:
        content = output.content()
    except OSError:
        raise OutputGone("the file of this output is gone", remedy) from None
    if hashlib.sha256(content).hexdigest() != output.sha256:
        raise OutputGone("the file of this output was changed since it was made", remedy)
    return content


@router.get(
    "/outputs/{id}/thumbnail",
    summary="A small picture of it",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}, "description": "a WebP"}, **_GONE},
)
async def thumbnail(
    id: OutputInPath,
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Reader,
    size: Annotated[int, Query(ge=32, le=512, description="pixels of the longer side, at least")] = 256,
) -> Response:
    """A WebP whose longer side has the next of 128, 256, 384 and 512 pixels from `size` on."""
    found, known = await aside.look(_known_thumbnail, shop, caller, id, size, request)
    return known if known else await aside.draw(_thumbnail, shop, found, size)


def _known_thumbnail(
    shop: Workshop, caller: Caller, id: str, size: int, request: Request
) -> tuple[Output, Response | None]:
    found = mine(shop, caller, id)
    known = unchanged(request, _thumbnail_tag(found, size))
    kept = None if known else shop.gallery.kept_thumbnail(found, size)
    return found, known or (None if kept is None else _small(found, size, kept))


def _thumbnail(shop: Workshop, output: Output, size: int) -> Response:
    try:
        return _small(output, size, shop.gallery.thumbnail(output.id, size))
    except FileError:
        raise OutputGone("the file of this output is gone, or is no picture any more", "make it again") from None


def _small(output: Output, size: int, content: bytes) -> Response:
    return picture(content, "webp", output.id, _thumbnail_tag(output, size), lasting=not output.changed)


def _thumbnail_tag(output: Output, size: int) -> str:
    return f"{output.sha256[:32]}-{size}"


@router.get("/outputs/{id}/lineage", summary="What came from what")
async def lineage(id: OutputInPath, shop: Shop, aside: Aside, caller: Reader) -> Lineage:
    """What an output was made from, what was made from it, and what was made with its recipe."""
    return await aside.look(_lineage, shop, caller, id)


def _lineage(shop: Workshop, caller: Caller, id: str) -> Lineage:
    mine(shop, caller, id)
    graph = shop.gallery.lineage(id)
    return Lineage(
        nodes=[
            LineageNode(
                id=node.id,
                kind="output" if node.output else "input",
                sha256=node.sha256,
                prompt=node.output.prompt if node.output else "",
                output=card(node.output) if node.output else None,
            )
            for node in graph.nodes
        ],
        edges=[LineageEdge(**edge._asdict()) for edge in graph.edges],
        left_out=graph.left_out,
    )


@router.get("/outputs/{a}/compare/{b}", summary="In which fields two recipes differ")
async def compare(a: OutputInPath, b: OutputInPath, shop: Shop, aside: Aside, caller: Reader) -> Comparison:
    """Two outputs, and the fields of their recipes that differ, in the recipe's order."""
    return await aside.look(_compare, shop, caller, a, b)


def _compare(shop: Workshop, caller: Caller, a: str, b: str) -> Comparison:
    first, second = mine(shop, caller, a), mine(shop, caller, b)
    differences = [Difference(field=field, a=one, b=other) for field, one, other in shop.gallery.differences(a, b)]
    return Comparison(a=card(first), b=card(second), differences=differences)


@router.patch("/outputs/{id}", summary="Say something of an output")
async def mark(id: OutputInPath, said: Mark, shop: Shop, aside: Aside, caller: Maker) -> OutputDetail:
    """Make it a favourite, or put it into a folder, which comes to be by being named."""
    return await aside.look(_mark, shop, caller, id, said)


def _mark(shop: Workshop, caller: Caller, id: str, said: Mark) -> OutputDetail:
    mine(shop, caller, id)
    return detail(shop.gallery.mark(id, favourite=said.favourite, folder=said.folder))


@router.post("/outputs/delete", summary="Put outputs into the trash", status_code=204)
async def delete(asked: Ids, shop: Shop, aside: Aside, caller: Maker) -> None:
    """All of them, or none if one is unknown. They can be taken out again until the trash is emptied."""
    await aside.look(_each, shop, caller, asked.ids, shop.gallery.delete)


@router.post("/outputs/restore", summary="Take outputs out of the trash", status_code=204)
async def restore(asked: Ids, shop: Shop, aside: Aside, caller: Maker) -> None:
    """All of them, or none if one is unknown."""
    await aside.look(_each, shop, caller, asked.ids, shop.gallery.restore)


def _each(shop: Workshop, caller: Caller, ids: list[str], done: Callable[[list[str]], None]) -> None:
    for id in ids:
        mine(shop, caller, id)
    done(ids)


@router.post(
    "/outputs/export",
    summary="Outputs as a ZIP",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "the archive, sent while it is packed"}},
)
async def export(asked: Ids, shop: Shop, aside: Aside, caller: Reader) -> Response:
    """The files as they are, recipes and all; what can't be read is named in `left-out.txt` within the archive."""
    pieces = await aside.look(_export, shop, caller, asked.ids)

    async def sent() -> AsyncGenerator[bytes]:
        while (piece := await aside.draw(next, pieces, b"")) != b"":
            yield piece

    headers = {"Content-Disposition": 'attachment; filename="bottega-outputs.zip"', "X-Content-Type-Options": "nosniff"}
    return Streamed(sent(), media_type="application/zip", headers=headers)


def _export(shop: Workshop, caller: Caller, ids: list[str]) -> Iterator[bytes]:
    for id in ids:
        mine(shop, caller, id)
    return shop.gallery.export(ids)


@router.get("/folders", summary="The caller's folders")
async def folders(shop: Shop, aside: Aside, caller: Reader) -> Folders:
    """By name, with how many outputs lie in each."""
    found = await aside.look(shop.gallery.folders, caller.name)
    return Folders(items=[FolderCount(name=folder.name, outputs=folder.outputs) for folder in found])


# --- what an output is over HTTP


def mine(shop: Workshop, caller: Caller, id: str) -> Output:
    """The output of that id, if the caller may see it; else it is unknown."""
    found = shop.gallery.output(id)
    if not caller.sees(found.owner):
        raise UnknownOutput(id)
    return found


_CARD = tuple(OutputCard.model_fields)


def card(output: Output) -> OutputCard:
    """An output without where it lies."""
    return OutputCard(**{name: getattr(output, name) for name in _CARD})


def detail(output: Output) -> OutputDetail:
    """An output with its recipe."""
    recipe = json.loads(output.recipe) if output.recipe else None
    return OutputDetail(**{name: getattr(output, name) for name in _CARD}, recipe=recipe)
