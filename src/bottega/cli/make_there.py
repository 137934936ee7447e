"""Have the server of this home make what `bottega make` asks for, and tell of it as if it were made here."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from bottega.cli.make import follow, inputs_of, told
from bottega.cli.progress import Progress
from bottega.cli.server import Server, ServerError
from bottega.engine.save import destination, write_whole
from bottega.errors import BottegaError, SaveError
from bottega.events import Done, Event, Made, Note, Preview, Started, Step
from bottega.formats import media
from bottega.settings import Settings

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class JobFailed(BottegaError):
    """The server could not do the job."""


class JobCancelled(BottegaError):
    """Somebody cancelled the job."""

    exit_code = 130


def make_there(
    server: Server, args: argparse.Namespace, settings: Settings, progress: Progress
) -> tuple[list[Made], dict[str, Any]]:
    """Have it made; what was made, and the resolved recipe as plain data. Ctrl-C cancels the job."""
    target, format = destination(args.out, settings.outputs)
    if args.out is not None:
        target.prepare()
    asked = _without_none(told(args, [_upload(server, role, path) for role, path in inputs_of(args)]))
    if format is not None:
        asked["output"] = {"format": format}
    if args.model and _names_a_file(args.model):
        asked["model"] = _pinned(args.model, settings, progress)
    for use in asked["adapters"]:
        if _names_a_file(use["ref"]["name"]):
            use["ref"] = _pinned(use["ref"]["name"], settings, progress, use["kind"])
    try:
        job, made = _make(server, asked, args.preview, settings, progress)
    except ServerError as error:
        if error.kind != "UnknownModel" or not (args.model or asked["adapters"]):
            raise
        # What is named may lie on a shelf since a moment ago.
        if args.model:
            asked["model"] = _pinned(args.model, settings, progress)
        for use in asked["adapters"]:
            if not _is_pinned(use):
                use["ref"] = _pinned(use["ref"]["name"], settings, progress, use["kind"])
        job, made = _make(server, asked, args.preview, settings, progress)
    recipe = job["recipe"]
    suffix = SUFFIX[recipe["output"]["format"]]
    placed = []
    for output in made:
        if args.out is None:
            day = datetime.fromtimestamp(job["created"]).date().isoformat()
            path = settings.outputs / day / f"{output.output}{suffix}"
        else:
            content = server.fetch(f"/api/outputs/{output.output}/file")
            path = target.write(content, output.image, len(made), output.seed, suffix)
        placed.append(replace(output, path=os.path.abspath(path)))
    return placed, recipe


def _make(
    server: Server, asked: dict[str, Any], previews: bool, settings: Settings, progress: Progress
) -> tuple[dict[str, Any], list[Made]]:
    """The job that makes what is asked for, and what it made. Whatever ends this early, it is not made for nobody."""
    # Asked for again with the same key, it is the same job.
    ask = partial(server.post, "/api/jobs", {"recipe": asked}, Idempotency_Key=secrets.token_hex(16))
    job: dict[str, Any] | None = None
    try:
        job = ask()
        return job, follow(_events(server, job["id"], previews, settings), progress)
    except (JobFailed, JobCancelled):
        raise
    except BaseException as error:
        if job or not isinstance(error, BottegaError):  # the answer may have been on its way
            with suppress(BottegaError):
                server.post(f"/api/jobs/{(job or ask())['id']}/cancel")
        raise


def _events(server: Server, id: str, previews: bool, settings: Settings) -> Generator[Event]:
    """What the job says until it is done; JobFailed or JobCancelled if it ends otherwise."""
    shown: Path | None = None
    image = step = 0
    try:
        for heard in server.events_of(id):
            data = {name: value for name, value in heard.data.items() if name not in ("job", "at")}
            if heard.kind == "started":
                yield Started(**data)
            elif heard.kind == "step":
                step = data["done"]
                yield Step(**data)
            elif heard.kind == "note":
                yield Note(**data)
            elif heard.kind == "made":
                image = data["image"] + 1
                yield Made(path="", **data)
            elif heard.kind == "retried":
                yield Note(f"begun anew: {data['why']}")
            elif heard.kind == "preview" and previews:
                first = shown is None
                shown = shown or settings.home / f"preview-{secrets.token_hex(4)}.png"
                with suppress(ServerError, SaveError):  # it ended meanwhile, or nobody's picture is lost for want of it
                    write_whole(shown, server.fetch(f"/api/jobs/{id}/preview"))
                    yield Preview(image, 1 if first else step, "", str(shown))
            elif heard.kind == "done":
                yield Done(**data)
                return
            elif heard.kind == "failed":
                raise JobFailed(data["what"], data["remedy"])
            elif heard.kind == "cancelled":
                raise JobCancelled("the job was cancelled", f"`bottega jobs retry {id}` has it made after all")
    finally:
        if shown is not None:
            with suppress(OSError):
                shown.unlink()


def _upload(server: Server, role: str, path: Path) -> dict[str, Any]:
    """Hand a picture in; the input that it is. FileError for what is no PNG, JPEG or WebP."""
    format = media.read(path).format
    return {"role": role, "sha256": server.upload(path.read_bytes(), f"image/{format}")}


def _names_a_file(name: str) -> bool:
    """Whether a model is named by its path: that is for this machine alone, and no server takes it."""
    return os.sep in name or os.path.exists(name)


def _is_pinned(use: dict[str, Any]) -> bool:
    """Whether a use has its hash, or names no file: the model's own VAE."""
    from bottega.engine.automatic import AUTOMATIC, NONE

    return "sha256" in use["ref"] or (use["kind"] == "vae" and use["ref"]["name"].lower() in (NONE, AUTOMATIC))


def _pinned(name: str, settings: Settings, progress: Progress, kind: str = "checkpoint") -> dict[str, str]:
    """The model of that name or path by name and SHA-256; raises what inline work raises."""
    from bottega.library.hashes import sha256_of
    from bottega.workbench import Workbench

    workbench = Workbench(settings, progress.hashing())
    entry = sha256_of(workbench.catalog, workbench.find(name, kind), progress.hashing())
    assert entry.sha256 is not None
    return {"name": entry.name, "sha256": entry.sha256}


def _without_none(value: Any) -> Any:
    """Plain data without what is not said."""
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return value
