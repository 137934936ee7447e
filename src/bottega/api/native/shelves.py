"""Work on the shelves: look through them, fetch models, write them anew, merge and hash them; each is a job."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.access.refusal import NotAllowed
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.jobs import FULL, REUSED, JobCard, Key, job_card
from bottega.api.native.models import entry_with, shown
from bottega.api.native.shapes import Asked, ModelId, ModelInPath
from bottega.api.native.subject import subject
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.library.entry import Entry
from bottega.library.sources.errors import BadReference, Refused, RefusedAddress
from bottega.library.sources.install import folder_of
from bottega.library.sources.names import check_paths
from bottega.settings import Settings
from bottega.spec import Match
from bottega.workshop import Workshop

router = subject("models", "/models")

Manager = Annotated[Caller, Depends(need("manage"))]
Dtype = Literal["keep", "fp32", "fp16", "bf16", "fp8"]
Weight = Annotated[float, Field(ge=-100, le=100)]
Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=120,
        description="a plain name without a folder or an ending: it goes into the home's folder for its kind",
    ),
]


class Scan(Asked):
    """Look through the shelves for models that are new or changed."""

    forget_missing: bool = Field(default=False, description="drop what is gone from them, with what was said of it")


class Get(Asked):
    """Fetch a model, check every byte, and put it on the shelf of the home."""

    reference: str = Field(
        min_length=1,
        max_length=2000,
        description="civitai:MODEL[@VERSION], hf:ORG/NAME[/FILE], or an address; for other sites than those an admin's",
    )
    file: str = Field(default="", max_length=300, description="which file of the version or the repository")
    variant: str = Field(default="", max_length=40, description="the precision to prefer, such as fp16")
    sha256: str = Field(default="", pattern=r"^([0-9a-fA-F]{64})?$", description="refuse any other bytes")
    name: Annotated[str, Field(max_length=120, description="what to call it; empty for its own name")] = ""
    allow_unusual: bool = Field(
        default=False, description="also a pickle that mentions unusual names, which are never run"
    )


class Convert(Asked):
    """Write a model anew; the source stays as it is."""

    name: Name
    dtype: Dtype = "keep"
    layout: Literal["single", "diffusers"] = "single"
    prune: bool = Field(default=False, description="leave out what training left")
    ema: bool = Field(default=False, description="take the running averages instead of the weights")
    force: bool = Field(default=False, description="replace what the home has under this name")


class LoraMeant(Asked):
    """A LoRA and how strongly it is added."""

    id: ModelId
    weight: Weight = 1.0


class Merge(Asked):
    """Make one model of two or three, of a model and LoRA, or with another VAE."""

    models: list[ModelId] = Field(min_length=1, max_length=3, description="A, B and C")
    name: Name
    method: Literal["weighted", "add-difference", "slerp", "ties", "dare"] | None = Field(
        default=None, description="weighted; add-difference for three models"
    )
    weight: Weight | None = Field(default=None, description="B's share, or how much of a difference is added")
    weights: list[Weight] = Field(default=[], max_length=64, description="a weight for each block")
    density: float = Field(default=0.5, gt=0, le=1, description="the share that ties and dare keep")
    seed: int = Field(default=0, ge=0, lt=2**63, description="what decides which numbers dare keeps")
    vae: ModelId | None = None
    loras: list[LoraMeant] = Field(default=[], max_length=20)
    dtype: Dtype = "keep"
    force: bool = Field(default=False, description="replace what the home has under this name")


class Hash(Asked):
    """Compute the hashes by which sites know a model; there is nothing to say about it."""


@router.post("/scan", summary="Look through the shelves", status_code=202, responses={**FULL, **REUSED})
async def scan(asked: Scan, shop: Shop, aside: Aside, caller: Manager, key: Key = None) -> JobCard:
    """A job whose result tells what is new, changed, moved and gone."""
    told = {"folders": [], "forget_missing": asked.forget_missing}
    return await _submit(shop, aside, caller, key, "scan", told, "all shelves")


@router.post("/get", summary="Fetch a model", status_code=202, responses={**FULL, **REUSED})
async def get(asked: Get, shop: Shop, aside: Aside, caller: Manager, key: Key = None) -> JobCard:
    """A job that goes on where it was broken off, and installs nothing that is damaged or dangerous."""
    from bottega.library.sources.references import shown_reference

    if asked.name:
        _check_name(asked.name)
    _check_no_key(asked.reference)
    if not caller.admin and not _is_known_site(asked.reference, shop.settings):
        raise NotAllowed("fetching from any address is for admins", "name a model of Civitai or Hugging Face")
    _check_reference(asked.reference, shop.settings)
    told = {
        "references": [asked.reference],
        **asked.model_dump(include={"file", "variant", "sha256", "name", "allow_unusual"}),
    }
    return await _submit(shop, aside, caller, key, "get", told, shown_reference(asked.reference))


def _check_no_key(reference: str) -> None:
    """Refuse an address with a key in it: it would be kept in the queue, and shown in lists."""
    if re.search(r"[?&](token|api_?key|access_token|key|password)=|//[^/?#]*@", reference, re.IGNORECASE):
        raise InvalidRecipe(
            [FieldProblem("reference", "has a key in it", "leave it out; keys are kept in tokens.toml in the home")]
        )


def _check_reference(reference: str, settings: Settings) -> None:
    """Refuse what can never be fetched; no name is looked up for it."""
    from bottega.library.sources.references import read

    try:
        read(reference.strip(), settings)
    except (BadReference, RefusedAddress) as error:
        raise InvalidRecipe([FieldProblem("reference", error.what, error.remedy)]) from None


@router.post("/merge", summary="Make one model of several", status_code=202, responses={**FULL, **REUSED})
async def merge(asked: Merge, shop: Shop, aside: Aside, caller: Manager, key: Key = None) -> JobCard:
    """A job that writes one .safetensors, with the recipe of the merge in it."""
    return await aside.submit(_merge, shop, caller, asked, key)


def _merge(shop: Workshop, caller: Caller, asked: Merge, key: str | None) -> JobCard:
    if len(asked.models) == 1 and not (asked.loras or asked.vae):
        raise InvalidRecipe(
            [FieldProblem("models", "one model alone is nothing to merge", "add another, a LoRA or a VAE")]
        )
    entries = [entry_with(shop, id) for id in asked.models]
    _check_fit(asked, entries[0])
    told = {
        "models": [str(entry.path) for entry in entries],
        "out": destination(shop.settings, asked.name, entries[0].kind, ".safetensors"),
        "vae": str(entry_with(shop, asked.vae).path) if asked.vae else None,
        "loras": [[str(entry_with(shop, lora.id).path), lora.weight] for lora in asked.loras],
        **asked.model_dump(include={"method", "weight", "weights", "density", "seed", "dtype", "force"}),
    }
    if not asked.force:
        _check_free(shop, caller, told["out"], key)
    title = f"{' + '.join(shown(entry.name) for entry in entries)} → {asked.name}"
    return job_card(shop.submit_work("merge", told, owner=caller.name, title=title, key=key))


def _check_fit(asked: Merge, first: Entry) -> None:
    """Raise InvalidRecipe for a merge that can't be, as far as that can be told without its files."""
    from bottega.families import all_families
    from bottega.library.merge_recipe import method_of, wrong_count, wrong_weights

    count = len(asked.models)
    if wrong := wrong_count(method_of(asked.method, count), count):
        raise InvalidRecipe([FieldProblem("method", *wrong)])
    if not asked.weights or "unet" not in first.dimensions:
        return
    for family in all_families():
        if family.id == first.recogniser and family.anatomy:
            blocks = family.anatomy.blocks(Match(first.variant, first.dimensions))
            if wrong := wrong_weights(len(asked.weights), blocks):
                raise InvalidRecipe([FieldProblem("weights", *wrong)])


