"""An HTTPS client that asks nobody it should not: each hop is checked, keys go to their own site, nothing is unpacked.

Of two programs that read an address differently one can be led astray, so each address is taken apart once, and what
was checked is what is connected to: the name is looked up, its addresses are checked, and the connection goes to one
of those, with the name for the certificate. A redirect is a new request to which all of this applies again.

Through a proxy (only if the settings name one) it is the proxy that looks the name up: then only encryption,
certificates, and hosts that are written out as numbers, or as this machine's own name, can be checked here.
"""

from __future__ import annotations

import email.utils
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, LineTooLong, RemoteDisconnected
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urljoin
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import urllib3.connection
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError
from urllib3.util import Url, make_headers, parse_url

from bottega.formats import strictjson
from bottega.library.sources.addresses import Resolve, checked_addresses, look_up, spelled_out
from bottega.library.sources.errors import HttpError, NetworkError, RefusedAddress, Unreachable
from bottega.library.sources.tokens import Site
from bottega.settings import Settings
from bottega.version import __version__

T = TypeVar("T")

USER_AGENT = f"bottega/{__version__}"
MAX_REDIRECTS = 5
MAX_JSON = 32 << 20
# Seconds from the look-up to the end of the headers, of each hop; and for all of a small body. Only the system's own
# look-up, and the attempt to connect that is under way by then, may take longer.
HEADERS_WITHIN = 60.0
CONNECT_WITHIN = 15.0  # seconds for each address
LONGEST_WAIT = 120.0  # seconds; a site that wants us to wait longer is left to the user
ATTEMPTS = 5
TRY_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
# What is on the way when we are killed is sent again: no more than so much may be. At 50 ms it allows 60 MB/s.
_WINDOW = 3 << 20
_SOCKET = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    *([(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _WINDOW)] if hasattr(socket, "TCP_WINDOW_CLAMP") else []),
]
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PORTS = {"https": 443, "http": 80}

# It logs addresses with their queries, which can hold signatures, where a server's headers are odd.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Hop:
    """One answer on the way: from which address, and its headers."""

    url: str
    headers: HTTPHeaderDict


class Response:
    """An answer whose body is still to be read. `hops` are the answers that led here, this one the last."""

    def __init__(self, hops: tuple[Hop, ...], raw: HTTPResponse, deadline: _Deadline) -> None:
        self.hops = hops
        self.status = raw.status
        self.headers = hops[-1].headers
        self._raw = raw
        self._deadline = deadline

    @property
    def url(self) -> str:
        """Where the body comes from, without what is secret in it."""
        return shown_url(self.hops[-1].url)

    def read(self, most: int) -> bytes:
        """The next bytes as they are on the wire, at most so many; none at the end. Raises Unreachable."""
        try:
            data = self._raw.read1(most, decode_content=False) or b""
            if data or not self._deadline.passed:
                return data
            raise TimeoutError  # the connection was ended, not the body
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            raise _lost(self.url, error) from None


