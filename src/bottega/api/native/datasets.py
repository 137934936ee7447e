"""Datasets: pictures with captions, taken in for trainings, and named by ids alone."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.native.inputs import PICTURE_BODY, TYPES, check_type
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.outputs import content_of
from bottega.api.native.outputs import mine as output_of
from bottega.api.native.pictures import drawn, picture, unchanged
from bottega.api.native.shapes import (
    Asked,
    DatasetId,
    DatasetInPath,
    ErrorAnswer,
    Listed,
    OutputId,
    Seconds,
    Sha256,
    Sha256InPath,
    Told,
)
from bottega.api.native.subject import subject
from bottega.errors import FileError
from bottega.formats import media
from bottega.training.data import LONGEST_CAPTION
from bottega.training.datasets import Dataset, Kept, UnknownDataset
from bottega.workshop import Workshop

router = subject("trainings", "/datasets")

Reader = Annotated[Caller, Depends(need("read"))]
Manager = Annotated[Caller, Depends(need("manage"))]
Name = Annotated[str, Field(min_length=1, max_length=120, description="what to call it; two may be called the same")]
Caption = Annotated[str, Field(max_length=LONGEST_CAPTION, description="what the picture shows")]
MOST_AT_ONCE = 500


class PictureCard(Told):
    """A picture of a dataset."""

    id: Sha256
    caption: str
    width: int
    height: int
    bytes: int


class DatasetCard(Told):
    """Pictures with captions that a training can learn from."""

    id: DatasetId
    name: str
    owner: str
    created: Seconds
    count: int = Field(description="pictures")
    bytes: int
    first: Sha256 | None = Field(description="the picture to show for it")


class DatasetDetail(DatasetCard):
    """A dataset with its pictures, in the order in which they came."""

    pictures: list[PictureCard]
    unfinished: int = Field(description="trainings that learn from it and are not done: none can go on without it")


class Called(Asked):
    """What a dataset is called."""

    name: Name


class Captioned(Asked):
    """What a picture shows."""

    caption: Caption


class Outputs(Asked):
    """Outputs that are to be learned from."""

    outputs: list[OutputId] = Field(min_length=1, max_length=MOST_AT_ONCE)


@router.get("", summary="Datasets")
async def datasets(shop: Shop, aside: Aside, caller: Reader) -> Listed[DatasetCard]:
    """The caller's (an admin's: everybody's), the newest first; all in one answer."""
    return await aside.look(_datasets, shop, caller)


def _datasets(shop: Workshop, caller: Caller) -> Listed[DatasetCard]:
    found = [each for each in shop.datasets.all() if caller.sees(each.owner)]
    return Listed[DatasetCard](items=[_card(each) for each in found], total=len(found))


@router.post("", summary="Begin a dataset", status_code=201)
async def create(asked: Called, shop: Shop, aside: Aside, caller: Manager) -> DatasetDetail:
    """With nothing in it."""
    return await aside.submit(_create, shop, caller, asked.name)


def _create(shop: Workshop, caller: Caller, name: str) -> DatasetDetail:
    return _detail(shop, shop.datasets.create(name, caller.name))


@router.get("/{id}", summary="A dataset with its pictures")
async def dataset(id: DatasetInPath, shop: Shop, aside: Aside, caller: Reader) -> DatasetDetail:
    """Each with its caption. What is wrong with them, POST /api/trainings/check tells."""
    return await aside.look(_dataset, shop, caller, id)


def _dataset(shop: Workshop, caller: Caller, id: str) -> DatasetDetail:
    return _detail(shop, mine(shop, caller, id))


@router.patch("/{id}", summary="Call a dataset otherwise")
async def rename(id: DatasetInPath, asked: Called, shop: Shop, aside: Aside, caller: Manager) -> DatasetDetail:
    """Its id stays."""
    await aside.look(mine, shop, caller, id)
    return await aside.submit(_rename, shop, id, asked.name)


def _rename(shop: Workshop, id: str, name: str) -> DatasetDetail:
    return _detail(shop, shop.datasets.rename(id, name))


@router.delete("/{id}", summary="Delete a dataset", status_code=204)
async def delete(id: DatasetInPath, shop: Shop, aside: Aside, caller: Manager) -> None:
    """With all its pictures, for good. Trainings that are not done can't go on without them."""
    await aside.look(mine, shop, caller, id)
    await aside.submit(shop.datasets.delete, id)


@router.post(
    "/{id}/pictures",
    summary="Take a picture into a dataset",
    status_code=201,
    openapi_extra={"requestBody": PICTURE_BODY},
    responses={413: {"model": ErrorAnswer}, 415: {"model": ErrorAnswer}},
)
async def add(
    id: DatasetInPath,
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Manager,
    upload: Annotated[str, Header(alias="X-Bottega-Upload", pattern="^1$", description="1: no form can send this")],
    caption: Annotated[str | None, Query(max_length=2000, description="what it shows")] = None,
) -> PictureCard:
    """A PNG, JPEG or WebP of at most 32 MiB and 64 megapixels, 64 pixels or more along each side, as the body.

    One that is there already gets the new caption, and keeps its own without one.
    """
    check_type(request)
    await aside.look(mine, shop, caller, id)
    return _picture(await aside.draw(_add, shop, id, await request.body(), caption))