@router.post("/{id}/convert", summary="Write a model anew", status_code=202, responses={**FULL, **REUSED})
async def convert(
    id: ModelInPath, asked: Convert, shop: Shop, aside: Aside, caller: Manager, key: Key = None
) -> JobCard:
    """A job that compares what it has written with the source before that gets its name."""
    return await aside.submit(_convert, shop, caller, id, asked, key)


def _convert(shop: Workshop, caller: Caller, id: str, asked: Convert, key: str | None) -> JobCard:
    entry = entry_with(shop, id)
    ending = "" if asked.layout == "diffusers" else ".safetensors"
    told = {
        "source": str(entry.path),
        "destination": destination(shop.settings, asked.name, entry.kind, ending),
        **asked.model_dump(include={"dtype", "layout", "prune", "ema", "force"}),
    }
    if not asked.force:
        _check_free(shop, caller, told["destination"], key)
    title = f"{shown(entry.name)} → {asked.name}"
    return job_card(shop.submit_work("convert", told, owner=caller.name, title=title, key=key))


@router.post("/{id}/hash", summary="Hash a model", status_code=202, responses={**FULL, **REUSED})
async def hash(id: ModelInPath, asked: Hash, shop: Shop, aside: Aside, caller: Manager, key: Key = None) -> JobCard:
    """A job that reads the file once; what it finds is remembered until the file changes."""
    entry = await aside.look(entry_with, shop, id)
    told = {"models": [str(entry.path)], "all": False}
    return await _submit(shop, aside, caller, key, "hash", told, shown(entry.name))


async def _submit(
    shop: Workshop, aside: Aside, caller: Caller, key: str | None, kind: str, told: dict[str, Any], title: str
) -> JobCard:
    return job_card(await aside.submit(shop.submit_work, kind, told, owner=caller.name, title=title, key=key))


def _check_name(name: str) -> None:
    """Raise InvalidRecipe for what can't be the name of a file, on any system, in the folder that it is put into."""
    try:
        check_paths([name])
        plain = "/" not in name and unicodedata.normalize("NFC", name) == name
    except Refused:
        plain = False
    if not plain:
        remedy = "use letters, digits, spaces and . _ ( ) + -, and no dot at either end"
        raise InvalidRecipe([FieldProblem("name", "can't be the name of a model", remedy)])


def destination(settings: Settings, name: str, kind: str, ending: str) -> str:
    """Where on the home's own shelf a model of this kind and name goes; no name leads out of it."""
    _check_name(name)
    place = f"{folder_of(kind)}/{name}{ending}"
    if not (settings.models / place).resolve().is_relative_to(settings.models.resolve()):
        raise InvalidRecipe([FieldProblem("name", "there is a link of that name that leads out of the home")])
    return place


def _check_free(shop: Workshop, caller: Caller, place: str, key: str | None) -> None:
    """Raise InvalidRecipe if something lies there already; a request that is sent once more has made it itself."""
    if key is not None and shop.queue.with_key(caller.name, key) is not None:
        return
    if os.path.lexists(shop.settings.models / place):
        raise InvalidRecipe([FieldProblem("name", "is the name of a model that is there already", "choose another")])


def _is_known_site(reference: str, settings: Settings) -> bool:
    if "://" not in reference:
        return True
    try:
        host = urlsplit(reference).hostname
    except ValueError:
        return False
    return host is not None and host in {
        urlsplit(url).hostname for url in (settings.civitai_url, settings.huggingface_url)
    }