class Client:
    """Fetches from public addresses, over HTTPS; safe to use from several threads.

    `pause` waits between attempts, `resolve` looks names up: tests give their own.
    """

    def __init__(
        self,
        *,
        stall: float = 30.0,
        proxy: str = "",
        allow_loopback: bool = False,
        pause: Callable[[float], None] = time.sleep,
        resolve: Resolve = look_up,
    ) -> None:
        self.stall = stall
        self.pause = pause
        self._proxy = proxy
        self._allow_loopback = allow_loopback
        self._resolve = resolve
        self._tls = _tls_context()

    @contextmanager
    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        site: Site | None = None,
        body_within: float | None = None,
    ) -> Iterator[Response]:
        """The answer to a GET, whatever its status, after at most five redirects.

        The site's key is sent to the site's own address only, and no further once a redirect has led elsewhere.
        `body_within` is how many seconds the body may take in all. Raises RefusedAddress or Unreachable.
        """
        target = allowed(url, self._allow_loopback)
        sent = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **(headers or {})}
        if site and site.token and site.token.origin == origin_of(target):
            sent["Authorization"] = site.token.header()
        hops: tuple[Hop, ...] = ()
        for _ in range(MAX_REDIRECTS + 1):
            with _Deadline(HEADERS_WITHIN) as deadline:
                connection = self._connection(target, deadline)
                raw = self._answer(connection, target, sent, deadline)
                try:
                    hops = (*hops, Hop(target.url, raw.headers))
                    location = raw.headers.get("Location")
                    if raw.status not in _REDIRECTS or location is None:
                        _refuse_packed(raw, target)
                        _refuse_length(raw, target)
                        deadline.restart(body_within)
                        yield Response(hops, raw, deadline)
                        return
                finally:
                    raw.close()
                    connection.close()
            before, target = target, allowed(_joined(target.url, location), self._allow_loopback)
            if origin_of(target) != origin_of(before):
                sent.pop("Authorization", None)
            if (target.path or "").rstrip("/").endswith("/login"):  # as Civitai does
                raise HttpError(f"{before.host} wants you to log in", site.how_to_log_in() if site else "", 401)
        raise NetworkError(f"{shown_url(url)}: it redirects in circles", "check the address in a browser")

    def small(self, url: str, limit: int, site: Site | None = None) -> bytes:
        """A small body, tried again where that may help. Raises HttpError for a status that is not 200."""
        return self.with_retries(lambda: self._whole(url, limit, site))

    def json(self, url: str, site: Site) -> dict[str, Any]:
        """The JSON object at an address."""
        raw = self.small(url, MAX_JSON, site)
        value = strictjson.object_or_none(raw.decode("utf-8", "replace"))
        if value is None:
            raise NetworkError(
                f"{shown_url(url)}: the answer is no JSON object", "the site may be down, or may have changed"
            )
        return value

    def with_retries(self, attempt: Callable[[], T]) -> T:
        """What the attempt gives; it is made again, later and later, after errors that may pass."""
        for tried in range(ATTEMPTS):
            try:
                return attempt()
            except (Unreachable, HttpError) as error:
                if tried == ATTEMPTS - 1:
                    raise
                self.pause(delay_before_retry(error, tried))
        raise AssertionError("every way out of the loop is above")

    def _whole(self, url: str, limit: int, site: Site | None) -> bytes:
        with self.get(url, {"Accept": "application/json, */*"}, site, body_within=HEADERS_WITHIN) as response:
            if response.status != 200:
                raise http_error(response, site)
            parts, size = [], 0
            while part := response.read(1 << 16):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise NetworkError(f"{response.url}: the answer is larger than {limit:,} bytes")
            told = response.headers.get("Content-Length", "")
            if told.isdecimal() and int(told) != size:
                raise Unreachable(f"{response.url}: the answer broke off after {size:,} of {told} bytes", "try again")
            return b"".join(parts)

    def _connection(self, target: Url, deadline: _Deadline) -> urllib3.connection.HTTPConnection:
        """An open connection to one of the addresses of the target, all of which were checked."""
        host, port = _host(target), _port(target)
        via = self._proxy_for(host) if target.scheme == "https" else None
        if via is not None:
            tunnel = urllib3.connection.HTTPSConnection(
                _host(via), via.port or 80, timeout=CONNECT_WITHIN, socket_options=_SOCKET, ssl_context=self._tls
            )
            tunnel.set_tunnel(host, port, make_headers(proxy_basic_auth=via.auth) if via.auth else None)
            return self._connected(tunnel, target, deadline)
        addresses = checked_addresses(host, port, self._resolve, self._allow_loopback)
        if target.scheme == "http" and not all(ip_address(address).is_loopback for address in addresses):
            raise RefusedAddress(f"{shown_url(target.url)}: only https:// addresses are fetched")
        failure = Unreachable(f"{host} can't be reached")
        for address in addresses:
            if target.scheme == "http":
                connection = urllib3.connection.HTTPConnection(
                    address, port, timeout=CONNECT_WITHIN, socket_options=_SOCKET
                )
            else:
                connection = urllib3.connection.HTTPSConnection(
                    address,
                    port,
                    timeout=CONNECT_WITHIN,
                    socket_options=_SOCKET,
                    server_hostname=host,
                    ssl_context=self._tls,
                )
            try:
                return self._connected(connection, target, deadline)
            except Unreachable as error:
                failure = error
            if deadline.passed:
                break
        raise failure

    def _connected(
        self, connection: urllib3.connection.HTTPConnection, target: Url, deadline: _Deadline
    ) -> urllib3.connection.HTTPConnection:
        deadline.connection = connection
        try:
            connection.connect()
            if deadline.passed:
                raise TimeoutError
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            connection.close()
            raise _lost(shown_url(target.url), TimeoutError() if deadline.passed else error) from None
        connection.timeout = self.stall
        return connection

    def _answer(
        self,
        connection: urllib3.connection.HTTPConnection,
        target: Url,
        headers: Mapping[str, str],
        deadline: _Deadline,
    ) -> HTTPResponse:
        try:
            connection.request(
                "GET",
                target.request_uri,
                headers={"Host": target.netloc or "", **headers},
                preload_content=False,
                decode_content=False,
                enforce_content_length=False,
            )
            raw = connection.getresponse()
            if deadline.passed:  # the end of the connection was taken for the end of the headers
                raise TimeoutError
            return raw
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            connection.close()
            if isinstance(error, (HTTPException, InvalidHeader)) and not (deadline.passed or _is_cut(error)):
                raise _malformed(shown_url(target.url), error) from None
            raise _lost(shown_url(target.url), TimeoutError() if deadline.passed else error) from None

    def _proxy_for(self, host: str) -> Url | None:
        told = self._proxy
        if told == "environment":
            proxies = getproxies_environment()
            told = "" if proxy_bypass_environment(host, proxies) else proxies.get("https", "")
        if not told:
            return None
        try:
            via = parse_url(told if "//" in told else f"http://{told}")
        except (LocationParseError, ValueError):
            via = Url()
        if via.scheme != "http" or not via.host:
            whose, name = ("environment", "https_proxy") if self._proxy == "environment" else ("settings", "proxy")
            raise RefusedAddress(f"the proxy of the {whose} is no HTTP proxy", f"set {name} to http://HOST:PORT")
        return via


