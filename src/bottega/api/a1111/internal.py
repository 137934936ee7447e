"""/internal: what A1111's own page asks, and some clients with it."""

from __future__ import annotations

import base64
import platform
import time
from typing import Any

from fastapi import APIRouter

from bottega.api.a1111 import answer
from bottega.api.a1111.asked import ProgressOf
from bottega.api.a1111.making import A1111, Reader
from bottega.version import __version__

router = APIRouter(prefix="/internal", tags=["a1111"])


@router.get("/ping")
def ping() -> dict[str, Any]:
    """Whether the server is there."""
    return {}


@router.post("/progress")
def progress(told: ProgressOf, door: A1111, caller: Reader) -> dict[str, Any]:
    """How far the task is to which the client gave this name."""
    id = door.tasks.get((caller.name, told.id_task or ""), told.id_task)
    job = next((job for job in door.open_jobs(caller.name) if job.id == id), None)
    if job is None:
        return {
            "active": False,
            "queued": False,
            "completed": id is not None and id != told.id_task,
            "progress": None,
            "eta": None,
            "live_preview": None,
            "id_live_preview": told.id_live_preview,
            "textinfo": "Waiting...",
        }
    going = door.going(job)
    preview = door.workshop.preview(job.id) if told.live_preview else None
    shown = f"data:image/png;base64,{base64.b64encode(preview).decode('ascii')}" if preview else None
    step = int((job.progress or {}).get("done") or 0)
    return {
        "active": job.started is not None,
        "queued": job.started is None,
        "completed": False,
        "progress": answer.fraction(going),
        "eta": answer.seconds_left(going, time.time()),
        "live_preview": shown,
        "id_live_preview": step if shown else told.id_live_preview,
        "textinfo": None,
    }


@router.get("/pending-tasks")
def pending_tasks(door: A1111, caller: Reader) -> dict[str, Any]:
    """The caller's jobs that wait, by the names that clients gave them."""
    names = {id: name for (owner, name), id in door.tasks.items() if owner == caller.name}
    waiting = [names.get(job.id, job.id) for job in door.open_jobs(caller.name) if job.started is None]
    return {"size": len(waiting), "tasks": waiting}


@router.get("/sysinfo")
def sysinfo(caller: Reader) -> dict[str, Any]:
    """What runs here, and nothing of where."""
    return {
        "Platform": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Version": f"Bottega {__version__}",
        "Extensions": [],
    }
