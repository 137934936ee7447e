"""The machine and its server: devices, memory, disk, the log, settings."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.errors import without_paths
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.models import shown
from bottega.api.native.shapes import Asked, Told
from bottega.api.native.subject import subject
from bottega.errors import BottegaError, FieldProblem, InvalidRecipe
from bottega.library.find import on_record
from bottega.settings import write_setting
from bottega.version import __version__
from bottega.workshop import Workshop

router = subject("system")

Reader = Annotated[Caller, Depends(need("read"))]
Maker = Annotated[Caller, Depends(need("generate"))]
Admin = Annotated[Caller, Depends(need("admin"))]

MOST_LINES = 1000
TAIL = 1 << 20  # bytes at the end of the log that are looked at


class LoadedModel(Told):
    """A model that is held in a device's memory."""

    name: str
    bytes: int
    waiting: int = Field(description="bytes of it that wait in main memory, which the device is too small for")
    next_out: bool = Field(description="it is the next to make room for another one")


class Device(Told):
    """A device that work is done on: what its worker is doing, and how much of its memory is in use."""

    lane: str
    name: str
    state: str = Field(description="off, starting, idle or working")
    memory_total: int | None
    memory_free: int | None
    jobs: list[str] = Field(description="the caller's own of those that it works on")
    models: list[LoadedModel]


class Disk(Told):
    """The disk that outputs lie on, in bytes: all of it, what is free, and what outputs and the home's models take."""

    free: int
    total: int
    outputs: int
    models: int


class QueueCounts(Told):
    """How many jobs of everybody wait and run."""

    paused: bool
    waiting: int
    running: int


class SystemTold(Told):
    """How the machine and its server are."""

    version: str
    uptime: float = Field(description="seconds")
    devices: list[Device]
    disk: Disk
    queue: QueueCounts


class LogLine(Told):
    """One thing that the server wrote down."""

    at: float | None = None
    level: str = ""
    logger: str = ""
    message: str


class LogTold(Told):
    """The newest lines of the server's log, the oldest of them first."""

    lines: list[LogLine]


class SettingsTold(Told):
    """What this server is set to; what is not here can only be read and changed on the machine itself."""

    model: str = Field(description="what a recipe that names no model is made with")
    device: str
    precision: str
    parallel_downloads: int
    keep_free_mb: int
    open_doors: bool
    fetch_pictures: bool
    requests_per_second: float


class SettingsAsked(Asked):
    """What can be set over HTTP: nothing that decides who may do what, or where files go."""

    model: str = Field(min_length=1, max_length=300)


@router.get("/system", summary="The machine and its server")
async def system(request: Request, shop: Shop, aside: Aside, caller: Reader) -> SystemTold:
    """Devices with the models in their memory, the disk, the queue."""
    began: float = request.app.state.began
    return await aside.look(_system, shop, caller, time.monotonic() - began)


@router.post("/system/unload", summary="Let go of the models that are kept loaded", status_code=204)
async def unload(shop: Shop, caller: Maker) -> None:
    """The memory is free when this answers; a worker that is at work lets go of them after it. The next job loads its
    model again."""
    await asyncio.to_thread(shop.foreman.unload)


def _system(shop: Workshop, caller: Caller, uptime: float) -> SystemTold:
    counts = shop.queue.counts()
    return SystemTold(
        version=__version__,
        uptime=round(uptime, 3),
        devices=[_device(told, shop, caller) for told in shop.foreman.devices()],
        disk=_disk(shop),
        queue=QueueCounts(paused=shop.queue.paused, waiting=counts.get("waiting", 0), running=counts.get("running", 0)),
    )


def _device(told: dict[str, Any], shop: Workshop, caller: Caller) -> Device:
    jobs = []
    for id in told.get("jobs", ()):
        try:
            jobs += [id] if caller.sees(shop.queue.job(id).owner) else []
        except BottegaError:
            continue  # it ended just now
    models = told.get("models", ())
    # What is worth least is the first to go.
    worth = [model["value"] for model in models if isinstance(model.get("value"), (int, float))]
    return Device(
        lane=told["lane"],
        name=told.get("name", ""),
        state=told["state"],
        memory_total=told.get("memory"),
        memory_free=told.get("free"),
        jobs=jobs,
        models=[
            LoadedModel(
                name=without_paths(str(model["name"])),
                bytes=int(model["bytes"]),
                waiting=int(model.get("waiting", 0)),
                next_out=bool(worth) and len(models) > 1 and model.get("value") == min(worth),
            )
            for model in models
        ],
    )


def _disk(shop: Workshop) -> Disk:
    place = shop.settings.outputs
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    models = shop.catalog.bytes_below(shop.settings.models)
    return Disk(free=usage.free, total=usage.total, outputs=shop.gallery.size(), models=models)


@router.get("/system/log", summary="The newest lines of the server's log")
async def log(
    shop: Shop, aside: Aside, caller: Admin, lines: Annotated[int, Query(ge=1, le=MOST_LINES)] = 200
) -> LogTold:
    """Without secrets and without paths; the whole log lies on the machine."""
    return LogTold(lines=await aside.look(_tail, shop.settings.logs / "serve.log", lines))


def _tail(path: Path, most: int) -> list[LogLine]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            content = file.read(TAIL)
    except OSError:
        return []
    rows = content.decode(errors="replace").splitlines()[1 if size > TAIL else 0 :]
    return [_line(row) for row in rows[-most:]]


def _line(row: str) -> LogLine:
    try:
        told = json.loads(row)
        at, level, logger, message = (told[name] for name in ("at", "level", "logger", "message"))
        extra = {
            name: value for name, value in told.items() if name not in ("at", "level", "logger", "message", "trace")
        }
        more = f" {json.dumps(extra, ensure_ascii=False)}" if extra else ""
        return LogLine(at=float(at), level=str(level), logger=str(logger), message=without_paths(f"{message}{more}"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return LogLine(message=without_paths(row[:2000]))


@router.get("/settings", summary="What this server is set to")
async def settings(shop: Shop, caller: Reader) -> SettingsTold:
    """Nothing secret, and no path."""
    return _settings(shop)


def _settings(shop: Workshop) -> SettingsTold:
    told = {name: getattr(shop.settings, name) for name in SettingsTold.model_fields}
    return SettingsTold(**{**told, "model": without_paths(told["model"])})


@router.patch("/settings", summary="Change what can be set from here")
async def change(asked: SettingsAsked, shop: Shop, aside: Aside, caller: Admin) -> SettingsTold:
    """The model that is taken where a recipe names none; it must be one on record that can be run."""
    await aside.submit(_change, shop, asked.model)
    return _settings(shop)


def _change(shop: Workshop, model: str) -> None:
    entry = on_record(shop.catalog, model, kind="checkpoint")
    if not entry.runs:
        raise InvalidRecipe([FieldProblem("model", f"nothing can be made with {shown(entry.name)} by itself")])
    shop.settings = write_setting(shop.settings, "model", entry.name)