class _Deadline:
    """Ends a connection when its time is up, even while another thread waits for a byte from it.

    `connection` is the one at hand: it is told before it is opened.
    """

    def __init__(self, seconds: float) -> None:
        self.connection: urllib3.connection.HTTPConnection | None = None
        self.passed = False
        self._timer = self._started(seconds)

    def __enter__(self) -> _Deadline:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def restart(self, seconds: float | None) -> None:
        """Begin anew with so many seconds, or with no end."""
        self._timer.cancel()
        if seconds is not None:
            self._timer = self._started(seconds)

    def _started(self, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, self._end)
        timer.daemon = True
        timer.start()
        return timer

    def _end(self) -> None:
        self.passed = True
        sock = self.connection.sock if self.connection else None
        if sock is None:
            return  # whoever opens it will see that the time is up
        try:
            # Not TLS's own farewell: it would meddle with what the other thread is reading.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already


def client_for(settings: Settings, pause: Callable[[float], None] = time.sleep) -> Client:
    """The client that the settings ask for."""
    return Client(
        stall=settings.stall_seconds, proxy=settings.proxy, allow_loopback=settings.allow_loopback, pause=pause
    )


def parse(url: str) -> Url:
    """An address taken apart, once and for all; raises RefusedAddress for what can be read in two ways or in none."""
    try:
        parsed = parse_url(url)
    except (LocationParseError, ValueError):
        parsed = Url()
    if not parsed.host or parsed.scheme not in _PORTS or re.search(r"[\x00-\x20\x7f\\]", url) or "%" in parsed.host:
        raise RefusedAddress(f"{shown_url(url)}: this is no address of a file", "write it as https://SITE/FILE")
    if parsed.auth is not None:
        raise RefusedAddress(f"{shown_url(url)}: a name or a password in an address is not sent", "leave it out")
    return Url(parsed.scheme, None, parsed.host, parsed.port, parsed.path, parsed.query)


def allowed(url: str, allow_loopback: bool) -> Url:
    """An address taken apart, as far as can be told without a look-up one that may be fetched from.

    Raises RefusedAddress for one without encryption, with a name or a password in it, or with a host that is no public
    one and written out, as a number or as this machine's own name.
    """
    target = parse(url)
    if target.scheme != "https" and not (allow_loopback and target.scheme == "http"):
        raise RefusedAddress(f"{shown_url(url)}: only https:// addresses are fetched", "use the https:// address")
    if told := spelled_out(_host(target)):
        checked_addresses(_host(target), _port(target), lambda host, port: told, allow_loopback)
    return target


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:
        raise RefusedAddress(f"{shown_url(base)}: it redirects to what is no address") from None


def origin_of(url: Url) -> str:
    """Scheme, host and port: what a key is bound to."""
    return f"{url.scheme}://{url.host}:{_port(url)}"


