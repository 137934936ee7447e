"""Answers that are sent while they are made, and are made no longer than somebody is sent them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Send


class Streamed(StreamingResponse):
    """What an async generator yields, sent piece by piece; the generator is closed when the answer ends.

    Starlette leaves the generator of a client that has gone away to the garbage collector: what its `finally` gives
    back would stay taken until that comes by.
    """

    body_iterator: AsyncGenerator[str] | AsyncGenerator[bytes]

    async def stream_response(self, send: Send) -> None:
        """Send all of it, and close the generator, whatever happens."""
        async with aclosing(self.body_iterator):
            await super().stream_response(send)
