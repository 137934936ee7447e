"""What routes are given of a request itself, without the price that FastAPI has for every dependency."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, get_args, get_type_hints

from fastapi import Request, params
from fastapi.routing import APIRoute
from starlette.responses import Response

Found = TypeVar("Found")
Endpoint = Callable[..., Awaitable[Any]]

_GIVEN = "bottega.given"
_at_once: dict[Callable[..., Any], Callable[[Request], Any]] = {}


def found(of: Callable[[Request], Found]) -> Callable[[Request], Awaitable[Found]]:
    """A dependency that is in the request itself: FastAPI takes it as it does others, a `Route` at once."""

    # Not a plain function: FastAPI would send each of those through its pool of threads.
    async def dependency(request: Request) -> Found:
        return of(request)

    _at_once[dependency] = of
    return dependency


class Route(APIRoute):
    """A route whose dependencies that are `found` are looked up directly, before anything else of the request is read.

    FastAPI looks through the path, the query, the headers and the cookies for each of them, which takes longer than
    most of what routes do. Those of `dependencies` are left to it, and none that is `found` can be overridden.
    """

    def __init__(self, path: str, endpoint: Endpoint, **told: Any) -> None:
        self._given = {
            name: of
            for name, hint in get_type_hints(endpoint, include_extras=True).items()
            for mark in get_args(hint)[1:]
            if isinstance(mark, params.Depends) and (of := _at_once.get(mark.dependency or found))
        }
        super().__init__(path, _filled(endpoint, self._given) if self._given else endpoint, **told)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, with what is given."""
        handle, given = super().get_route_handler(), self._given

        async def handler(request: Request) -> Response:
            request.scope[_GIVEN] = {name: of(request) for name, of in given.items()}
            return await handle(request)

        return handler if given else handle


def _filled(endpoint: Endpoint, given: dict[str, Callable[[Request], Any]]) -> Endpoint:
    """The endpoint as FastAPI is to see it: it takes the request for all that is given."""
    assert inspect.iscoroutinefunction(endpoint), f"{endpoint.__qualname__} is no async function"
    hints = get_type_hints(endpoint, include_extras=True)
    told = inspect.signature(endpoint)
    kept = [each.replace(annotation=hints[name]) for name, each in told.parameters.items() if name not in given]
    own = next((each.name for each in kept if each.annotation is Request), None)

    @wraps(endpoint)
    async def whole(**values: Any) -> Any:
        request = values["_request"] if own is None else values[own]
        if own is None:
            del values["_request"]
        return await endpoint(**values, **request.scope[_GIVEN])

    if own is None:
        kept.append(inspect.Parameter("_request", inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    kinds = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in kept]
    answer = None if hints["return"] is type(None) else hints["return"]
    del whole.__wrapped__  # else it would be taken for that
    whole.__annotations__ = {each.name: each.annotation for each in kinds} | {"return": answer}
    whole.__signature__ = told.replace(parameters=kinds, return_annotation=answer)  # type: ignore[attr-defined]
    return whole
