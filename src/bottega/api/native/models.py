"""The library: what models there are, what each is and why, and what its user says of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response
from pydantic import Field, StringConstraints

from bottega.adapters import all_adapters
from bottega.api.access import Caller, need
from bottega.api.errors import without_paths
from bottega.api.models import mates
from bottega.api.native.forms import KnobForm, TaskForm, knob_form, task_forms
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.pictures import drawn_preview, picture, preview_of, preview_tag, unchanged
from bottega.api.native.shapes import Asked, Listed, ModelId, ModelInPath, Seconds, Told, Wished, cursor, place_of
from bottega.api.native.subject import subject
from bottega.engine.resolve import Chosen
from bottega.engine.uses import FIELDS_OF, TAG_OF_KIND
from bottega.errors import FieldProblem, InvalidRecipe, UnknownModel, UnsupportedModel
from bottega.families import family as find_family
from bottega.formats import read_header
from bottega.library import Catalog, Entry
from bottega.library.browse import BEST, Wish, browse, counts, tag_counts
from bottega.library.find import identify_path
from bottega.workshop import Workshop

router = subject("models", "/models")

MOST_NAMES = 200  # of models that fit one
MOST_TEXT = 2000  # characters of one value of a file's metadata
MOST_VALUES = 200

Text = Annotated[str, Field(max_length=200)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=60)]


class ModelCard(Told):
    """What is needed of a model to list it."""

    id: ModelId
    name: str
    title: str = Field(description="what its site calls it; empty where nobody said")
    kind: str = Field(description="checkpoint, lora, embedding, vae, ...")
    category: str = Field(description="base, full fine-tune, lightweight fine-tune, part: what it can be used for")
    family: str = Field(description="the architecture; empty where it is unknown")
    family_title: str
    variant: str
    medium: str = Field(description="image, text, audio, video, 3d; empty where it is unknown")
    format: str
    dtype: str
    parameters: int
    size: int = Field(description="bytes on disk")
    modified: Seconds = Field(description="when its file was last changed")
    runs: bool = Field(description="a family here can make something with it")
    guess: bool = Field(description="its header alone can't decide what it is")
    verdict: Literal["clean", "unusual", "refused"]
    missing: bool = Field(description="it is gone from its shelf; what was said of it is kept for when it comes back")
    error: str | None = Field(description="why it was refused")
    favourite: bool
    tags: list[str] = Field(description="the user's own")
    triggers: list[str] = Field(description="words that call forth what it was trained on")
    weight: float | None = Field(description="the suggested weight of an adapter")
    base_model: str
    preview: bool = Field(description="whether GET /api/models/{id}/preview has a picture")
    sha256: str | None = Field(description="null until it was hashed")


class About(Told):
    """What the model's file, and the cards beside it, say of it: plain text, which nobody checked."""

    title: str
    author: str
    version: str
    base_model: str
    description: str
    triggers: list[str]
    weight: float | None
    licence: str
    permissions: dict[str, str]
    source: str = Field(description="the address of its page")
    tags: list[str]
    resolution: str
    date: str
    notes: str
    extra: dict[str, str]


class ModelDetail(ModelCard):
    """All that is known of a model."""

    file: str = Field(description="the name of its file or folder")
    because: list[str] = Field(description="the evidence for what it is, in words")
    requires: list[str] = Field(description="what else it takes to make something with it")
    names: list[str] = Field(description="what an unusual or refused pickle would call; none of it is ever run")
    notes: list[str]
    note: str = Field(description="the user's own")
    dimensions: dict[str, Any]
    parts: dict[str, str]
    metadata: dict[str, str]
    about: About
    corrected: dict[str, str] = Field(description="what the user says it is, which wins")
    header_says: dict[str, str] = Field(description="what the header says of what is corrected")
    fits: dict[str, list[str]] = Field(description="names of what goes together with it, by kind")
    autov1: str | None
    autov2: str | None
    autov3: str | None
    crc32: str | None
    blake3: str | None