def _add(shop: Workshop, id: str, content: bytes, caption: str | None) -> Kept:
    try:
        return shop.datasets.add(id, content, caption)
    except FileError as error:
        raise type(error)("the picture", error.what.partition(": ")[2] or error.what, error.remedy) from None


@router.post("/{id}/outputs", summary="Take outputs into a dataset", status_code=201)
async def add_outputs(id: DatasetInPath, asked: Outputs, shop: Shop, aside: Aside, caller: Manager) -> DatasetDetail:
    """Copies of them, with their prompts as captions."""
    await aside.look(mine, shop, caller, id)
    return await aside.draw(_add_outputs, shop, caller, id, asked.outputs)


def _add_outputs(shop: Workshop, caller: Caller, id: str, outputs: list[str]) -> DatasetDetail:
    for output in [output_of(shop, caller, each) for each in outputs]:
        _add(shop, id, content_of(output), output.prompt[:LONGEST_CAPTION])
    return _detail(shop, shop.datasets.dataset(id))


@router.patch("/{id}/pictures/{picture}", summary="Say what a picture shows")
async def say(
    id: DatasetInPath, picture: Sha256InPath, asked: Captioned, shop: Shop, aside: Aside, caller: Manager
) -> PictureCard:
    """A training that was handed in with the caption of before fails if it is not done: it would learn other things."""
    await aside.look(mine, shop, caller, id)
    return _picture(await aside.submit(shop.datasets.say, id, picture, " ".join(asked.caption.split())))


@router.delete("/{id}/pictures/{picture}", summary="Take a picture out of a dataset", status_code=204)
async def remove(id: DatasetInPath, picture: Sha256InPath, shop: Shop, aside: Aside, caller: Manager) -> None:
    """For good."""
    await aside.look(mine, shop, caller, id)
    await aside.submit(shop.datasets.remove, id, picture)


@router.get(
    "/{id}/pictures/{picture}",
    summary="A picture of a dataset",
    response_class=Response,
    responses={200: {"content": {type: {} for type in TYPES}, "description": "the picture, as it was sent"}},
)
async def content(
    id: DatasetInPath, picture: Sha256InPath, request: Request, shop: Shop, aside: Aside, caller: Reader
) -> Response:
    """The bytes as they were sent."""
    await aside.look(mine, shop, caller, id)
    known = unchanged(request, picture)
    return known if known else await aside.draw(_content, shop, id, picture)


def _content(shop: Workshop, id: str, sha256: str) -> Response:
    path = shop.datasets.path(id, sha256)
    return picture(path.read_bytes(), media.FORMATS[path.suffix], sha256[:16], sha256, lasting=True)


@router.get(
    "/{id}/pictures/{picture}/thumbnail",
    summary="A picture of a dataset, small",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}, "description": "the picture, drawn anew"}},
)
async def thumbnail(
    id: DatasetInPath,
    picture: Sha256InPath,
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Reader,
    size: Annotated[int, Query(ge=64, le=1024)] = 256,
) -> Response:
    """A WebP whose longer side has at most `size` pixels."""
    await aside.look(mine, shop, caller, id)
    known = unchanged(request, f"{picture}-{size}")
    return known if known else await aside.draw(_thumbnail, shop, id, picture, size)


def _thumbnail(shop: Workshop, id: str, sha256: str, size: int) -> Response:
    small = drawn(shop.datasets.path(id, sha256), size)
    return picture(small, "webp", sha256[:16], f"{sha256}-{size}", lasting=True)


# --- what a dataset is over HTTP


def mine(shop: Workshop, caller: Caller, id: str) -> Dataset:
    """The dataset of that id, if the caller may see it; else it is unknown."""
    found = shop.datasets.dataset(id)
    if not caller.sees(found.owner):
        raise UnknownDataset(f"there is no dataset {id!r}", "see /api/datasets")
    return found


def _picture(kept: Kept) -> PictureCard:
    return PictureCard(id=kept.id, caption=kept.caption, width=kept.width, height=kept.height, bytes=kept.bytes)


def _card(found: Dataset) -> DatasetCard:
    return DatasetCard(
        id=found.id,
        name=found.name,
        owner=found.owner,
        created=found.created,
        count=len(found.pictures),
        bytes=sum(each.bytes for each in found.pictures),
        first=found.pictures[0].id if found.pictures else None,
    )


def _detail(shop: Workshop, found: Dataset) -> DatasetDetail:
    return DatasetDetail(
        **dict(_card(found)),
        pictures=[_picture(each) for each in found.pictures],
        unfinished=shop.unfinished(found.id),
    )
