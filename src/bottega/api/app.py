"""The application: every door behind one gate."""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import HTTPException

from bottega.api import doors, errors
from bottega.api.access.gate import Gate
from bottega.api.access.signing import router as signing
from bottega.api.description import App
from bottega.api.intake import Intake
from bottega.api.operation import Watch
from bottega.api.operation import router as operation
from bottega.version import __version__

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

    from bottega.api.access import Access
    from bottega.workshop import Workshop

# In this order: the first is asked most often, and the last stands under two prefixes, which takes longer to look up.
DOORS = ("bottega.api.native", "bottega.web", "bottega.api.a1111", "bottega.api.openai")


def create_app(workshop: Workshop, access: Access) -> FastAPI:
    """The application that serves a workshop to whom the access lets in. Each door is a module with `routes`."""
    app = App(
        title="Bottega",
        version=__version__,
        summary="Recipes in; jobs, events and outputs out.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Whoever wants figures asks /metrics; nothing is told to anybody without being asked.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    settings = workshop.settings
    errors.hide((settings.home, settings.outputs, *settings.all_shelves, *workshop.catalog.shelves()))
    app.state.workshop, app.state.access, app.state.intake = workshop, access, Intake(workshop)
    app.state.watch = Watch(workshop, {"home": settings.home, "outputs": settings.outputs})
    app.state.began = time.monotonic()
    workshop.queue.quota = access.quotas.waiting
    workshop.allow = access.quotas.allow
    errors.install(app)
    first, *others = [import_module(name).routes for name in DOORS if find_spec(name)]
    app.router.default = _nowhere
    # One flat list: of routers within routers every request would be looked up several times at each of them.
    for routes in (first, operation.routes, signing.routes, *others):
        app.router.routes.extend(routes)
    app.add_middleware(Gate, access=access)
    return app


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer where nothing is: people on the page are told so by the page, programs by an error of their door."""
    if doors.is_api(scope["path"]):
        raise HTTPException(404)
    await import_module("bottega.web").nowhere(scope, receive, send)
