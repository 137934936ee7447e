"""Errors as each door's clients expect them: an id and a class, what happened and what to do; no stack, no path."""

from __future__ import annotations

import errno
import logging
import re
import sqlite3
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from bottega.api import doors
from bottega.api.access.refusal import Refusal
from bottega.errors import BottegaError, FieldProblem, FileError, InvalidRecipe
from bottega.formats.database import code_of
from bottega.validation import in_words

LOG = logging.getLogger("bottega.server")

# By name, so that what a door does not import costs nothing. What is not here and is the caller's doing gets 422.
_STATUS: Mapping[str, int] = {
    "UnknownModel": 404,
    "UnknownJob": 404,
    "UnknownOutput": 404,
    "UnknownInput": 404,
    "UnknownEntry": 404,
    "UnknownPreview": 404,
    "UnknownDataset": 404,
    "UnknownUser": 404,
    "KeyReused": 409,
    "WrongState": 409,
    "Outdated": 409,
    "Different": 409,
    "QueueFull": 429,
    "OutOfMemory": 507,
    "SaveError": 507,
    "Interrupted": 409,
    "CatalogError": 503,
    "GalleryError": 503,
    "QueueError": 503,
    "NoDevice": 503,
}
_BUG = "ServerError"
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def install(app: FastAPI) -> None:
    """Answer every error that a route raises in the shape of its door."""

    async def ours(request: Request, error: Exception) -> Response:
        return answer(request, error)

    for kind in (BottegaError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, ours)


def answer(request: Request, error: Exception) -> Response:
    """The answer that tells of an error; what is a bug of ours is written to the log under the request's id."""
    request.scope.get("told", {})["why"] = reason(error)
    return response(request.url.path, error, request.scope.get("request_id", ""))


def reason(error: Exception) -> str:
    """Why a request failed, for the log: without what the client sent, which may hold its user's secrets."""
    _, _, name, what, _, _ = _told(error)
    return f"{name}: {what}"


def response(path: str, error: Exception, request_id: str) -> Response:
    """The answer to a request for `path` that failed with `error`."""
    status, headers, name, what, remedy, problems = _told(error)
    if name == _BUG:
        LOG.error("request %s for %s failed", request_id, path, exc_info=error)
        remedy = f"it is a bug in Bottega: its log tells more under {request_id}"
    what, remedy = without_paths(what), without_paths(remedy)
    body: dict[str, Any]
    match doors.envelope(path):
        case "openai":
            kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
            said = f"{what}; {remedy}" if remedy else what
            body = {"message": said, "type": kind, "param": problems[0]["field"] if problems else None, "code": name}
            body = {"error": body}
            status = 400 if status == 422 else status  # which OpenAI says to whatever is wrong with a request
            if status == 409 or (status >= 500 and status != 503) or name == "NoDevice":
                headers["x-should-retry"] = "false"  # it would fail in the same way, and be made three times
        case "a1111":
            said = f"{what}; {remedy}" if remedy else what
            body = {"error": name, "detail": said, "body": "", "errors": said}
            if status == 401:  # its clients know no other way than this, and some send nothing before they are asked
                headers["WWW-Authenticate"] = f'Basic realm="bottega", {headers["WWW-Authenticate"]}'
        case _:
            body = {"class": name, "what": what, "remedy": remedy, "problems": problems, "id": request_id}
            body = {"error": body}
    return JSONResponse(body, status, headers)


_Told = tuple[int, dict[str, str], str, str, str, list[dict[str, str]]]


