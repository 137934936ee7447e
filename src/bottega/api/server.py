"""The HTTP server: who may connect, how long they may dawdle, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bottega.api.access.gate import GONE
from bottega.api.access.headers import secured
from bottega.errors import BottegaError

if TYPE_CHECKING:
    from bottega.api.access import Access
    from bottega.api.signals import Signals

TICK = 1.0  # seconds after which the time that answers tell is looked up again
MAX_CONNECTIONS = 1000
OWN_FILES = 128  # that the server has open for itself
FEWEST_FILES = 2 * OWN_FILES
MAX_FROM_ONE = 200  # connections from one address beyond this machine
HEAD_WITHIN = 15.0  # seconds from the first byte of a request to the end of its headers
READ_WITHIN = 60.0  # seconds that a client may leave what was sent to it unread
KEEP_ALIVE = 30  # seconds without a request
GRACE = 2  # seconds that requests have to end when the server does
MAX_AT_ONCE = 64  # requests of one connection that are not answered yet
MAX_BARREN = 64 << 10  # bytes of a head, of what stands between the pieces of a body or of nothing at all

# A request of a method that the parser does not know, or of one that it knows to take no path.
_REQUEST_LINE = re.compile(rb"[A-Za-z-]{1,32} [!-~]+ HTTP/1\.[01]\r?\n")
_WHOLE_ADDRESS = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)


class AddressError(BottegaError):
    """The address can't be listened on."""


class TooFewFiles(BottegaError):
    """The system lets this process open fewer files than a server needs."""


