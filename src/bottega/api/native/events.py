"""Events as they happen: one stream for each client, replayed from where it was left, never held up by a slow one."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response

from bottega.api.access import Caller, need
from bottega.api.native.inside import Aside, Shop, Threads
from bottega.api.native.jobs import mine, pathless
from bottega.api.native.shapes import JobInPath
from bottega.api.native.subject import subject
from bottega.api.streamed import Streamed
from bottega.jobs.foreman import Preview
from bottega.jobs.job import Numbered
from bottega.workshop import Workshop

router = subject("events")

HEARTBEAT = 15.0  # seconds between two signs of life
ROOM = 256  # events that may wait for one client
AT_ONCE = 500  # kept events that are read at once
LAST = 2**62
Reader = Annotated[Caller, Depends(need("read"))]
After = Annotated[int | None, Query(ge=0, le=LAST, description="only what happened after the event of that number")]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="the same; a browser sends it by itself when it comes back")
]
ENDS = ("done", "result", "failed", "cancelled")
_STREAM: Any = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "`id:` is the event's number, `event:` its kind, `data:` JSON: job, time, and the rest",
    }
}


class Hub:
    """Hands every event to all clients, in the event loop; only one listener stands between it and the workers."""

    def __init__(self, shop: Workshop, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: set[Client] = set()
        self._end = shop.foreman.subscribe(self._heard)

    def _heard(self, told: Numbered | Preview) -> None:
        """Called by the threads that cause the events."""
        if self._clients:
            try:
                self._loop.call_soon_threadsafe(self._hand_out, told)
            except RuntimeError:  # the loop has ended: there is nobody left to tell
                self._end()

    def _hand_out(self, told: Numbered | Preview) -> None:
        for client in self._clients:
            client.put(told)

    def join(self, client: Client) -> None:
        """Hand events to this client from now on."""
        self._clients.add(client)

    def leave(self, client: Client) -> None:
        """Hand it nothing more."""
        self._clients.discard(client)


class Client:
    """What waits to be sent to one client: at most ROOM events.

    Where there is no room, previews go first, then steps. If it is still full everything goes, and `behind` says that
    the client has to read what was kept of it: nothing that matters is lost.
    """

    def __init__(self, owner: str | None, job: str | None) -> None:
        self._owner, self._job = owner, job
        self._waiting: deque[Numbered | Preview] = deque()
        self._news = asyncio.Event()
        self.behind = True  # it begins with what was kept

    def put(self, told: Numbered | Preview) -> None:
        """Keep an event for the client, if it is one of its own."""
        if self._job is not None and told.job != self._job:
            return
        if self._owner is not None and told.owner != self._owner and told.job:
            return
        if isinstance(told, Preview):
            # The newest one is as good as all of them.
            self._drop(lambda each: isinstance(each, Preview) and each.job == told.job)
        if len(self._waiting) >= ROOM:
            self._drop(lambda each: isinstance(each, Preview))
        if len(self._waiting) >= ROOM:
            self._drop(lambda each: isinstance(each, Numbered) and each.event["event"] in ("step", "learned"))
        if len(self._waiting) >= ROOM:
            self._waiting.clear()
            self.behind = True
        if not self.behind or isinstance(told, Preview):
            self._waiting.append(told)
        self._news.set()

    def _drop(self, unwanted: Callable[[Numbered | Preview], bool]) -> None:
        kept = [each for each in self._waiting if not unwanted(each)]
        self._waiting.clear()
        self._waiting.extend(kept)

    def take(self) -> list[Numbered | Preview]:
        """All that waits."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._news.clear()
        return taken

    async def wait(self, seconds: float) -> bool:
        """Whether there is something within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


@router.get(
    "/events", summary="Everything that happens to the caller's jobs", responses=_STREAM, response_class=Response
)
async def events(
    request: Request, shop: Shop, aside: Aside, caller: Reader, after: After = None, last: LastEventId = None
) -> Response:
    """Server-sent events, an admin's: of everybody. Without a number to begin after, from now on.

    It tells: queued, started, step, preview, made, learned, sampled, trained, note, done, failed, cancelled, retried,
    changed, result. Steps, those of trainings too, and previews may be left out for a client that is slow; everything
    else is always sent, once and in order.
    """
    return _stream(request, shop, aside, None if caller.admin else caller.name, None, _number(last, after))


@router.get(
    "/jobs/{id}/events",
    summary="Everything that happens to one job",
    responses={**_STREAM, 204: {"description": "it has ended, and there is nothing to tell after that number"}},
    response_class=Response,
)
async def job_events(
    id: JobInPath,
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Reader,
    after: After = None,
    last: LastEventId = None,
) -> Response:
    """Server-sent events from its first one on; the stream ends when the job does. 204 to who has seen the end."""
    found = mine(shop, caller, id)
    number = _number(last, after) or 0
    # The events are read after the job: whatever befell it in between, such as another try, is among them.
    if found.over and not await aside.look(shop.queue.events, number, job=id, limit=1):
        # An EventSource comes back whenever a stream ends, and stays away only after this:
        # https://html.spec.whatwg.org/multipage/server-sent-events.html
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return _stream(request, shop, aside, None, id, number)


def _number(last: str | None, after: int | None) -> int | None:
    """The event after which to begin; what a client made up for a number is none."""
    if last is not None and last.isascii() and last.isdecimal() and len(last) < 19:
        return int(last)
    return after


def _stream(
    request: Request, shop: Workshop, aside: Threads, owner: str | None, job: str | None, after: int | None
) -> Response:
    hub: Hub | None = getattr(request.app.state, "hub", None)
    if hub is None:
        hub = request.app.state.hub = Hub(shop, asyncio.get_running_loop())
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    # Now, and not when the stream is first read: whoever sees its headers is told of all that happens from then on. A
    # number that is yet to come is as good as the newest.
    newest = shop.queue.last_event
    number = newest if after is None else min(after, newest)
    told = told_to(hub, Client(owner, job), shop, aside, owner, job, number)
    return Streamed(told, media_type="text/event-stream", headers=headers)


async def told_to(
    hub: Hub, client: Client, shop: Workshop, aside: Threads, owner: str | None, job: str | None, number: int
) -> AsyncGenerator[str]:
    """The stream of one client: what was kept after the event of that number, then what comes."""
    hub.join(client)
    try:
        yield "retry: 2000\n\n"
        while True:
            if client.behind:
                client.behind = False
                # What happens from here on waits already; what is kept before it is read first.
                kept, is_over = await aside.look(_kept, shop, owner, job, number)
                while kept:
                    for told in kept:
                        yield _text(told)
                    number = kept[-1].number
                    kept, is_over = await aside.look(_kept, shop, owner, job, number)
                if is_over:
                    return
            elif not await client.wait(HEARTBEAT):
                yield ": still here\n\n"
            for news in client.take():
                if isinstance(news, Preview):
                    yield _preview_text(news)
                elif news.number > number:
                    number = news.number
                    yield _text(news)
                    if _ends(news, job):
                        return
    finally:
        hub.leave(client)


def _kept(shop: Workshop, owner: str | None, job: str | None, number: int) -> tuple[list[Numbered], bool]:
    """What was kept after the event of that number, and whether the job of the stream was over before."""
    # The events are read after the job: its end is among them, and whatever befell it since, such as another try.
    is_over = job is not None and shop.queue.job(job).over
    return shop.queue.events(number, job=job, owner=owner, limit=AT_ONCE), is_over


def _ends(told: Numbered, job: str | None) -> bool:
    return job is not None and told.event["event"] in ENDS


def _text(told: Numbered) -> str:
    event = {name: value for name, value in told.event.items() if name not in ("event", "job")}
    data = json.dumps({"job": told.job, "at": told.at, **pathless(event)}, ensure_ascii=False, separators=(",", ":"))
    return f"id: {told.number}\nevent: {told.event['event']}\ndata: {data}\n\n"


def _preview_text(told: Preview) -> str:
    data = json.dumps({"job": told.job, "bytes": len(told.png)}, separators=(",", ":"))
    return f"event: preview\ndata: {data}\n\n"