def shown_url(url: str) -> str:
    """An address as it may be shown and kept: without name, password, query (it may hold a signature or a key)."""
    bare = re.sub(r"//[^/?#]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])
    return bare if bare.isprintable() and bare.isascii() else ascii(bare)


def delay_before_retry(error: Unreachable | HttpError, tried: int) -> float:
    """How many seconds to wait before the next attempt, after so many others; raises the error if that is pointless."""
    backoff = min(2.0**tried, LONGEST_WAIT)
    if isinstance(error, HttpError):
        if error.status not in TRY_AGAIN or (error.retry_after or 0) > LONGEST_WAIT:
            raise error
        return max(backoff, error.retry_after or 0)
    return backoff


def http_error(response: Response, site: Site | None) -> HttpError:
    """The error that a status stands for, with the site's own words where it gives some, and what to do about it."""
    code = response.headers.get("X-Error-Code", "")
    said = response.headers.get("X-Error-Message", "") or _message(response)
    if site and site.token:
        said = site.token.redact(said)
    host = parse(response.hops[-1].url).host
    what = f"{response.url}: {host} answered {response.status}"
    if said:
        what += f" ({ascii(said)[1:-1][:200]})"
    return HttpError(
        what,
        _remedy(response.status, code, site),
        response.status,
        code=code,
        retry_after=_retry_after(response.headers.get("Retry-After", "")),
    )


def _remedy(status: int, code: str, site: Site | None) -> str:
    log_in = site.how_to_log_in() if site else "it can only be fetched by hand, in a browser that is logged in"
    if code == "GatedRepo":
        return f"accept the licence on the model's page first; {log_in}"
    match status:
        case 401:
            return f"it is not for everybody: {log_in}"
        case 403:
            return f"you may have to accept the licence on its page, or to get access there: {log_in}"
        case 404 | 410:
            return "check the reference; what is private or was taken down looks like this too"
        case 451:
            return "it can't be had for legal reasons where you are"
        case 429:
            return "too many requests: try again later" + ("" if site is None or site.token else f", or {log_in}")
        case _ if status >= 500:
            return "the site has trouble: try again later; what has arrived is kept"
    return "check the reference"


def _message(response: Response) -> str:
    """What a site says in the body of an error, if it says it in JSON."""
    try:
        value = strictjson.object_or_none(response.read(1 << 14).decode("utf-8", "replace"))
    except Unreachable:
        return ""
    said = (value or {}).get("message") or (value or {}).get("error")
    return said if isinstance(said, str) else ""


def _retry_after(told: str) -> float | None:
    """The seconds that a Retry-After header asks for, given as a number or as a date."""
    if told.strip().isdecimal():
        return float(told.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time()) if told else None
    except (TypeError, ValueError, OverflowError):
        return None


def _refuse_packed(raw: HTTPResponse, target: Url) -> None:
    """Refuse a body that would have to be unpacked: a few bytes can become a full disk."""
    coding = raw.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        what = f"{shown_url(target.url)}: the answer is compressed ({ascii(coding)[:40]}), which nobody asked for"
        raise NetworkError(what, "try another source of the file")


def _refuse_length(raw: HTTPResponse, target: Url) -> None:
    """Refuse a body with fewer than no bytes: over a connection that is kept its end would never come."""
    told = raw.headers.get("Content-Length", "").strip()
    if told.startswith("-"):
        what = f"{shown_url(target.url)}: the answer says that it has {ascii(told)[1:-1][:40]} bytes"
        raise NetworkError(what, "try another source of the file")


def _is_cut(error: Exception) -> bool:
    """Whether the connection ended before the first line of an answer did."""
    return isinstance(error, BadStatusLine) and not str(error).endswith("\n")


def _malformed(url: str, error: HTTPException | InvalidHeader) -> NetworkError:
    """The error for an answer that begins against the rules of HTTP: who asks again gets the same."""
    match error:
        case BadStatusLine():
            what = f"the server's answer is no HTTP: it begins with {str(error).strip()[:40]!a}"
        case LineTooLong():
            what = "a line in the headers of the server's answer is too long"
        case InvalidHeader():
            what = "the headers of the server's answer tell several lengths of it"
        case _:
            what = f"the server's answer breaks the rules of HTTP ({ascii(str(error))[1:-1][:80]})"
    return NetworkError(f"{url}: {what}", "the fault is the server's, not your network's: try another source")


def _lost(url: str, error: Exception) -> NetworkError:
    """The error for a connection that failed, in one line."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return NetworkError(f"{url}: its certificate is not valid for it", "check the address and this machine's clock")
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return Unreachable(f"{url}: no answer in time", "try again; what has arrived is kept")
    if isinstance(error, RemoteDisconnected):
        return Unreachable(f"{url}: the server ended the connection without an answer", "try again later")
    cause = error.__cause__ or error  # of what goes wrong in a body urllib3 makes errors of its own
    if isinstance(cause, HTTPException):
        what = f"{url}: the server broke off its answer, or garbled it"
        return Unreachable(what, "try again; if it happens again the fault is the server's, not your network's")
    reason = getattr(cause, "strerror", None) or type(cause).__name__
    return Unreachable(f"{url}: the connection failed ({reason})", "check the network and try again")


def _host(url: Url) -> str:
    return (url.host or "").strip("[]")


def _port(url: Url) -> int:
    return url.port or _PORTS[url.scheme or "https"]


def _tls_context() -> ssl.SSLContext:
    """The system's certificates; where it has none, those that came with Python's packages."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    places = ssl.get_default_verify_paths()
    if os.name != "nt" and not places.cafile and not places.capath:
        try:
            import certifi
        except ImportError:
            return context
        context.load_verify_locations(certifi.where())
    return context