def allow_files() -> None:
    """Have the system let this process open a file for each connection and one that is sent on it.

    Raises TooFewFiles where not even a few connections would have them.
    """
    if sys.platform == "win32":  # which has no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most < FEWEST_FILES:
        what = f"this process may open {most} files at once, and a server needs {FEWEST_FILES}"
        raise TooFewFiles(what, "raise the limit of open files (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """How many connections there may be, with the files that this process may open."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, (soft - OWN_FILES) // 2)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on a host's addresses, all on one port; port 0 takes a free one.

    `localhost` and `127.0.0.1` mean this machine in both of its spellings. Raises AddressError.
    """
    if host in ("localhost", "127.0.0.1"):
        addresses = ["127.0.0.1", "::1"]
    else:
        try:
            found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise AddressError(f"{host} is no address of this machine ({error})", "use --host 127.0.0.1") from None
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    for _ in range(20):
        try:
            return _listen(addresses, port, optional="::1" if len(addresses) > 1 else "")
        except _TakenElsewhere:
            continue  # the free port that we were given is not free in the other family
    raise AddressError("no port is free in both IPv4 and IPv6", "name one with --port")


class _TakenElsewhere(Exception):
    """A port that the system chose is taken in the other family."""


def _listen(addresses: Sequence[str], port: int, optional: str) -> list[socket.socket]:
    listening: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
            chosen = listening[0].getsockname()[1] if listening else port
            one: socket.socket | None = None
            try:
                # Without the protocol's number asyncio lets small answers wait some 40 ms for an acknowledgement.
                one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
                if os.name != "nt":  # where it would let two servers share a port
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address, chosen))
                one.listen(2048)
            except OSError as error:
                if one is not None:
                    one.close()
                in_use = error.errno in _IN_USE
                if address == optional and listening and not in_use:
                    continue  # this machine has no IPv6
                if in_use and listening and port == 0:
                    raise _TakenElsewhere from None
                where = f"[{address}]" if ":" in address else address
                if in_use:
                    remedy = "stop the program that uses it, or choose another port with --port (0 takes any)"
                    raise AddressError(f"port {chosen} of {where} is in use", remedy) from None
                raise AddressError(
                    f"{where}:{chosen} can't be listened on ({error.strerror})", "choose another --host or --port"
                ) from None
            listening.append(one)
    except BaseException:
        for one in listening:
            one.close()
        raise
    return listening


_IN_USE = frozenset((98, 48, 10048))  # EADDRINUSE of Linux, macOS, Windows


class Crowd:
    """Who is connected to a server, those that are quiet in the order in which they became so.

    Nothing here takes longer the more there are: thousands may come within a second.
    """

    def __init__(self) -> None:
        self._here: dict[Connection, str] = {}  # and their addresses
        self._quiet: dict[Connection, None] = {}
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._here)

    def join(self, one: Connection, address: str) -> None:
        """Count one in, which is quiet."""
        self._here[one] = address
        self._quiet[one] = None
        self._addresses[address] += 1

    def leave(self, one: Connection) -> None:
        """Count one out, unless it is already."""
        address = self._here.pop(one, None)
        if address is None:
            return
        self.busy(one)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def busy(self, one: Connection) -> None:
        """Something of it is being answered, or nothing of it ever will be."""
        self._quiet.pop(one, None)

    def quiet(self, one: Connection) -> None:
        """From now on it is quiet."""
        self.busy(one)
        if one in self._here:
            self._quiet[one] = None

    def oldest(self) -> Connection | None:
        """The one that has been quiet for longest."""
        while (one := next(iter(self._quiet), None)) and not one.is_quiet:
            self.busy(one)  # it is being closed
        return one

    def from_address(self, address: str) -> int:
        """How many there are from an address."""
        return self._addresses[address]


class Connection(HttpToolsProtocol):
    """One client's connection, which is closed where it costs more than it is worth."""

    config: Config
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_head = False
    _plain = b""  # the head of a request with a body that asks for an upgrade, as it is without that
    _came = 0  # how many heads, pieces of bodies and ends there were
    _barren = 0  # bytes since the last of them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there are not too many. The oldest that is quiet makes room for a new one."""
        super().connection_made(transport)
        self._unanswered: list[Any] = []
        address, crowd = self.client[0] if self.client else "", self.config.crowd
        crowd.join(self, address)
        near = not address or ip_address(address.partition("%")[0]).is_loopback
        if not near and crowd.from_address(address) > MAX_FROM_ONE:
            self._abort()
            return
        if len(crowd) > most_connections() and (oldest := crowd.oldest()):
            oldest._abort()
            if oldest is self:
                return
        self._late = self.loop.call_later(HEAD_WITHIN, self._cut)

    def _abort(self) -> None:
        """Close it now; it is told to be lost only later, which others need not wait for."""
        self.config.crowd.leave(self)
        self.transport.abort()

    def _cut(self) -> None:
        """Close a connection whose client took too long, unless it is we who don't read."""
        if self.flow.read_paused:
            self._late = self.loop.call_later(HEAD_WITHIN, self._cut)
        else:
            self.transport.abort()

    @property
    def is_quiet(self) -> bool:
        """Whether no whole request of it is being answered: it is the client's turn to send."""
        waits = all(cycle.response_complete or cycle.more_body for cycle in self._unanswered)
        return waits and not self.transport.is_closing()

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        if self.is_quiet:
            self.config.crowd.quiet(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and tell whoever is still at an answer: of several requests it is the first one's turn."""
        for timer in (self._late, self._unread):
            if timer:
                timer.cancel()
        self.config.crowd.leave(self)
        super().connection_lost(exc)
        self._drop()

    def _drop(self) -> None:
        """Answer none of the requests that are not answered yet."""
        self.pipeline.clear()
        for cycle in self._unanswered:
            cycle.disconnected = not cycle.response_complete
            cycle.scope[GONE] = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Read what came. A head must be whole in time, and nothing may go on and on without anything coming of it."""
        self._unset_keepalive_if_required()
        came, rest = self._came, data
        while rest:
            try:
                self.parser.feed_data(rest)
                rest = b""
            except httptools.HttpParserUpgrade as upgrade:  # which is answered like any request
                rest = self._plain + rest[upgrade.args[0] :]
                if self._plain:
                    self._plain, self.parser = b"", httptools.HttpRequestParser(self)
            except (httptools.HttpParserInvalidMethodError, httptools.HttpParserInvalidURLError):
                self._refuse(405 if _REQUEST_LINE.match(rest) else 400)
                return
            except httptools.HttpParserError:
                self._refuse(405 if self.parser.get_method() == b"CONNECT" else 400)
                return
        self._barren = 0 if self._came != came else self._barren + len(data)
        if self._barren > MAX_BARREN:
            self._refuse(431)
            return
        is_idle = not self.cycle or self.cycle.response_complete
        # A head, or what nobody waits for: the rest of a body that was answered before it was there.
        begun = self._in_head or (is_idle and (self._barren > 0 or bool(self.cycle and self.cycle.more_body)))
        if self._late and not begun:
            self._late.cancel()
            self._late = None
        if self.transport.is_closing():
            return
        if begun and not self._late:
            self._late = self.loop.call_later(HEAD_WITHIN, self._cut)
        elif is_idle and not begun and not self.timeout_keep_alive_task:
            self.timeout_keep_alive_task = self.loop.call_later(KEEP_ALIVE, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; those behind a body are nobody's affair."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is whole. One that asks for anything but an address of a server asks for what only a proxy does."""
        self._in_head = False
        self._came += 1
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if whole := _WHOLE_ADDRESS.fullmatch(self.url):
            # Whatever Host says, this is which server is meant: https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2
            self.url = whole[2] if whole[2].startswith(b"/") else b"/" + whole[2]
            self.headers[:] = [(name, whole[1] if name == b"host" else value) for name, value in self.headers]
        method, version = self.parser.get_method(), self.parser.get_http_version()
        is_too_many = len(self._unanswered) >= MAX_AT_ONCE
        if is_too_many or method == b"CONNECT" or not self.url.startswith(b"/") or version not in ("1.0", "1.1"):
            raise ValueError("no request that is taken here")
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if self.parser.should_upgrade() and has_body:
            # The parser takes what follows for another protocol, which would make a request of the body.
            kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self._plain = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version.encode(), b"".join(kept))
            return
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._came += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._came += 1
        if not self._plain:
            super().on_message_complete()
            self.cycle.more_body = False  # also of one that was answered before
            if not self.is_quiet:
                self.config.crowd.busy(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is sent to: it has some time to catch up."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_WITHIN, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._unread:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _refuse(self, status: int) -> None:
        """Answer what can't be read as HTTP, with the headers that every answer has, and hang up."""
        if not any(cycle.response_started and not cycle.response_complete for cycle in self._unanswered):
            self._drop()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            lines = [b"%b: %b" % header for header in secured(headers, page=False, request_id="-")]
            text = b"this is no HTTP request that can be read\n"
            head = [STATUS_LINE[status].rstrip(), b"content-length: %d" % len(text), *lines]
            self.transport.write(b"\r\n".join([*head, b"", text]))
        self.transport.close()


class Server(uvicorn.Server):
    """Runs until it is told to end, then ends what goes on."""

    def __init__(self, config: uvicorn.Config, access: Access, ready: Callable[[], None]):
        super().__init__(config)
        self._access, self._ready = access, ready
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: Sequence[socket.socket] = ()
        self.is_deaf = False  # one of its sockets was closed by somebody else

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell that it does."""
        await super().startup(sockets)
        self._sockets = tuple(sockets or ())
        self._ready()

    def end(self) -> None:
        """End soon; may be called from any thread, and by a signal."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._over.set)

    async def main_loop(self) -> None:
        """Wait for the end, with a look at the clock now and then: an idle server is to cost nothing."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0) and not self.is_deaf:  # 0: the tick that looks at the clock
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), TICK)
            # uvloop closes a socket whose next connection the system can't give, and says nothing.
            self.is_deaf = any(one.fileno() < 0 for one in self._sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, end streams, and give the rest a moment."""
        self._access.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield


class Config(uvicorn.Config):
    """How the server is run: without what would tell or trust more than it should."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            loop="auto",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        self.crowd = Crowd()


def serve(app: Any, access: Access, sockets: list[socket.socket], ready: Callable[[], None], signals: Signals) -> None:
    """Serve on these sockets until a signal comes; `ready` is called when it listens.

    Raises AddressError where one of them takes no connections any more: better none who serves than one whom nobody
    reaches, as then it can be started anew.
    """
    server = Server(Config(app), access, ready)
    signals.end = server.end
    if not signals.came:
        server.run(sockets)
    if server.is_deaf:
        raise AddressError("the system has closed a socket that the server listened on", "start the server again")