class Facets(Told):
    """How many models there are of each sort; every sort is counted as if none of it were asked for."""

    total: int
    kind: dict[str, int]
    family: dict[str, int] = Field(description="the key is empty for what is of no known family")
    medium: dict[str, int]
    verdict: dict[str, int]
    tag: dict[str, int]


class SizeForm(Told):
    """Width and height in pixels."""

    width: int
    height: int


class Defaults(Told):
    """What a recipe that says nothing of it gets with this model."""

    sampler: str
    schedule: str
    steps: int
    guidance: float
    size: SizeForm


class AdapterForm(Told):
    """A kind of adapter that can be attached to a model, and what of its use can be said.

    `fields` are those of an adapter in a recipe beside `kind` and `ref`; `tag` is what a prompt calls it
    (`<lora:...>`), empty where it has no tag. Embeddings are used by writing their names into the prompt.
    """

    kind: str
    title: str
    fields: list[str]
    tag: str
    most: int | None = Field(description="how many of them at once; null for as many as one likes")


class ModelForm(Told):
    """What can be made with one model, and with which settings; the knobs have its own defaults and limits."""

    family: str
    title: str
    variant: str
    medium: str
    tasks: list[TaskForm]
    knobs: list[KnobForm]
    defaults: Defaults
    adapters: list[AdapterForm]
    blocks: list[str] = Field(description="of its UNet, which a LoRA can have factors for")


class Corrections(Asked):
    """What the model really is, all of it: a correction that is left out, or null, is taken back."""

    kind: Text | None = None
    category: Text | None = None
    family: Text | None = None
    variant: Text | None = None


class Said(Asked):
    """What the user says of a model; what is left out stays as it is."""

    tags: list[Tag] | None = Field(default=None, max_length=50)
    favourite: bool | None = None
    note: str | None = Field(default=None, max_length=10_000)
    corrected: Corrections | None = None


class Saying(Said):
    """What the user says of a model; what is left out stays as it is."""

    was: Said | None = Field(
        default=None, description="what was said so far: where somebody has said otherwise since, nothing is changed"
    )


class Filters(Wished):
    """Which models are asked for; what is left out asks for nothing."""

    q: str = Field(default="", max_length=300, description="beginnings of words of names, tags, descriptions, ...")
    kind: Text | None = None
    family: Text | None = None
    medium: Literal["image", "text", "audio", "video", "3d", "vision", ""] | None = None
    tag: Text | None = None
    verdict: Literal["clean", "unusual", "refused"] | None = Field(
        default=None, description="what is refused is only listed when it is asked for"
    )
    missing: bool = Field(default=False, description="what is gone from the shelves, instead of what is there")
    runs: bool | None = None
    favourite: bool | None = None
    fits: ModelId | None = Field(
        default=None, description="what goes together with this model: adapters and VAEs for one that runs, and back"
    )


class Asking(Filters):
    """Which models are asked for, in which order, and how many at once."""

    sort: Literal["best", "name", "kind", "size", "date"] | None = Field(
        default=None, description="best for a search, else by name; size and date downwards"
    )
    limit: int = Field(default=100, ge=1, le=500)
    after: str | None = Field(default=None, max_length=1000, description="`next` of the page before")
    offset: int = Field(default=0, ge=0, le=10_000_000, description="how many are left out from there on")


@router.get("", summary="Models on the shelves", dependencies=[Depends(need("read"))])
async def models(asked: Annotated[Asking, Query()], shop: Shop, aside: Aside) -> Listed[ModelCard]:
    """The models that meet all conditions, a page at a time."""
    return await aside.look(_models, shop, asked)


def _models(shop: Workshop, asked: Asking) -> Listed[ModelCard]:
    order = asked.sort or ("best" if asked.q.strip() else "name")
    after = _place(asked.after, order) if asked.after is not None else None
    page = browse(shop.catalog, _wish(shop, asked), order, asked.limit, after, asked.offset)
    return Listed[ModelCard](
        items=[ModelCard(**_card(entry)) for entry in page.entries],
        next=cursor(order, *page.after) if page.after else None,
        total=page.total,
    )


