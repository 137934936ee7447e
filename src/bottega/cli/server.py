"""The server of this home, as the command line speaks to it: with the key that it left for this machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bottega.errors import BottegaError, FieldProblem, InvalidRecipe
from bottega.settings import Settings

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

ENDS = ("done", "result", "failed", "cancelled")  # the events after which a job has no more to say
CONNECT_WITHIN = 2.0  # seconds; it is on this machine
ANSWER_WITHIN = 300.0  # seconds: a model that is used for the first time is hashed before a job is taken
SILENT = 60.0  # seconds without a word, not even a heartbeat, after which a stream of events is begun anew
BACK_WITHIN = 60.0  # seconds that a server may be away, as when it is begun anew, before a command gives up


class ServerGone(BottegaError):
    """The server of this home does not answer any more."""


class ServerError(BottegaError):
    """The server refused something, or could not do it."""

    def __init__(self, what: str, remedy: str, kind: str, status: int) -> None:
        super().__init__(what, remedy)
        self.kind = kind
        self.status = status
        self.exit_code = 2 if 400 <= status < 500 and status != 429 else 1


@dataclass(frozen=True)
class Heard:
    """One server-sent event."""

    number: int | None
    kind: str
    data: dict[str, Any]


class Server:
    """A server that runs on this home."""

    def __init__(self, settings: Settings, url: str, key: str) -> None:
        self._settings = settings
        self._url, self._key = url, key

    def get(self, path: str) -> Any:
        """What a GET answers, from JSON; raises ServerError, ServerGone."""
        return json.loads(self._call("GET", path))

    def fetch(self, path: str) -> bytes:
        """What a GET answers, as it is."""
        return self._call("GET", path)

    def post(self, path: str, told: Any = None, **headers: str) -> Any:
        """What a POST of JSON answers; raises InvalidRecipe, ServerError, ServerGone."""
        return self.send("POST", path, told, **headers)

    def send(self, method: str, path: str, told: Any = None, **headers: str) -> Any:
        """What a request with a JSON body answers; raises what `post` raises."""
        body = None if told is None else json.dumps(told).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named["Content-Type"] = "application/json"
        answer = self._call(method, path, body, named)
        return json.loads(answer) if answer else None

    def upload(self, content: bytes, content_type: str) -> str:
        """Hand a picture in; its SHA-256."""
        headers = {"Content-Type": content_type, "X-Bottega-Upload": "1"}
        return str(json.loads(self._call("POST", "/api/inputs", content, headers))["sha256"])

    def events_of(self, job: str) -> Iterator[Heard]:
        """The events of a job, from its first one to its last; raises what `events` raises."""
        for heard in self._events(f"/api/jobs/{job}/events", 0):
            yield heard
            if heard.kind in ENDS and self._is_last(job, heard):
                return

    def _is_last(self, job: str, heard: Heard) -> bool:
        """Whether an end of a job is the one that it has come to, and not one after which it was tried again."""
        ended = self.get(f"/api/jobs/{job}")["ended"]
        return ended is not None and heard.data["at"] >= ended

    def events(self) -> Iterator[Heard]:
        """The events of all jobs, from now on, for ever.

        A server that comes back is asked for those after the last. Raises ServerGone if none does.
        """
        return self._events("/api/events", None)

    def _events(self, path: str, last: int | None) -> Iterator[Heard]:
        away_since: float | None = None
        while True:
            try:
                for heard in self._stream(path, last):
                    away_since = None
                    if heard.number is not None:
                        last = heard.number
                    yield heard
            except (OSError, ServerGone) as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > BACK_WITHIN:
                    raise ServerGone(
                        f"the server at {self._url} does not answer any more ({error})",
                        "start it again: what it was asked for is not lost",
                    ) from None
                time.sleep(0.2)
                if again := running(self._settings):
                    self._url, self._key = again._url, again._key

    def _stream(self, path: str, last: int | None) -> Iterator[Heard]:
        with closing(self._connect(SILENT)) as connection:
            since = {} if last is None else {"Last-Event-ID": str(last)}
            response = self._ask(connection, "GET", path, None, since)
            if response.status >= 400:
                raise _error(response.status, response.read())
            number: int | None = None
            kind, data = "", ""
            while line := response.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name == "id":
                    number = int(value)
                elif name == "event":
                    kind = value
                elif name == "data":
                    data += value
                elif not name and kind:
                    yield Heard(number, kind, json.loads(data))
                    number, kind, data = None, "", ""
        raise ServerGone("the connection was closed")

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        try:
            with closing(self._connect(ANSWER_WITHIN)) as connection:
                response = self._ask(connection, method, path, body, headers or {})
                content = response.read()
        except OSError as error:
            raise ServerGone(f"the server at {self._url} does not answer ({error})", "see its log") from None
        if response.status >= 400:
            raise _error(response.status, content)
        return content

    def _connect(self, patience: float) -> HTTPConnection:
        from http.client import HTTPConnection

        parts = urlsplit(self._url)
        connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=CONNECT_WITHIN)
        connection.connect()
        connection.sock.settimeout(patience)
        return connection

    def _ask(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HTTPResponse:
        from http.client import HTTPException

        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self._key}", **headers})
            return connection.getresponse()
        except HTTPException as error:
            raise ConnectionError(f"no HTTP: {error}") from None


def running(settings: Settings) -> Server | None:
    """The server of this home, if one runs and answers."""
    try:
        told = json.loads(settings.serving.read_text(encoding="utf-8"))
        server = Server(settings, str(told["url"]), str(told["key"]))
        os.kill(int(told["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(BottegaError):
        server.get("/api/me")
        return server
    return None


def _error(status: int, content: bytes) -> BottegaError:
    """The error that an answer tells of."""
    try:
        told = json.loads(content)["error"]
        kind, what, remedy = str(told["class"]), str(told["what"]), str(told["remedy"])
        problems = [
            FieldProblem(str(each["field"]).removeprefix("recipe."), str(each["what"]), str(each["remedy"]))
            for each in told["problems"]
        ]
    except (ValueError, KeyError, TypeError):
        return ServerError(f"the server answered {status}", "see its log", "", status)
    if problems and status == 422:  # what is not found is not the recipe's fault: it may be looked for elsewhere
        return InvalidRecipe(problems)
    return ServerError(what, remedy, kind, status)