def _told(error: Exception) -> _Told:
    """Status, headers, class, what, remedy and the problems with single fields."""
    name = type(error).__name__
    # Whichever file it was that did not fit: clients know this by one name.
    if _is_full(error) or (isinstance(error, BottegaError) and _is_full(error.__cause__ or error.__context__)):
        return _unwritable()
    match error:
        case Refusal():
            if type(error) is Refusal:
                name = HTTPStatus(error.status).phrase.replace(" ", "")
            return error.status, dict(error.headers), name, error.what, error.remedy, []
        case InvalidRecipe():
            return 422, {}, name, error.what, error.remedy, _problems(error.problems)
        case BottegaError():
            status = next((_STATUS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _STATUS), 0)
            status = status or (422 if error.exit_code == 2 else 500)
            wait = getattr(error, "retry_after", None)
            headers = {"Retry-After": str(max(1, round(wait or 5)))} if status == 429 else {}
            what = error.what.replace(str(error.path), error.path.name) if isinstance(error, FileError) else error.what
            problems = _problems(getattr(error, "problems", ()))
            return status, headers, name, what, error.remedy, problems
        case RequestValidationError() if any(each["loc"][0] == "path" for each in error.errors()):
            # Ids mean nothing to clients: what can't be one is no other thing than one that nothing has.
            return 404, {}, "NotFound", "there is no such thing", "look for it in the list", []
        case RequestValidationError():
            problems = [_problem(each) for each in error.errors()]
            what = " | ".join(
                f"{each['field']}: {each['what']}" if each["field"] else each["what"] for each in problems
            )
            return 422, {}, "InvalidRequest", what[:2000], "", problems
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            what = str(error.detail) if error.detail else phrase
            return error.status_code, dict(error.headers or {}), phrase.replace(" ", ""), what, "", []
        case sqlite3.OperationalError() if "readonly" in str(error):
            return _unwritable()
        case OSError() if error.errno == errno.EROFS:
            return _unwritable()
    return 500, {}, _BUG, "the server failed to do this", "", []


def _unwritable() -> _Told:
    remedy = "free some space on the server's disk, or check who may write there"
    return 507, {}, "DiskFull", "the server can't write to its disk", remedy, []


def _is_full(error: BaseException | None) -> bool:
    """Whether a disk, or a user's share of it, had no room for what was written."""
    match error:
        case sqlite3.OperationalError():
            return code_of(error) == sqlite3.SQLITE_FULL
        case OSError():
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _problems(problems: Sequence[FieldProblem]) -> list[dict[str, str]]:
    return [
        {"field": each.field, "what": without_paths(each.what), "remedy": without_paths(each.remedy)}
        for each in problems
    ]


def _problem(told: Mapping[str, Any]) -> dict[str, str]:
    """What a validator found wrong; the place without where in the request it was."""
    place = [str(part) for part in told["loc"]]
    if place and place[0] in ("body", "query", "path", "header", "cookie"):
        place = place[1:]
    what = in_words(told)
    return {"field": ".".join(place), "what": what if place else f"the body {what}", "remedy": ""}


_ROOTS = "home|root|tmp|usr|var|mnt|opt|srv|media|etc|work|workspace|data|Users|Volumes|private|nix|run|proc|app"
_PATH = re.compile(rf"(?<![\w:/.])(?:/(?:{_ROOTS})|[A-Za-z]:)[/\\](?:[^\s'\"<>|:;,()]*[/\\])*([^\s'\"<>|:;,()/\\]*)")
_known: list[str] = [str(Path.home()), str(Path(__file__).resolve().parents[1])]


def hide(folders: Sequence[Path]) -> None:
    """Never tell anybody over HTTP where these folders are."""
    told = {str(folder) for folder in folders} | set(_known)
    _known[:] = sorted((each for each in told if len(each) > 1), key=len, reverse=True)


def without_paths(text: str) -> str:
    """The text with every path of this machine cut down to its last name."""
    if "/" not in text and "\\" not in text:
        return text
    for folder in _known:
        text = text.replace(f"{folder}/", "").replace(folder, "...")
    return _PATH.sub(lambda found: found[1] or "...", text)


def encoded(path: str, error: Exception, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer, for where there is no framework yet."""
    told = response(path, error, request_id)
    return told.status_code, list(told.raw_headers), bytes(told.body)
