"""The native API, `/api`: recipes in; jobs, events, outputs, the library and the machine out. It tells no path."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from bottega.api.native import (
    datasets,
    events,
    forms,
    inputs,
    jobs,
    models,
    outputs,
    people,
    recipes,
    shelves,
    system,
    trainings,
)
from bottega.api.native.shapes import ErrorAnswer

_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "the request can't be read",
        401: "it is not known who asks",
        403: "the caller may not do this",
        404: "there is no such thing, or it is somebody else's",
        422: "something in the request is wrong: `problems` names every field",
        429: "too much is asked for: Retry-After says how long to wait",
        503: "the server is stopping, or can't do this now",
        507: "the server's disk or memory is full",
    }.items()
}

router = APIRouter(prefix="/api", responses=_WRONG)
# Routes are tried in this order: what is asked for most often comes first.
for _subject in (jobs, events, outputs, system, inputs, recipes, shelves, models, forms, people, datasets, trainings):
    router.include_router(_subject.router)