def _place(told: str, order: str) -> list[Any]:
    """Where the page begins that a cursor of this order told."""
    keys = {BEST: (int,), "kind": (str, str, str, int), "name": (str, int)}.get(order, (int, str, int))
    begins, *place = place_of(told, str, *keys)
    lowest, highest = (0, 2**62) if order == BEST else (-(2**63), 2**63)  # to that one more is added
    if begins != order or not all(isinstance(each, str) or lowest <= each < highest for each in place):
        raise InvalidRecipe([FieldProblem("after", "is a cursor of another list", "take `next` of the page before")])
    return place


def _wish(shop: Workshop, asked: Filters) -> Wish:
    fits = mates(entry_with(shop, asked.fits)) if asked.fits is not None else None
    families = None
    if asked.medium is not None:
        families = [family for family, (_, medium) in _families().items() if medium == asked.medium]
        families += [""] if asked.medium == "" else []
    return Wish(
        asked.q,
        asked.kind,
        asked.family,
        families,
        asked.verdict,
        asked.tag or None,
        asked.runs,
        asked.favourite,
        fits,
        asked.missing,
    )


@router.get("/facets", summary="How many models there are of each sort", dependencies=[Depends(need("read"))])
async def facets(asked: Annotated[Filters, Query()], shop: Shop, aside: Aside) -> Facets:
    """Counts by kind, family, medium, verdict and tag of the models that meet the other conditions."""
    return await aside.look(_facets, shop, asked)


def _facets(shop: Workshop, asked: Filters) -> Facets:
    wish = _wish(shop, asked)
    sorts = counts(shop.catalog, wish)
    found = {name: Counter[str]() for name in ("kind", "family", "medium", "verdict")}
    total = 0
    for (kind, family, verdict), count in sorts.items():
        medium = medium_of(family)
        fits = {
            "kind": asked.kind is None or kind.casefold() == asked.kind.casefold(),
            "family": asked.family is None or family.casefold() == asked.family.casefold(),
            "medium": asked.medium is None or medium == asked.medium,
            "verdict": verdict == asked.verdict if asked.verdict else verdict != "refused",
        }
        told = {"kind": kind, "family": family, "medium": medium, "verdict": verdict}
        for name, counted in found.items():
            if all(fit for other, fit in fits.items() if other != name):
                counted[told[name]] += count
        total += count if all(fits.values()) else 0
    tags = Counter[str]()
    for ((kind, family, verdict), tag), count in tag_counts(shop.catalog, wish).items():
        if (
            (asked.kind is None or kind.casefold() == asked.kind.casefold())
            and (asked.family is None or family.casefold() == asked.family.casefold())
            and (asked.medium is None or medium_of(family) == asked.medium)
            and (verdict == asked.verdict if asked.verdict else verdict != "refused")
        ):
            tags[tag] += count
    return Facets(total=total, tag=dict(tags), **{name: dict(counted) for name, counted in found.items()})


@router.get("/{id}", summary="All that is known of a model", dependencies=[Depends(need("read"))])
async def model(id: ModelInPath, shop: Shop, aside: Aside) -> ModelDetail:
    """What a model is and why, what is said of it, its hashes, and what it goes together with."""
    return await aside.look(_model, shop, id)


def _model(shop: Workshop, id: str) -> ModelDetail:
    return detail(shop.catalog, known_with(shop, id))


@router.get("/{id}/form", summary="What can be made with a model", dependencies=[Depends(need("read"))])
async def form(id: ModelInPath, shop: Shop, aside: Aside) -> ModelForm:
    """Its tasks, and its knobs with its own defaults and limits. 422 for a model that makes nothing by itself."""
    return await aside.look(_form, shop, id)


