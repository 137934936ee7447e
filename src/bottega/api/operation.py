"""How the server is: /health for whoever watches over it, /metrics for Prometheus; neither waits for the engine."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from bottega.api.access import need
from bottega.api.counts import BOUNDS, Counts
from bottega.jobs.job import LIBRARY
from bottega.version import __version__

if TYPE_CHECKING:
    from bottega.workshop import Workshop

router = APIRouter(tags=["operation"])

WITHIN = 0.1  # seconds that looking at disks and queue may take; then the last finding is told
FRESH = 1.0  # seconds for which a finding is told again
LOW_DISK = 256 << 20  # bytes
READY_WITHIN = 120.0  # seconds that a worker may take to start


class Watch:
    """Looks at what may keep a server from working, in a thread of its own, so that a hanging disk stops nobody."""

    def __init__(self, workshop: Workshop, folders: Mapping[str, Path]) -> None:
        self._workshop, self._folders = workshop, folders
        self._thread = ThreadPoolExecutor(1, "watch")
        self._found: dict[str, Any] = {"reasons": [], "jobs": {}, "devices": []}
        self._absent: dict[str, float] = {}  # since when workers were seen not to be ready
        self._looked = float("-inf")
        self._looking: asyncio.Future[dict[str, Any]] | None = None

    async def look(self) -> dict[str, Any]:
        """What was found: `reasons` why not all is well, `jobs` by state, `devices`."""
        if time.monotonic() - self._looked < FRESH:
            return self._found
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().run_in_executor(self._thread, self._find)
        done, _ = await asyncio.wait({self._looking}, timeout=WITHIN)
        if done:
            self._found, self._looked = self._looking.result(), time.monotonic()
            return self._found
        return {**self._found, "reasons": [*self._found["reasons"], "the disk or the queue does not answer"]}

    def close(self) -> None:
        """Look no more."""
        self._thread.shutdown(wait=False)

    def _find(self) -> dict[str, Any]:
        reasons = []
        for name, folder in self._folders.items():
            reasons += _disk(name, folder)
        try:
            jobs = dict(self._workshop.queue.counts())
        except Exception as error:  # whatever is wrong with the queue's file, that is what is to be told
            jobs = {}
            reasons.append(f"the queue can't be read ({type(error).__name__})")
        if self._workshop.queue.damaged:  # which the look above does not find wherever it is
            reasons.append("the file of the queue is damaged")
        devices = list(self._workshop.foreman.devices())
        reasons += self._not_ready(devices)
        return {"reasons": reasons, "jobs": jobs, "devices": devices}

    def _not_ready(self, devices: Sequence[Mapping[str, Any]]) -> list[str]:
        """Which workers have not been ready for too long; that of the library comes when it is needed."""
        now = time.monotonic()
        lanes = [str(told["lane"]) for told in devices if told["state"] in ("off", "starting")]
        self._absent = {lane: self._absent.get(lane, now) for lane in lanes if lane != LIBRARY}
        late = [lane for lane, since in self._absent.items() if now - since > READY_WITHIN]
        return [f"the worker of {lane} does not start" for lane in late]


def _disk(name: str, folder: Path) -> list[str]:
    """What is wrong with the disk of a folder of this name, or of the one that it will be made in."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return [f"the folder of the {name} can't be read ({error.strerror})"]
    if free < LOW_DISK:
        return [f"the disk of the {name} has only {free >> 20} MiB left"]
    if not os.access(folder, os.W_OK):
        return [f"the folder of the {name} can't be written"]
    return []


@router.get("/health")
async def health(request: Request) -> Response:
    """Whether the server works: 200 with `ok` or `degraded` and the reasons, always at once."""
    found = await request.app.state.watch.look()
    reasons = sorted(set(found["reasons"]))
    return JSONResponse({"status": "degraded" if reasons else "ok", "reasons": reasons, "version": __version__})


@router.get("/metrics", dependencies=[Depends(need("read"))])
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text format."""
    found = await request.app.state.watch.look()
    text = exposition(found, request.app.state.access.counts, request.app.state.began)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def exposition(found: dict[str, Any], counts: Counts, began: float) -> str:
    """What /metrics says, in Prometheus' text format 0.0.4."""
    lines: list[str] = []

    def metric(name: str, kind: str, about: str, values: Sequence[tuple[Mapping[str, object], float]]) -> None:
        lines.append(f"# HELP bottega_{name} {about}")
        lines.append(f"# TYPE bottega_{name} {kind}")
        lines.extend(f"bottega_{name}{_labels(labels)} {value:g}" for labels, value in values)

    metric("info", "gauge", "The version that runs.", [({"version": __version__}, 1)])
    metric("uptime_seconds", "gauge", "Seconds since the server started.", [({}, time.monotonic() - began)])
    metric("healthy", "gauge", "Whether /health says ok.", [({}, 0 if found["reasons"] else 1)])
    metric("jobs", "gauge", "Jobs by state.", [({"state": state}, n) for state, n in sorted(found["jobs"].items())])
    waiting = sum(found["jobs"].get(state, 0) for state in ("waiting", "running"))
    metric("queue_length", "gauge", "Jobs that wait or run.", [({}, waiting)])
    metric("resident_memory_bytes", "gauge", "Memory of the server's process.", [({}, resident())])
    lanes = [(str(device.get("lane", "")), device) for device in found["devices"]]
    states = [({"lane": lane, "state": device.get("state", "")}, 1.0) for lane, device in lanes]
    metric("worker_state", "gauge", "1 for the state that each worker is in.", states)
    for key, name, about in (
        ("memory", "device_memory_bytes", "Memory of each device."),
        ("free", "device_memory_free_bytes", "Free memory of each device."),
    ):
        told = [({"lane": lane}, float(device[key])) for lane, device in lanes if device.get(key) is not None]
        metric(name, "gauge", about, told)
    held = [
        ({"lane": lane}, float(sum(model["bytes"] for model in device.get("models", ())))) for lane, device in lanes
    ]
    metric("device_models_bytes", "gauge", "Memory that loaded models take of each device.", held)
    answered = [({"door": door, "status": status}, n) for (door, status), n in sorted(counts.requests.items())]
    metric("requests_total", "counter", "Requests by door and status.", answered)
    name = "bottega_request_seconds"
    lines += [f"# HELP {name} How long requests took.", f"# TYPE {name} histogram"]
    for door, buckets in sorted(counts.buckets.items()):
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), buckets, strict=True):
            total += count
            lines.append(f"{name}_bucket{_labels({'door': door, 'le': bound})} {total}")
        lines.append(f"{name}_sum{_labels({'door': door})} {counts.seconds[door]:.6f}")
        lines.append(f"{name}_count{_labels({'door': door})} {total}")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, object]) -> str:
    if not labels:
        return ""
    told = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return "{" + told + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def resident() -> int:
    """The memory that this process has in use, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
