"""Pictures as they become: rough ones on the way, then the finished ones, as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from bottega.api.errors import answer
from bottega.api.openai.asked import Making
from bottega.api.openai.door import Door
from bottega.api.streamed import Streamed
from bottega.errors import BottegaError
from bottega.formats import media
from bottega.gallery import Output
from bottega.jobs.foreman import Preview
from bottega.jobs.job import Job, Numbered
from bottega.recipe import recipe_from


def stream(door: Door, job: Job, asked: Making, kind: str, request: Request) -> Streamed:
    """The answer that tells of a job while it runs; `kind` is image_generation or image_edit."""
    return Streamed(
        _events(door, job, asked, kind, request),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Job-Id": job.id},
    )


async def _events(door: Door, job: Job, asked: Making, kind: str, request: Request) -> AsyncGenerator[str]:
    recipe = recipe_from(job.request["recipe"])
    assert recipe.size is not None
    common = {
        "created_at": int(time.time()),
        "size": f"{recipe.size.width}x{recipe.size.height}",
        "quality": asked.quality if asked.quality in ("low", "medium", "high") else "high",
        "background": "opaque",
        "output_format": recipe.output.format,
    }
    # It outlives this answer where the client goes away, so that the client may come back.
    finished = asyncio.ensure_future(door.waiting.finished(job.id, request))
    door.streams.add(finished)
    finished.add_done_callback(door.streams.discard)
    try:
        async with aclosing(_partial(door, job, asked.partial_images or 0, finished)) as partial:
            async for index, png in partial:
                shown = await asyncio.to_thread(_encoded, png, recipe.output.format, recipe.output.quality)
                yield _event(f"{kind}.partial_image", {**common, "b64_json": shown, "partial_image_index": index})
        for output in await door.outputs(await asyncio.shield(finished)):
            yield _event(f"{kind}.completed", {**common, "b64_json": _read(output), "usage": _USAGE})
        yield "data: [DONE]\n\n"
    except BottegaError as error:
        yield f"event: error\ndata: {bytes(answer(request, error).body).decode()}\n\n"


# No tokens are counted, and clients look for the fields.
_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


async def _partial(
    door: Door, job: Job, count: int, finished: asyncio.Future[Job]
) -> AsyncGenerator[tuple[int, bytes]]:
    """At most `count` rough pictures of the job's first, after equal shares of its steps."""
    if not count:
        return
    with closing(_Watched(job.id, door)) as watched:
        for index in range(count):
            reached = asyncio.ensure_future(watched.preview_after((index + 1) / (count + 1)))
            try:
                both: set[asyncio.Future[Any]] = {reached, finished}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not reached.done():
                    return
                yield index, reached.result()
            finally:
                reached.cancel()


@dataclass
class _Watched:
    """Listens to a job from the event loop; `close` ends it."""

    id: str
    door: Door

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._share = 0.0
        self.close = self.door.workshop.foreman.subscribe(self._hear)

    def _hear(self, told: Numbered | Preview) -> None:
        if told.job == self.id:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._queue.put_nowait, told)

    async def preview_after(self, share: float) -> bytes:
        """The first rough picture after this share of the steps."""
        while True:
            told = await self._queue.get()
            if isinstance(told, Preview):
                if self._share >= share:
                    return told.png
            elif told.event["event"] == "step" and told.event["phase"] == "sample":
                self._share = told.event["done"] / max(1, told.event["total"])


def _encoded(png: bytes, format: str, quality: int) -> str:
    """A rough picture in the format of the finished ones, as base64."""
    if format != "png":
        from PIL import Image

        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            png = media.encode(picture, format, quality=quality)
    return base64.b64encode(png).decode("ascii")


def _read(output: Output) -> str:
    return base64.b64encode(output.content()).decode("ascii")


def _event(name: str, told: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **told})}\n\n"