def _form(shop: Workshop, id: str) -> ModelForm:
    from bottega.recognisers import all_recognisers

    entry = entry_with(shop, id)
    try:
        # The file may be another one since it was last looked at.
        entry = identify_path(shop.catalog, entry.path, all_recognisers())
    except OSError:
        raise UnknownModel(id) from None
    if not entry.runs:
        raise UnsupportedModel(entry.path, f"is {entry.a_kind} with which nothing is made by itself", "see `runs`")
    family = find_family(entry.recogniser)
    header = read_header(entry.path)
    match = family.recognise(header)
    assert match is not None  # or the catalog would not name the family
    if "variant" in entry.corrected:
        match = family.varied(match, entry.corrected["variant"])
    defaults = family.defaults(header, match)
    chosen = Chosen(entry.name, "", family, defaults, family.limits(match))
    width, height = defaults["size"]
    knobs = []
    for knob in chosen.knobs:
        told = knob_form(knob)
        default = defaults.get(knob.name, knob.default)
        # What is found out by itself stays "auto" here, whatever it comes to.
        knobs.append(told if knob.default == "auto" else told.model_copy(update={"default": default}))
    return ModelForm(
        family=family.id,
        title=family.title,
        variant=match.variant,
        medium=family.medium,
        tasks=task_forms(family),
        knobs=knobs,
        defaults=Defaults(
            sampler=defaults["sampler"],
            schedule=defaults["schedule"],
            steps=defaults["steps"],
            guidance=defaults["guidance"],
            size=SizeForm(width=width, height=height),
        ),
        adapters=_adapter_forms(),
        blocks=list(family.anatomy.blocks(match)) if family.anatomy is not None else [],
    )


def _adapter_forms() -> list[AdapterForm]:
    return [
        AdapterForm(
            kind=adapter.id,
            title=adapter.title,
            fields=list(FIELDS_OF.get(adapter.id, ())),
            tag=TAG_OF_KIND.get(adapter.id, ""),
            most=1 if adapter.id == "vae" else None,
        )
        for adapter in all_adapters()
        if adapter.attach is not None
    ]


@router.get(
    "/{id}/preview",
    summary="The picture beside a model",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}, "description": "the picture, drawn anew"}},
    dependencies=[Depends(need("read"))],
)
async def preview(
    id: ModelInPath, request: Request, shop: Shop, aside: Aside, size: Annotated[int, Query(ge=64, le=1024)] = 384
) -> Response:
    """A WebP whose longer side has at most `size` pixels; 404 for a model with no picture that can be shown."""
    entry = await aside.look(entry_with, shop, id)
    if (tag := preview_tag(entry, size)) and (known := unchanged(request, tag)):
        return known
    told, content = await aside.draw(drawn_preview, entry, size, shop.settings.home / "thumbnails" / "models")
    return picture(content, "webp", "preview", told, lasting=False)


@router.patch("/{id}", summary="Say something of a model")
async def say(
    id: ModelInPath, said: Saying, shop: Shop, aside: Aside, caller: Annotated[Caller, Depends(need("manage"))]
) -> ModelDetail:
    """Tags, a note, a favourite, and what it really is; kept until somebody says otherwise. 409 where `was` is over."""
    return await aside.look(_say, shop, id, said)


def _say(shop: Workshop, id: str, said: Saying) -> ModelDetail:
    from bottega.library.corrections import advice, correctable
    from bottega.recognisers import all_recognisers

    catalog = shop.catalog
    entry = known_with(shop, id)
    corrected: dict[str, str] | None = None
    if said.corrected is not None:
        told = said.corrected.model_dump(exclude_none=True)
        known = correctable(catalog, all_recognisers())
        problems = [
            FieldProblem(f"corrected.{name}", f"{value!r} is none that is known here", advice(value, words))
            for name, words in known.items()
            if (value := told.get(name)) and value.casefold() not in words
        ]
        if problems:
            raise InvalidRecipe(problems)
        corrected = {name: value if name == "variant" else value.casefold() for name, value in told.items() if value}
    was: dict[str, Any] = said.was.model_dump(exclude_none=True) if said.was is not None else {}
    if "tags" in was:
        was["tags"] = tuple(was["tags"])
    catalog.say(entry, tags=said.tags, favourite=said.favourite, note=said.note, corrected=corrected, was=was)
    return detail(catalog, known_with(shop, id))


