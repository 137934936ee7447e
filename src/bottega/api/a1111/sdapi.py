"""/sdapi/v1: everything that clients ask for beside making: options, lists, what a picture carries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Request

from bottega.api.a1111 import lists
from bottega.api.a1111.asked import Interrogate, PngInfo
from bottega.api.a1111.making import A1111, Maker, Reader
from bottega.api.a1111.options import known_options
from bottega.api.a1111.translate import parameters_of
from bottega.api.embedded import picture_from
from bottega.api.models import PICTURES, aliases, attachable, names, running
from bottega.formats import infotext
from bottega.runtime.plan import available_memory, main_memory

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])

# --- options


@router.get("/options")
def options(door: A1111, caller: Reader) -> dict[str, Any]:
    """The caller's options; every one of them is taken back."""
    return door.options(caller.name)


@router.post("/options")
def set_options(told: Annotated[dict[str, Any], Body()], door: A1111, caller: Maker) -> dict[str, Any]:
    """Change some of the caller's options; those that mean nothing here are ignored."""
    door.choose(caller.name, known_options(told))
    return {}


@router.get("/cmd-flags")
def cmd_flags(caller: Reader) -> dict[str, Any]:
    """How the server was started, as far as clients look at it."""
    return dict(lists.FLAGS)


# --- lists


@router.get("/sd-models")
def sd_models(door: A1111, caller: Reader) -> list[dict[str, Any]]:
    """The models that make pictures here."""
    found = running(door.workshop, *PICTURES)
    return lists.models(found, names(door.workshop.catalog, found))


@router.get("/samplers")
def samplers(caller: Reader) -> list[dict[str, Any]]:
    """Every sampler."""
    return lists.samplers()


@router.get("/schedulers")
def schedulers(caller: Reader) -> list[dict[str, Any]]:
    """Every noise schedule."""
    return lists.schedulers()


@router.get("/upscalers")
def upscalers(caller: Reader) -> list[dict[str, Any]]:
    """What can enlarge pictures."""
    return lists.upscalers()


@router.get("/latent-upscale-modes")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/prompt-styles")
@router.get("/extensions")
@router.get("/script-info")
def nothing(caller: Reader) -> list[dict[str, Any]]:
    """What there is none of here."""
    return []


@router.get("/scripts")
def scripts(caller: Reader) -> dict[str, list[str]]:
    """The scripts: none, and so clients send none."""
    return dict(lists.SCRIPTS)


@router.get("/loras")
def loras(door: A1111, caller: Reader) -> list[dict[str, Any]]:
    """The LoRAs that can be used."""
    found = attachable(door.workshop, "lora")
    catalog = door.workshop.catalog
    called = names(catalog, found)
    return lists.loras(found, called, aliases(catalog, found, called))


@router.get("/hypernetworks")
def hypernetworks(door: A1111, caller: Reader) -> list[dict[str, Any]]:
    """The hypernetworks that can be used."""
    found = attachable(door.workshop, "hypernetwork")
    return lists.hypernetworks(found, names(door.workshop.catalog, found))


@router.get("/embeddings")
def embeddings(door: A1111, caller: Reader) -> dict[str, Any]:
    """The embeddings that can be used: `loaded` are those that fit the caller's model."""
    fitting = attachable(door.workshop, "embedding", door.model(caller.name))
    fit = {each.name for each in fitting}
    return lists.embeddings(fitting, (each for each in attachable(door.workshop, "embedding") if each.name not in fit))


@router.get("/sd-vae")
@router.get("/sd-modules")
def vaes(door: A1111, caller: Reader) -> list[dict[str, Any]]:
    """The VAEs that can be used, for clients of A1111 and of Forge."""
    found = attachable(door.workshop, "vae")
    return lists.vaes(found, names(door.workshop.catalog, found))


@router.get("/memory")
def memory(door: A1111, caller: Reader) -> dict[str, Any]:
    """Main memory, and that of a GPU, in bytes."""
    return lists.memory(main_memory(), available_memory(), door.workshop.foreman.devices())


# --- what a picture carries


@router.post("/png-info")
def png_info(told: PngInfo, door: A1111, caller: Reader) -> dict[str, Any]:
    """The `parameters` text of a picture, in one piece and in parts, and all its texts; no pixel of it is decoded."""
    if not told.image.strip():
        raise HTTPException(404, "Image not found")
    carried = picture_from(told.image, "image", door.workshop.settings).carried
    text = parameters_of(carried)
    ours = {"bottega": carried.recipe, "parameters": text}
    items = {name: told for name, told in ours.items() if told}
    return {"info": text, "items": {**carried.texts, **carried.foreign, **items}, "parameters": _fields(text)}


def _fields(text: str) -> dict[str, str]:
    return infotext.with_defaults(infotext.parse_fields_raw(text)) if text else {}


# --- what is not there


@router.post("/interrogate")
def interrogate(told: Interrogate, caller: Maker) -> None:
    """Describe a picture: this server has no model for it."""
    raise HTTPException(422, f"this version has no model {told.model!r} that describes pictures")


@router.post("/extra-single-image")
@router.post("/extra-batch-images")
def extras(told: Annotated[dict[str, Any], Body()], caller: Maker) -> None:
    """Enlarge pictures or restore faces: this server has no model for it."""
    raise HTTPException(422, "this version enlarges no pictures and restores no faces")


@router.post("/create/embedding")
@router.post("/create/hypernetwork")
@router.post("/train/embedding")
@router.post("/train/hypernetwork")
def training(caller: Maker) -> None:
    """Train: asked for in A1111's way, that would take paths of this machine."""
    raise HTTPException(422, "this server trains what its page or /api/trainings asks for")


@router.post("/server-kill")
@router.post("/server-restart")
@router.post("/server-stop")
def end(caller: Reader) -> None:
    """End the server: refused to everybody, as others may use it."""
    raise HTTPException(403, "the server is not ended over HTTP; end it where it runs")


# --- the models


@router.post("/refresh-checkpoints")
@router.post("/refresh-vae")
@router.post("/refresh-loras")
@router.post("/refresh-embeddings")
async def refresh(door: A1111, caller: Maker, request: Request) -> dict[str, Any]:
    """Look through the shelves; answers once that is done."""
    await door.refresh(caller.name, request)
    return {}


@router.post("/unload-checkpoint")
def unload(door: A1111, caller: Maker) -> dict[str, Any]:
    """Let go of the models that are kept loaded, as the native API's `/api/system/unload` does."""
    door.workshop.foreman.unload()
    return {}


@router.post("/reload-checkpoint")
def reload(caller: Maker) -> dict[str, Any]:
    """Nothing to do: models are loaded when they are needed."""
    return {}
