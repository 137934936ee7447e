"""What every request passes before anything else sees it: names, origins, limits, keys; and every answer after.

Plain ASGI: it costs some tens of microseconds, and reads a body only after its sender is known.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote_to_bytes

from bottega.api import doors
from bottega.api.access import limits
from bottega.api.access.caller import SIGN_IN, Caller
from bottega.api.access.headers import secured
from bottega.api.access.limits import Body
from bottega.api.access.origin import check_origin
from bottega.api.access.refusal import NotAllowed, NotSignedIn, Refusal, TooMuch
from bottega.api.errors import encoded, reason
from bottega.api.turns import Turns

if TYPE_CHECKING:
    from bottega.api.access import Access
    from bottega.api.access.accounts import User

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOG = logging.getLogger("bottega.requests")

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
READING = frozenset(("GET", "HEAD"))
_ONCE = frozenset(
    (b"host", b"origin", b"authorization", b"content-type", b"content-length", b"content-encoding", b"sec-fetch-site")
)
_FORBIDDEN_IN_PATH = re.compile(rb"[\x00-\x1f\x7f\\]|(?:^|/)\.\.?(?:/|$)")
_BOUNDARY = re.compile(r'boundary="?([A-Za-z0-9\'()+_,./:=? -]{1,70})"?')


LOOKED_UP = 2.0  # seconds after which it is looked up again whether somebody who waits would still be let in
GONE = "bottega.gone"  # in the scope of a request whose client has closed the connection


class ClientGone(ConnectionError):
    """Nobody is there any more to be answered."""


class Request:
    """A request as far as its first lines tell."""

    __slots__ = (
        "address", "began", "caller", "headers", "id", "method", "own", "path", "scope", "session", "told", "user"
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any]) -> None:
        self.scope = scope
        self.began = time.perf_counter()
        self.id = secrets.token_hex(6)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        client = scope.get("client")
        self.address: str = client[0] if client else ""
        self.caller: Caller | None = None
        self.session: str | None = None
        self.user: Callable[[], User | None] | None = None  # who it is by now, by what was shown
        self.own = ""
        self.headers: dict[bytes, bytes] = {}
        self.told: dict[str, str] = {}  # for the log

    def read_headers(self) -> None:
        """Take the headers; raises Refusal for too many, too long ones, and one that may be there once only."""
        told = self.scope["headers"]
        if len(told) > limits.MAX_HEADERS or sum(len(n) + len(v) for n, v in told) > limits.MAX_HEADER_BYTES:
            raise Refusal(431, "the request has too many or too long headers", "clear this site's cookies", _CLOSE)
        for name, value in told:
            if name in self.headers and name in _ONCE:
                raise Refusal(400, f"the header {name.decode('latin-1')} came twice", "", _CLOSE)
            self.headers[name] = (
                self.headers[name] + b"; " + value if name == b"cookie" and name in self.headers else value
            )

    def text(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def has_body(self) -> bool:
        """Whether a body comes with it."""
        length = self.headers.get(b"content-length", b"0").strip()
        return b"transfer-encoding" in self.headers or length.strip(b"0") != b""

    @property
    def reading(self) -> bool:
        return self.method in READING

    @property
    def is_ahead(self) -> bool:
        """Whether a browser asks only in case somebody might want to go there."""
        return any(b"prefetch" in self.headers.get(name, b"").lower() for name in (b"sec-purpose", b"purpose"))


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: App, access: Access) -> None:
        self.app = app
        self.access = access
        self._turns = Turns()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # none of ours; the server hands them over as plain requests
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        reply = Reply(request, send, self.access)
        body: Body | None = None
        task = asyncio.current_task()
        self.access.running.add(reply)
        reply.task = task
        try:
            try:
                self._admit(request)
                if await self._enter(request, reply):
                    return
                if request.has_body:
                    await self._turns.come()
                body = self._body(request, receive)
                forward: Receive = receive
                if body:
                    forward = await self._opened(request, body)
                reply.body = body
                scope["scheme"] = request.own.partition(":")[0]  # as the browser sees it
                scope["caller"], scope["request_id"], scope["told"] = request.caller, request.id, request.told
                inner = {**scope, "method": "GET"} if request.method == "HEAD" else scope
                await self.app(inner, reply.receiving(forward), reply.send)
                if reply.streams:
                    await reply.send({"type": "http.response.body", "body": b""})  # to who was let in until now
            except Refusal as refused:
                await self._refuse(request, reply, refused, receive, body)
            except asyncio.CancelledError:
                if not self.access.closing or (reply.started and not reply.streams):
                    raise
                if reply.started:
                    with suppress(ClientGone):
                        await reply.send({"type": "http.response.body", "body": b""})
                    return
                stopping = Refusal(503, "the server is stopping", "what is queued goes on when it is started again")
                await reply.error(stopping)
            except ClientGone:
                pass
            except Exception as error:  # whatever a route raises, its client gets an answer, and the log the rest
                if not reply.finished:
                    await reply.error(error)
        finally:
            self.access.running.discard(reply)
            if body:
                body.release()
            self.access.counts.add(request.path, reply.status, time.perf_counter() - request.began)
            reply.log()

    # --- before ------------------------------------------------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        """Everything that can be told without the body; raises Refusal."""
        access = self.access
        request.read_headers()
        if request.method not in METHODS:
            raise Refusal(405, "this server does not know that method", "", {"Allow": ", ".join(sorted(METHODS))})
        _check_target(request.scope)
        request.own = access.names.origin(request.text(b"host"), request.scope.get("server"))
        upgrade = request.text(b"upgrade") is not None and b"websocket" in request.headers[b"upgrade"].lower()
        cookies = self._cookies(request)
        check_origin(
            reading=request.reading and not upgrade,
            visiting=not doors.is_api(request.path),
            own=request.own,
            origin=request.text(b"origin"),
            fetch_site=request.text(b"sec-fetch-site"),
            fetch_mode=request.text(b"sec-fetch-mode"),
            with_cookie=bool(cookies),
        )
        if upgrade:
            raise Refusal(404, "there is no WebSocket here", "events come from /api/events", _CLOSE)
        request.caller = self._caller(request, cookies)
        name = f"{request.caller.way} {request.caller.name}" if request.caller else f"address {request.address}"
        if wait := access.rate.take(name):
            raise TooMuch("more requests than one may send", "wait a little, and send fewer at once", wait)
        if (
            request.caller
            and not doors.is_public(request.path)
            and access.requests_of(request.caller) > limits.MAX_OPEN
        ):
            what = f"{request.caller.name} has {limits.MAX_OPEN} requests open already, streams of events among them"
            raise TooMuch(what, "close some, or wait for their ends", 1)
        if request.caller is None and not doors.is_public(request.path) and doors.is_api(request.path):
            raise NotSignedIn("it is not known who asks", SIGN_IN)
        if access.closing and not request.reading:
            raise Refusal(503, "the server is stopping", "try again when it is back", _CLOSE)

    def _cookies(self, request: Request) -> list[str]:
        """The values of our cookie: another program of this machine may have added one of its own."""
        parts = (part.strip().partition("=") for part in (request.text(b"cookie") or "").split(";"))
        return [value for name, _, value in parts if name == self.access.cookie][:4]

    def _caller(self, request: Request, cookies: list[str]) -> Caller | None:
        """Who asks: by key, by cookie, or a program of this machine where the door stands open."""
        access = self.access
        if key := _key(request.text(b"authorization")):
            if access.is_machine(key):
                access.failures.clear(request.address)
                return access.machine
            if user := access.accounts.by_key(key):
                access.failures.clear(request.address)
                request.user = partial(access.accounts.by_key, key)
                return Caller(user.name, user.scopes, "key", user.quota)
            if not access.is_open(request.path):
                access.failures.add(request.address)
                raise NotSignedIn("this key is not known", "check it, or ask an admin for a new one")
        for cookie in cookies:
            if user := access.accounts.by_session(cookie):
                request.session = cookie
                request.user = partial(access.accounts.by_session, cookie)
                return Caller(user.name, user.scopes, "cookie", user.quota)
        return access.open if access.is_open(request.path) else None

    async def _enter(self, request: Request, reply: Reply) -> bool:
        """Answer a link that signs in, and whoever asks for the page without being signed in."""
        opens = request.path == "/" and request.method == "GET" and not request.is_ahead
        if opens and b"token=" in request.scope["query_string"]:
            token = parse_qs(request.scope["query_string"].decode("latin-1")).get("token", [""])[0]
            session = self.access.accounts.redeem(token)
            if session or request.caller:
                headers = [(b"location", b"/"), (b"content-length", b"0"), (b"cache-control", b"no-store")]
                if session:
                    headers.append((b"set-cookie", self.access.set_cookie(session, request.own).encode()))
                await reply.whole(303, headers, b"")
                return True
            await reply.page(401, "used")
            return True
        if request.caller is None and not doors.is_public(request.path):
            await reply.page(401, "unknown")
            return True
        if request.session and self.access.accounts.renewed(request.session):
            reply.cookie = self.access.set_cookie(request.session, request.own)
        return False

    # --- the body ----------------------------------------------------------------------------------------------------

    def _body(self, request: Request, receive: Receive) -> Body | None:
        """What is to be received, with its limit; raises Refusal for a type or a length that is not taken."""
        if not request.has_body:
            return None
        if b"transfer-encoding" in request.headers and b"content-length" in request.headers:
            raise Refusal(400, "the request has two lengths", "", _CLOSE)  # of which two programs might take each one
        if request.headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise Refusal(415, "a packed body is not unpacked", "send it as it is", _CLOSE)
        kind, _, parameters = (request.text(b"content-type") or "").partition(";")
        limit, boundary = _limit(request, kind.strip().lower(), parameters)
        length = request.headers.get(b"content-length", b"").strip()
        if length and (not length.isdigit() or len(length) > 15 or int(length) > limit):
            raise limits.too_large(limit)
        return Body(receive, limit, self.access.memory, boundary)

    async def _opened(self, request: Request, body: Body) -> Receive:
        """What the application receives: JSON is read here, checked and handed on as a whole."""
        if not (request.text(b"content-type") or "").lower().startswith(limits.JSON_TYPES):
            return body.receive
        raw = (await body.whole()).removeprefix(codecs.BOM_UTF8)  # with which Windows begins a file of text
        if not body.ended:
            return body.receive  # the client has gone: the application will see it too
        if raw.strip():
            if len(raw) > 256 << 10:
                await asyncio.to_thread(limits.checked_json, raw)
            else:
                limits.checked_json(raw)
        told = False

        async def receive() -> Message:
            nonlocal told
            if told:
                return await body.receive()
            told = True
            return {"type": "http.request", "body": raw, "more_body": False}

        return receive

    async def _refuse(
        self, request: Request, reply: Reply, refused: Refusal, receive: Receive, body: Body | None
    ) -> None:
        if reply.started:
            return  # too late to say anything: the connection is closed by whoever called
        if request.has_body and not (body and body.ended):
            refused.headers.setdefault("Connection", "close")
            await _drain(receive)
        if refused.status == 401 and not doors.is_api(request.path):
            await reply.page(401, "unknown")
        else:
            await reply.error(refused)


class Reply:
    """The answer to one request, on its way out."""

    def __init__(self, request: Request, send: Send, access: Access) -> None:
        self.request = request
        self.status = 0
        self.started = self.finished = self.streams = False
        self.cookie = ""
        self.body: Body | None = None
        self.task: asyncio.Task[Any] | None = None
        self._send = send
        self._access = access
        self._changes: tuple[int, int] | None = None  # in the accounts, up to which it is known who asked
        self._lost: Refusal | None = None  # why the rest of the answer is not for who asked any more

    async def send(self, message: Message) -> None:
        """Pass a message of the application on, with the headers that every answer has."""
        if self.finished:
            return
        if GONE in self.request.scope:
            # Or what never waits for anything would be made, for nobody, until the end of time.
            raise ClientGone
        if message["type"] == "http.response.start":
            if self.body and self.body.refused:  # a framework made something else of it
                await self.error(self.body.refused)
                return
            if time.perf_counter() - self.request.began > LOOKED_UP and (lost := self._lost_by_now()):
                await self.error(lost)
                return
            await self._start(message["status"], list(message.get("headers", ())))
            if self.request.method == "HEAD":
                await self._send({"type": "http.response.body", "body": b""})
                self.finished = True
                raise OSError("the client asked for the headers only")
            return
        if self.streams and self._lost_by_now():
            await self._send({"type": "http.response.body", "body": b""})
            self.finished = True
            raise ClientGone
        await self._send(message)
        self.finished = not message.get("more_body", False)
        if not self.finished:
            await asyncio.sleep(0)  # a source that is always ready and a fast client would keep all others waiting

    def receiving(self, receive: Receive) -> Receive:
        """What the application receives: of who would not be answered again, that they are gone."""
        if self.request.user is None:
            return receive

        whole = False

        async def receiving() -> Message:
            nonlocal whole
            if not whole:  # the request itself, which the gate has limits for
                message = await receive()
                whole = message["type"] != "http.request" or not message.get("more_body")
                return message
            coming = asyncio.ensure_future(receive())
            try:
                while not (await asyncio.wait({coming}, timeout=LOOKED_UP))[0]:
                    if self._lost_by_now():
                        return {"type": "http.disconnect"}
                return coming.result()
            finally:
                coming.cancel()

        return receiving

    def _lost_by_now(self) -> Refusal | None:
        """Why who asked would not be answered again, if so: an answer may take longer than a key or a scope lasts."""
        if self.request.user is None or self.request.caller is None:
            return None
        before, self._changes = self._changes, self._access.accounts.changes
        if before != self._changes:
            user, caller = self.request.user(), self.request.caller
            if user is None:
                self._lost = NotSignedIn("it is not known any more who asks", SIGN_IN)
            elif "admin" not in user.scopes and not caller.scopes <= user.scopes:
                # What was begun with more rights may tell more than the ones that are left allow: everybody's events.
                self._lost = NotAllowed(f"{caller.name} may do less by now than when this was asked", "ask again")
            else:
                self._lost = None
        return self._lost

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        """Send a complete answer."""
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": b"" if self.request.method == "HEAD" else content})
        self.finished = True

    async def error(self, error: Exception) -> None:
        """Say what went wrong, if nothing was said yet."""
        self.request.told["why"] = reason(error)
        if self.started:
            # What was begun can't be taken back; not to end it is how HTTP tells that something is missing.
            encoded(self.request.path, error, self.request.id)
            raise ConnectionAbortedError("an answer broke off")
        await self.whole(*encoded(self.request.path, error, self.request.id))

    async def page(self, status: int, why: str) -> None:
        """Send the page that tells how to get in."""
        content = self._access.page(why)
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await self.whole(status, headers, content)

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        self.status = status
        if self.cookie:
            headers.append((b"set-cookie", self.cookie.encode()))
        self.streams = any(n.lower() == b"content-type" and v.startswith(b"text/event-stream") for n, v in headers)
        page = not doors.is_api(self.request.path)
        headers = secured(headers, page=page, request_id=self.request.id)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def log(self) -> None:
        """Write down what changed something, and what failed."""
        request = self.request
        if self.status < 400 and request.reading and not request.told:
            return
        LOG.info(
            "%s %s %d",
            request.method,
            request.path,
            self.status,
            extra={
                "told": {
                    "request": request.id,
                    "method": request.method,
                    "path": request.path[:200],
                    "status": self.status,
                    "ms": round((time.perf_counter() - request.began) * 1000, 2),
                    "caller": request.caller.name if request.caller else None,
                    "from": request.address,
                    **{name: value[:300] for name, value in request.told.items()},
                }
            },
        )


_CLOSE = {"Connection": "close"}


def _check_target(scope: MutableMapping[str, Any]) -> None:
    """Refuse what can be read in two ways: dots, backslashes, NUL, control characters, also when they are escaped."""
    raw, query = scope.get("raw_path", b""), scope["query_string"]
    if len(raw) + len(query) > limits.MAX_TARGET:
        raise Refusal(414, "the address is too long", "", _CLOSE)
    once = unquote_to_bytes(raw)
    if not raw.startswith(b"/") or _FORBIDDEN_IN_PATH.search(once) or _FORBIDDEN_IN_PATH.search(unquote_to_bytes(once)):
        raise Refusal(400, "there is no such address", "", _CLOSE)
    try:
        once.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(400, "the address is no UTF-8 text", "", _CLOSE) from None
    if b"%00" in query or b"\0" in query:
        raise Refusal(400, "there is a NUL in the address", "leave it out", _CLOSE)


def _limit(request: Request, kind: str, parameters: str) -> tuple[int, bytes]:
    """How long the body may be, and what separates its parts; raises Refusal (415) for a type that is not taken."""
    foreign = doors.is_foreign(request.path)
    if kind in limits.JSON_TYPES:
        return (limits.MAX_FOREIGN_JSON if foreign else limits.MAX_JSON), b""
    # A page of another site can't send any of these headers without asking first, which it is not granted.
    deliberate = limits.UPLOAD_HEADER in request.headers or b"authorization" in request.headers
    is_form = kind == "multipart/form-data" and doors.takes_forms(request.path)
    if kind in limits.PICTURE_TYPES and limits.UPLOAD_HEADER in request.headers:
        return limits.MAX_UPLOAD, b""
    if is_form and deliberate:
        found = _BOUNDARY.search(parameters)
        if not found:
            raise Refusal(400, "the form has no boundary", "", _CLOSE)
        return limits.MAX_MULTIPART, b"--" + found[1].encode()
    if is_form:
        what = "a form is not taken without the header Authorization, as a page of another site could send it"
        raise Refusal(415, what, "send Authorization: Bearer KEY, with whatever key where none is needed", _CLOSE)
    remedy = "send JSON with Content-Type: application/json, or a picture with the header X-Bottega-Upload: 1"
    if kind.startswith("image/") and kind not in limits.PICTURE_TYPES:
        remedy = f"send {', '.join(limits.PICTURE_TYPES)}"
    raise Refusal(415, f"a body of the type {ascii(kind)[1:-1][:60] or 'unknown'} is not taken here", remedy, _CLOSE)


def _key(authorization: str | None) -> str | None:
    """The key in an Authorization header: that of Bearer, or the password of Basic."""
    scheme, _, value = (authorization or "").strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return password if colon and password else None
    return None


async def _drain(receive: Receive) -> None:
    """Take some of a body that nobody wants, so that its sender gets to see the answer."""
    left = 1 << 20
    try:
        async with asyncio.timeout(1.0):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b"")) or 1
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
