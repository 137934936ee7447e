"""What the routes work with: the workshop of this server, and threads for what would keep others waiting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from bottega.api.given import found
from bottega.api.intake import Intake
from bottega.workshop import Workshop

Told = TypeVar("Told")
Given = ParamSpec("Given")

# How much goes on at once of each sort of work: more threads than that only take the time from each other.
THREADS = {"look": 4, "submit": 2, "resolve": 2, "draw": 2, "take": 4}


class Threads:
    """Where blocking work is done beside the event loop, each sort in threads of its own: none waits for another."""

    def __init__(self) -> None:
        self._limits = {sort: CapacityLimiter(most) for sort, most in THREADS.items()}

    async def look(self, work: Callable[Given, Told], *args: Given.args, **named: Given.kwargs) -> Told:
        """Read from a database or the disk."""
        return await self._run("look", partial(work, *args, **named))

    async def submit(self, work: Callable[Given, Told], *args: Given.args, **named: Given.kwargs) -> Told:
        """Take work in."""
        return await self._run("submit", partial(work, *args, **named))

    async def resolve(self, work: Callable[Given, Told], *args: Given.args, **named: Given.kwargs) -> Told:
        """Complete a draft, for which a model may have to be hashed: whoever hands work in does not wait for it."""
        return await self._run("resolve", partial(work, *args, **named))

    async def draw(self, work: Callable[Given, Told], *args: Given.args, **named: Given.kwargs) -> Told:
        """Decode or draw a picture, or read a large file."""
        return await self._run("draw", partial(work, *args, **named))

    async def take(self, work: Callable[Given, Told], *args: Given.args, **named: Given.kwargs) -> Told:
        """Take the pictures of a request in, which may have to be fetched and wait for memory to be decoded in."""
        return await self._run("take", partial(work, *args, **named))

    async def _run(self, sort: str, work: Callable[[], Told]) -> Told:
        return await to_thread.run_sync(work, limiter=self._limits[sort])


def _shop(request: Request) -> Workshop:
    workshop: Workshop = request.app.state.workshop
    return workshop


def _threads(request: Request) -> Threads:
    threads: Threads | None = getattr(request.app.state, "native_threads", None)
    if threads is None:
        threads = request.app.state.native_threads = Threads()
    return threads


def _intake(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


Shop = Annotated[Workshop, Depends(found(_shop))]
Aside = Annotated[Threads, Depends(found(_threads))]
Taken = Annotated[Intake, Depends(found(_intake))]