# --- what an entry of the catalog is over HTTP


def model_id(path: Path) -> str:
    """The opaque id of the model at a path."""
    return hashlib.blake2b(str(path).encode(errors="surrogateescape"), digest_size=8).hexdigest()


_paths: dict[str, Path] = {}  # by id; an id always means the same path, so nothing in it is ever wrong


def entry_with(shop: Workshop, id: str) -> Entry:
    """The model of that id, which is there; raises UnknownModel."""
    entry = known_with(shop, id)
    if entry.missing:
        raise UnknownModel(id)
    return entry


def known_with(shop: Workshop, id: str) -> Entry:
    """The model of that id, be it there or gone from its shelf; raises UnknownModel."""
    catalog = shop.catalog
    path = _paths.get(id)
    if path is None:
        _paths.update((model_id(each), each) for each in catalog.paths())
        path = _paths.get(id)
    entry = catalog.entry(path) if path is not None else None
    if entry is None:
        raise UnknownModel(id)
    return entry


@cache
def _families() -> dict[str, tuple[str, str]]:
    """Title and medium of every family that can be told, by id."""
    from bottega.families import all_families, known

    return {each.id: (each.title, each.medium) for each in (*known(), *all_families())}


def medium_of(family: str) -> str:
    """What models of a family make; empty where that is not known."""
    return _families().get(family, ("", ""))[1]


def _card(entry: Entry) -> dict[str, Any]:
    about = entry.about
    return {
        "id": model_id(entry.path),
        "name": shown(entry.name),
        "title": about.title,
        "kind": entry.kind,
        "category": entry.category,
        "family": entry.family,
        "family_title": _families().get(entry.family, (entry.family, ""))[0],
        "variant": entry.variant,
        "medium": medium_of(entry.family),
        "format": entry.format,
        "dtype": entry.dtype,
        "parameters": entry.parameters,
        "size": entry.size,
        "modified": entry.stamp.mtime_ns / 1e9,
        "runs": entry.runs,
        "guess": entry.is_guess,
        "verdict": entry.verdict,
        "missing": entry.missing,
        "error": without_paths(entry.error) or None,
        "favourite": entry.favourite,
        "tags": list(entry.tags),
        "triggers": list(about.triggers),
        "weight": about.weight,
        "base_model": about.base_model,
        "preview": not entry.missing and preview_of(entry) is not None,
        "sha256": entry.sha256,
    }


def detail(catalog: Catalog, entry: Entry) -> ModelDetail:
    """All that is known of an entry, without where it lies."""
    from bottega.library.fits import fits

    about = entry.about.to_json()
    permissions = {name: _value(value) for name, value in about["permissions"].items()}
    metadata = dict(list(entry.metadata.items())[:MOST_VALUES])
    return ModelDetail(
        **_card(entry),
        file=shown(entry.path.name),
        because=list(entry.evidence),
        requires=list(entry.needs),
        names=list(entry.names),
        notes=[without_paths(note) for note in entry.notes],
        note=entry.note,
        dimensions=dict(entry.dimensions),
        parts=dict(entry.parts),
        metadata={name: value[:MOST_TEXT] for name, value in metadata.items()},
        about=About(**{**about, "permissions": permissions}),
        corrected=dict(entry.corrected),
        header_says=dict(entry.told),
        fits={
            kind: [shown(name) for name in names[:MOST_NAMES]] for kind, names in fits(catalog, entry).by_kind.items()
        },
        autov1=entry.autov1 or None,
        autov2=entry.autov2,
        autov3=entry.autov3,
        crc32=entry.crc32 or None,
        blake3=entry.blake3 or None,
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown(name: str) -> str:
    """A name as JSON can hold it: what is no valid Unicode on the disk is replaced."""
    return name.encode(errors="replace").decode()
