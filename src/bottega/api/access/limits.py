"""How much of everything: headers, bodies, nesting, requests a second. What is beyond is refused before it costs."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from bottega.api.access.refusal import Refusal, TooMuch
from bottega.formats.strictjson import check_depth

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 << 10
MAX_TARGET = 8 << 10
MAX_DEPTH = 64
MAX_JSON = 1 << 20
MAX_UPLOAD = 32 << 20
# The doors of other programs take pictures as base64 inside of JSON: two of the largest uploads fit.
MAX_FOREIGN_JSON = 96 << 20
MAX_MULTIPART = 72 << 20
MAX_PARTS = 48  # of a form: 16 pictures, and each of the fields that clients send
MAX_IN_MEMORY = 256 << 20  # of all bodies that are being received
MAX_OPEN = 200  # requests of one caller that are not answered to their end, such as streams
SLOWEST = 16 << 10  # bytes a second that a body must come with, once it has had its first seconds
PATIENCE = 20.0  # seconds without a byte, and before the slowest rate counts

JSON_TYPES = ("application/json",)
PICTURE_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp")  # jpg is what many call a jpeg
UPLOAD_HEADER = b"x-bottega-upload"


class Buckets:
    """Token buckets by key: each refills with `rate` tokens a second up to `burst`, a request takes one.

    Only the last `most` keys are remembered: who was forgotten had a full one, or made that many addresses up.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic, most: int = 4096
    ) -> None:
        self.rate, self.burst = rate, burst
        self._clock, self._most = clock, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, count: float = 1.0) -> float:
        """Take tokens; 0 if they were there, else how many seconds it takes until they are (and none is taken)."""
        now = self._clock()
        left, since = self._left.get(key, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        enough = left >= count
        self._left[key] = (left - count if enough else left, now)
        self._left.move_to_end(key)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return 0.0 if enough else (count - left) / self.rate


class Failures:
    """Who tried wrong keys: after `free` of them an address has to wait, twice as long each time, up to a minute.

    A right key is let in meanwhile, or anybody could lock out whoever shares the address; keys are too long to guess.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, free: int = 5, most: int = 4096) -> None:
        self._clock, self._free, self._most = clock, free, most
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, address: str) -> None:
        """Count a wrong key. Raises TooMuch where the address has to wait."""
        now = self._clock()
        count, until = self._failed.get(address, (0, 0.0))
        if count and now > until + 300.0:
            count = 0
        if now < until:
            raise TooMuch("too many wrong keys came from this address", "wait, then use the right one", until - now)
        count += 1
        wait = min(60.0, 2.0 ** (count - self._free)) if count >= self._free else 0.0
        self._failed[address] = (count, now + wait)
        self._failed.move_to_end(address)
        if len(self._failed) > self._most:
            self._failed.popitem(last=False)

    def clear(self, address: str) -> None:
        """Forget what an address did wrong: it has shown a right key."""
        self._failed.pop(address, None)


class Memory:
    """How many bytes of bodies lie in memory, all requests together."""

    def __init__(self, most: int = MAX_IN_MEMORY) -> None:
        self._most = most
        self._held = 0

    def hold(self, count: int) -> None:
        """Count bytes that arrived. Raises Refusal (503) where there are too many."""
        if self._held + count > self._most:
            raise Refusal(503, "the server is receiving too much at once", "try again", {"Retry-After": "2"})
        self._held += count

    def release(self, count: int) -> None:
        """The bytes are gone."""
        self._held -= count


def checked_json(body: bytes) -> None:
    """Raise Refusal (400) for what is no JSON, has NaN or infinity, halves of characters, or is nested too deep."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        check_depth(value, MAX_DEPTH - 1)
        if re.search(rb"\\u[dD]", body):  # Python takes half of a pair for a character, which nothing can write down
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "the body is no UTF-8 text") from None
    except UnicodeEncodeError:
        raise Refusal(400, "the body holds half of a surrogate pair") from None
    except RecursionError:
        raise Refusal(400, f"the body is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {error}") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python's own words are meant for programmers
        raise ValueError("a number in it has too many digits") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number in it is too large")
    return number


class Body:
    """What is received of a request, counted while it comes: too long, too slow or too many parts is refused.

    It stands between the server's `receive` and the application's. What it refused is kept in `refused`, because
    frameworks turn an exception that comes out of `receive` into another one.
    """

    def __init__(self, receive: Callable[[], Any], limit: int, memory: Memory, boundary: bytes = b"") -> None:
        self.refused: Refusal | None = None
        self.ended = False
        self._receive, self._limit, self._memory = receive, limit, memory
        self._boundary = boundary
        self._tail = b""
        self._parts = 0
        self._size = 0
        self._began = time.monotonic()

    async def receive(self) -> dict[str, Any]:
        """The next message of the server."""
        if self.ended:
            message: dict[str, Any] = await self._receive()
            return message
        try:
            async with asyncio.timeout(PATIENCE):
                message = await self._receive()
            if message["type"] == "http.request":
                self._count(message.get("body", b""))
                self.ended = not message.get("more_body", False)
        except TimeoutError:
            self.refused = Refusal(408, "the body of the request stopped coming", "send it again", _CLOSE)
            raise self.refused from None
        except Refusal as refused:
            self.refused = refused
            raise
        return message

    async def whole(self) -> bytes:
        """All of it; an empty one if the client goes away."""
        parts = []
        while not self.ended:
            message = await self.receive()
            if message["type"] != "http.request":
                return b""
            parts.append(message.get("body", b""))
        return b"".join(parts)

    def release(self) -> None:
        """What was received is no longer held."""
        self._memory.release(self._size)
        self._size = 0

    def _count(self, data: bytes) -> None:
        self._memory.hold(len(data))
        self._size += len(data)
        if self._size > self._limit:
            raise too_large(self._limit)
        spent = time.monotonic() - self._began
        if spent > PATIENCE and self._size < (spent - PATIENCE) * SLOWEST:
            raise Refusal(408, "the body of the request comes too slowly", "send it again", _CLOSE)
        if self._boundary:
            seen = self._tail + data
            self._parts += seen.count(self._boundary)
            kept = len(self._boundary) - 1
            self._tail = seen[-kept:] if kept else b""
            if self._parts > MAX_PARTS + 1:  # the end has one too
                raise Refusal(413, f"the form has more than {MAX_PARTS} parts", "send fewer", _CLOSE)


_CLOSE = {"Connection": "close"}


def too_large(limit: int) -> Refusal:
    """The refusal of a body beyond its limit, in bytes."""
    shown = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    return Refusal(413, f"the body is larger than {shown}", "send less", _CLOSE)
