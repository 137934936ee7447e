"""Who may come in: every rule of the gate, on a real server, with a request that breaks just this one rule."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import re
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from door_server import until
from served import WITHIN, Answer, Served, serving
from uvicorn.server import ServerState

from bottega.api.access import Access, limits
from bottega.api.access.accounts import LINK_LASTS, SESSION_LASTS, Accounts, Quota
from bottega.api.access.gate import Gate
from bottega.api.access.host import names_for
from bottega.api.access.limits import Body, Buckets, Failures, Memory
from bottega.api.access.quotas import Quotas
from bottega.api.access.refusal import AccountError, NotSignedIn, Refusal, TooMuch
from bottega.api.errors import response
from bottega.api.server import Config, Connection
from bottega.errors import BottegaError, FileError, InvalidRecipe, SaveError, UnknownModel
from bottega.formats.database import Schema, connect, explained
from bottega.gallery.schema import SCHEMA as GALLERY
from bottega.jobs.job import QueueFull
from bottega.jobs.queue import SCHEMA as QUEUE
from bottega.library.schema import SCHEMA as CATALOG
from bottega.recipe import Recipe, Size
from bottega.workshop import NoDevice

PNG = b"\x89PNG\r\n\x1a\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application behind the gate: it tells what reached it."""
    if scope["path"] == "/api/endless":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b": beat\n\n", "more_body": True})
            await asyncio.sleep(0.05)
    if scope["path"] == "/api/flood":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
    if scope["path"] == "/api/slow":
        await asyncio.sleep(60)
    if scope["path"] == "/api/bug":
        raise KeyError("/home/somebody/secret.txt")
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    caller = scope["caller"]
    told = {"size": size, "method": scope["method"], "caller": caller.name if caller else None}
    told |= {"way": caller.way if caller else None, "scopes": sorted(caller.scopes) if caller else []}
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def gate(access: Access) -> Gate:
    return Gate(echo, access)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gate before an echo, for tests that leave nothing behind."""
    with serving(tmp_path_factory.mktemp("home"), gate, requests_per_second=10_000) as served:
        yield served


def signed_in(server: Served) -> str:
    """The Cookie header of a browser that opened a link."""
    answer = server("GET", f"/?token={server.accounts.new_link()}")
    assert answer.status == 303
    return answer.cookies[0].partition(";")[0]


@contextmanager
def asked(server: Served, path: str, key: str) -> Iterator[HTTPResponse]:
    """An answer that is read by and by, while the block runs."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=WITHIN)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        with connection.getresponse() as answer:
            yield answer


def told(answer: Answer) -> str:
    return str(answer.json["error"]["what"])


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/static/frame.js", "/", "/api/jobs", "/v1/models", "/enter"])
@pytest.mark.parametrize("host", ["evil.test", "evil.test:{port}", "localhost.evil.test:{port}", "127.0.0.1:1", ""])
def test_a_foreign_name_is_misdirected(server: Served, path: str, host: str) -> None:
    assert server("GET", path, host=host.format(port=server.port)).status == 421
    assert server("POST", path, {}, host=host.format(port=server.port), as_owner=True).status == 421


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}"])
def test_this_machines_own_names_are_answered(server: Served, host: str) -> None:
    assert server("GET", "/health", host=host.format(port=server.port)).status == 200


@pytest.mark.parametrize(
    "host",
    ["localhost.:{port}", "localhost:{port}@evil.test", "localhost:{port}, evil.test", "evil.test#localhost:{port}",
     "127.1:{port}", "2130706433:{port}", "0x7f.1:{port}", "127.0.0.1:0{port}x", "[::ffff:127.0.0.1]:{port}"],
)  # fmt: skip
def test_no_spelling_of_a_name_passes_for_another(server: Served, host: str) -> None:
    assert server("GET", "/health", host=host.format(port=server.port)).status in (400, 421)


def test_a_request_without_a_name_or_with_two_is_refused(server: Served) -> None:
    for head in (b"GET /health HTTP/1.0\r\n\r\n", b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"):
        assert server.raw(head).split(b" ", 2)[1] in (b"400", b"421")
    own = f"127.0.0.1:{server.port}".encode()
    assert server.raw(b"GET /health HTTP/1.1\r\nHost: %b\r\nHost: evil.test\r\n\r\n" % own).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("address", "status"),
    [("http://{own}/health", 200), ("HTTP://{own}/health?x", 200), ("http://{own}/api/jobs", 401),
     ("http://{own}", 401), ("http://{own}?token=x", 401), ("http://evil.test/health", 421),
     ("http://127.0.0.1/health", 421), ("http://evil.test@{own}/health", 421), ("http://{own}@evil.test/health", 421),
     ("http:///health", 400), ("ftp://{own}/health", 400)],
)  # fmt: skip
@pytest.mark.parametrize("host", ["{own}", "evil.test"])
def test_the_server_of_a_whole_address_is_the_one_that_is_meant(
    server: Served, address: str, status: int, host: str
) -> None:
    own = f"127.0.0.1:{server.port}"
    head = f"GET {address.format(own=own)} HTTP/1.1\r\nHost: {host.format(own=own)}\r\nConnection: close\r\n\r\n"
    assert server.raw(head.encode()).startswith(b"HTTP/1.1 %d" % status)


def test_configured_names_count_with_their_port_and_their_scheme() -> None:
    names = names_for(7680, ["studio.lan", "other.lan:80", "https://studio.example"], ["127.0.0.1", "192.168.1.5"])
    assert names.origin("studio.lan:7680", None) == "http://studio.lan:7680"
    assert names.origin("other.lan", None) == "http://other.lan"
    assert names.origin("studio.example:443", None) == "https://studio.example"
    assert names.origin("192.168.1.5:7680", None) == "http://192.168.1.5:7680"
    for wrong in ("studio.lan", "studio.lan:80", "other.lan:7680", "192.168.1.6:7680"):
        with pytest.raises(Refusal) as refused:
            names.origin(wrong, ("192.168.1.6", 7680))
        assert refused.value.status == 421


@pytest.mark.parametrize("host", ["studio.example", "studio.example:443"])
def test_a_browser_comes_through_a_program_that_keeps_a_certificate(tmp_path: Path, host: str) -> None:
    own = "https://studio.example"
    with serving(tmp_path, gate, names=[own, "https://other.example:8443", "third.example:443"]) as server:
        entered = server("GET", f"/?token={server.accounts.new_link()}", host=host)
        assert entered.status == 303 and "; Secure" in entered.cookies[0]
        cookie = entered.cookies[0].partition(";")[0]
        assert server("POST", "/api/jobs", {}, host=host, cookie=cookie, origin=own).status == 200
        assert server("POST", "/api/jobs", {}, host=host, cookie=cookie, origin="http://studio.example").status == 403
        for wrong in ("studio.example:80", "other.example", "third.example"):
            assert server("GET", "/health", host=wrong).status == 421


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]"])
def test_any_address_of_this_machine_alone_that_is_listened_on_is_a_name(host: str) -> None:
    assert names_for(7680, [], [host.strip("[]")]).origin(f"{host}:7680", None) == f"http://{host}:7680"
    with pytest.raises(Refusal):
        names_for(7680, [], ["127.0.0.1"]).origin("127.0.0.2:7680", None)


def test_where_all_addresses_are_listened_on_only_the_one_that_was_called_is_a_name() -> None:
    names = names_for(7680, [], ["0.0.0.0"])
    assert names.origin("192.168.1.6:7680", ("192.168.1.6", 7680)) == "http://192.168.1.6:7680"
    for host in ("192.168.1.7:7680", "192.168.1.6:80", "evil.test:7680"):
        with pytest.raises(Refusal):
            names.origin(host, ("192.168.1.6", 7680))


# --- origins ---------------------------------------------------------------------------------------------------------

FOREIGN = ["null", "http://evil.test", "http://localhost:1", "https://127.0.0.1:{port}", "http://127.0.0.1", "file://"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("origin", FOREIGN)
def test_another_sites_page_can_change_nothing(server: Served, method: str, origin: str) -> None:
    origin = origin.format(port=server.port)
    for path in ("/api/jobs", "/sdapi/v1/txt2img", "/v1/images/generations"):
        assert server(method, path, origin=origin, cookie=signed_in(server)).status == 403
        assert server(method, path, origin=origin, as_owner=True).status == 403
    assert server(method, "/sdapi/v1/txt2img", origin=origin).status == 403


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_a_cookie_alone_changes_nothing(server: Served, method: str) -> None:
    cookie = signed_in(server)
    assert server(method, "/api/jobs", cookie=cookie).status == 403
    assert server(method, "/api/jobs", cookie=cookie, sec_fetch_site="same-origin").status == 403
    assert server(method, "/api/jobs", cookie=cookie, origin=server.origin).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_a_browser_says_where_a_request_comes_from(server: Served, site: str) -> None:
    assert server("POST", "/sdapi/v1/txt2img", sec_fetch_site=site).status == 403
    if site != "none":
        assert server("GET", "/sdapi/v1/options", sec_fetch_site=site).status == 403
        assert server("GET", "/v1/models", origin="http://evil.test", sec_fetch_site=site).status == 403
        assert server("GET", "/static/frame.js", sec_fetch_site=site).status == 403


def test_another_site_may_link_to_the_page_and_to_nothing_else(server: Served) -> None:
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert server("GET", "/gallery", cookie=signed_in(server), **visit).status == 200
    assert server("GET", "/api/jobs", cookie=signed_in(server), **visit).status == 403


def test_no_answer_lets_another_site_read_it(server: Served) -> None:
    for origin in (server.origin, "http://evil.test"):
        assert not any(name.startswith("access-control") for name in server("GET", "/health", origin=origin).headers)
    answer = server("OPTIONS", "/api/jobs", origin="http://evil.test", access_control_request_method="POST")
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "evil.test"}, 421), ({"origin": "http://evil.test"}, 403), ({"origin": "null"}, 403), ({}, 404)],
)
def test_no_websocket_is_opened(server: Served, headers: dict[str, str], status: int) -> None:
    answer = server(
        "GET",
        "/api/events",
        as_owner=True,
        connection="Upgrade",
        upgrade="websocket",
        sec_websocket_version="13",
        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    )
    assert answer.status == status


def test_a_browsers_websocket_says_which_page_opens_it(server: Served) -> None:
    upgrade = {"connection": "Upgrade", "upgrade": "websocket"}
    assert server("GET", "/api/events", cookie=signed_in(server), **upgrade).status == 403
    assert server("GET", "/api/events", cookie=signed_in(server), origin=server.origin, **upgrade).status == 404


# --- who it is -------------------------------------------------------------------------------------------------------


def test_the_api_and_the_page_are_for_those_who_are_known(server: Served) -> None:
    answer = server("GET", "/api/jobs")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="bottega"')
    theirs = response("/sdapi/v1/sd-models", NotSignedIn("it is not known who asks", ""), "id").headers
    assert (
        theirs["www-authenticate"] == 'Basic realm="bottega", Bearer realm="bottega"'
    )  # they know no other than Basic
    page = server("GET", "/gallery")
    assert page.status == 401
    assert b"bottega serve --link" in page.body
    assert server("GET", "/api/jobs", as_owner=True).json["caller"] == "owner"


def test_a_key_is_taken_as_bearer_and_as_the_password_of_basic(server: Served) -> None:
    key = server.accounts.add("ada")
    try:
        basic = base64.b64encode(f"ada:{key}".encode()).decode()
        anybody = base64.b64encode(f"x:{key}".encode()).decode()
        for path in ("/api/jobs", "/v1/models", "/sdapi/v1/options", "/gallery"):
            for header in (f"Bearer {key}", f"bearer {key}", f"Basic {basic}", f"Basic {anybody}"):
                answer = server("GET", path, authorization=header)
                assert (answer.status, answer.json["caller"]) == (200, "ada")
                assert answer.json["scopes"] == ["generate", "read"]
    finally:
        server.accounts.remove("ada")
    assert server("GET", "/api/jobs", authorization=f"Bearer {key}").status == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic", "Basic !!!", "Basic eA==", "Digest x", "x", ""])
def test_what_is_no_key_lets_nobody_in(server: Served, header: str) -> None:
    assert server("GET", "/api/jobs", authorization=header).status == 401


def test_the_compat_doors_are_open_to_this_machine_until_there_are_users(tmp_path: Path) -> None:
    with serving(tmp_path, gate) as server:
        for path in ("/v1/models", "/sdapi/v1/options", "/internal/ping", "/controlnet/version", "/metrics"):
            assert server("GET", path).json["way"] == "open"
            # What a client that must send a key sends where there is none.
            assert server("GET", path, authorization="Bearer sk-none").json["way"] == "open"
        assert server("GET", "/v1x/models").status == 401
        server.accounts.add("ada")
        for path in ("/v1/models", "/sdapi/v1/options", "/internal/ping", "/controlnet/version", "/metrics"):
            assert server("GET", path).status == 401


@pytest.mark.parametrize("options", [{"open_doors": False}, {"names": ["studio.lan"]}])
def test_the_compat_doors_are_closed_where_others_could_come(tmp_path: Path, options: dict[str, Any]) -> None:
    with serving(tmp_path, gate, **options) as server:
        assert server("GET", "/v1/models").status == 401
        assert server("GET", "/v1/models", as_owner=True).status == 200


def test_no_door_is_open_beyond_this_machine(tmp_path: Path) -> None:
    with closing(Accounts(tmp_path / "access.sqlite")) as accounts:
        assert Access(accounts, port=1, bound=["127.0.0.1", "::1"]).is_open("/v1/models")
        for bound in (["0.0.0.0"], ["127.0.0.1", "192.168.1.5"], ["::"]):
            assert not Access(accounts, port=1, bound=bound).is_open("/v1/models")


# --- links and cookies -----------------------------------------------------------------------------------------------


def test_a_link_becomes_a_cookie_once(server: Served) -> None:
    token = server.accounts.new_link()
    answer = server("GET", f"/?token={token}")
    assert (answer.status, answer.headers["location"], answer.body) == (303, "/", b"")
    [cookie] = answer.cookies
    assert cookie.startswith(f"bottega_{server.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert token not in cookie
    assert server("GET", "/api/jobs", cookie=cookie.partition(";")[0]).json["way"] == "cookie"
    again = server("GET", f"/?token={token}")
    assert (again.status, again.cookies) == (401, [])
    assert b'data-why="used"' in again.body and b"bottega serve --link" in again.body


def test_looking_at_a_link_does_not_use_it(server: Served) -> None:
    token = server.accounts.new_link()
    assert server("HEAD", f"/?token={token}").status == 401
    for purpose in ("prefetch", "prefetch;prerender"):
        ahead = server("GET", f"/?token={token}", sec_purpose=purpose)
        assert (ahead.status, ahead.cookies, ahead.headers["cache-control"]) == (401, [], "no-store")
    assert server("GET", f"/?token={token}", purpose="prefetch").status == 401
    assert server("GET", f"/?token={token}").status == 303


@pytest.mark.parametrize("token", ["", "x", "%00", "a" * 5000, "%27%20OR%201=1--", "%ff"])
def test_a_made_up_link_signs_nobody_in(server: Served, token: str) -> None:
    answer = server("GET", f"/?token={token}")
    assert answer.status in (400, 401) and not answer.cookies


def test_a_cookie_that_another_program_added_signs_nobody_out(server: Served) -> None:
    good = signed_in(server)
    name = good.partition("=")[0]
    for cookie in (f"{name}=made-up; {good}", f"{good}; {name}=made-up", f"x=1; {good}; {name}="):
        assert server("GET", "/api/jobs", cookie=cookie).json["caller"] == "owner"


def test_links_and_sessions_end(tmp_path: Path) -> None:
    now = [1000.0]
    with closing(Accounts(tmp_path / "access.sqlite", clock=lambda: now[0])) as accounts:
        link, late = accounts.new_link(), accounts.new_link()
        now[0] += LINK_LASTS - 1
        session = accounts.redeem(link)
        assert session and accounts.by_session(session)
        now[0] += 1
        assert accounts.redeem(late) is None
        now[0] += SESSION_LASTS - 2
        assert accounts.by_session(session)
        assert accounts.renewed(session)
        now[0] += SESSION_LASTS - 1
        assert accounts.by_session(session)
        now[0] += 1
        assert accounts.by_session(session) is None


def test_sessions_survive_a_restart_and_only_hashes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "access.sqlite"
    with closing(Accounts(path)) as accounts:
        key, link = accounts.add("ada"), accounts.new_link()
        session = accounts.redeem(accounts.new_link())
        assert session
        content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        for secret in (key, key.removeprefix("bottega_"), link, session):
            assert secret.encode() not in content
    if os.name != "nt":
        assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    with closing(Accounts(path)) as accounts:
        found = accounts.by_session(session), accounts.by_key(key)
        assert [user and user.name for user in found] == ["owner", "ada"]
        accounts.close_session(session)
        assert accounts.by_session(session) is None


def test_another_process_that_changes_the_users_is_noticed_at_once(server: Served, tmp_path: Path) -> None:
    with serving(tmp_path, gate) as server, closing(Accounts(tmp_path / "access.sqlite")) as other:
        key = other.add("ada", ["read"])
        assert server("GET", "/api/jobs", authorization=f"Bearer {key}").json["scopes"] == ["read"]
        new = other.replace_key("ada")
        assert server("GET", "/api/jobs", authorization=f"Bearer {key}").status == 401
        assert server("GET", "/api/jobs", authorization=f"Bearer {new}").status == 200
        other.remove("ada")
        assert server("GET", "/api/jobs", authorization=f"Bearer {new}").status == 401


def test_with_a_full_disk_a_link_still_signs_in_once(tmp_path: Path) -> None:
    with serving(tmp_path, gate) as server:
        token = server.accounts.new_link()
        server.accounts._db.execute("PRAGMA query_only = ON")  # writing fails with the error of a full disk
        with pytest.raises(sqlite3.OperationalError):
            server.accounts.new_link()
        answer = server("GET", f"/?token={token}")
        assert answer.status == 303
        assert server("GET", "/api/jobs", cookie=answer.cookies[0].partition(";")[0]).status == 200
        assert server("GET", f"/?token={token}").status == 401


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain;application/json", "application/x-www-form-urlencoded",
     "multipart/form-data; boundary=x", "application/json5", "application/octet-stream", "image/png", ""],
)  # fmt: skip
def test_only_json_is_taken(server: Served, kind: str) -> None:
    for path in ("/api/jobs", "/sdapi/v1/txt2img", "/v1/chat"):
        assert server("POST", path, b"{}", content_type=kind).status in (401, 415)
    assert server("POST", "/api/jobs", b"{}", content_type=kind, as_owner=True).status == 415


def test_pictures_need_the_header_that_no_form_can_send(server: Served) -> None:
    upload = {"as_owner": True, "content_type": "image/png"}
    assert server("POST", "/api/inputs", PNG, **upload).status == 415
    assert server("POST", "/api/inputs", PNG, x_bottega_upload="1", **upload).json["size"] == len(PNG)
    svg = server("POST", "/api/inputs", PNG, as_owner=True, content_type="image/svg+xml", x_bottega_upload="1")
    assert svg.status == 415 and "send image/png" in svg.json["error"]["remedy"]
    jpeg = server("POST", "/api/inputs", PNG, as_owner=True, content_type="image/jpg", x_bottega_upload="1")
    assert jpeg.status == 200


def test_forms_are_taken_at_openais_door_from_programs_only(server: Served) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    assert server("POST", "/v1/images/edits", form, content_type=kind).status == 415
    assert server("POST", "/v1/images/edits", form, content_type=kind, as_owner=True).json["size"] == len(form)
    assert server("POST", "/api/inputs", form, content_type=kind, as_owner=True).status == 415
    many = b"".join(b"--x\r\n\r\n1\r\n" for _ in range(limits.MAX_PARTS + 2)) + b"--x--\r\n"
    assert server("POST", "/v1/images/edits", many, content_type=kind, as_owner=True).status == 413
    assert server("POST", "/v1/images/edits", form, content_type="multipart/form-data", as_owner=True).status == 400


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}', b'"\\ud800"', b"\xff", b"[" * 65 + b"]" * 65,
     b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000],
    ids=["cut", "nan", "infinity", "huge", "surrogate", "latin", "deep", "bottomless", "objects", "digits"],
)  # fmt: skip
def test_json_that_nothing_good_can_come_of_is_refused(server: Served, body: bytes) -> None:
    answer = server("POST", "/api/jobs", body, as_owner=True, content_type="application/json; charset=utf-8")
    assert (answer.status, answer.json["error"]["class"]) == (400, "BadRequest")


def test_a_number_without_end_is_told_of_in_words_for_who_sent_it(server: Served) -> None:
    answer = server("POST", "/api/jobs", b"1" * 5000, content_type="application/json", as_owner=True)
    assert answer.status == 400 and "too many digits" in told(answer) and "sys." not in told(answer)


def test_json_may_begin_with_a_byte_order_mark(server: Served) -> None:
    body = b'{"a": 1}'
    sent = server("POST", "/api/jobs", b"\xef\xbb\xbf" + body, content_type="application/json", as_owner=True)
    assert sent.json["size"] == len(body)
    twice = server("POST", "/api/jobs", b"\xef\xbb\xbf" * 2 + body, content_type="application/json", as_owner=True)
    assert twice.status == 400


def test_json_is_handed_on_whole(server: Served) -> None:
    for body in (b"[" * 64 + b"]" * 64, json.dumps(["x" * 300_000]).encode(), b"", b'{"a": 1.5e300}'):
        answer = server("POST", "/api/jobs", body, as_owner=True, content_type="application/json")
        assert answer.json["size"] == len(body)


def test_bodies_have_limits_told_and_untold(server: Served) -> None:
    owner = {"as_owner": True, "content_type": "application/json"}
    answer = server("POST", "/api/jobs", b'"' + b"x" * (1 << 20) + b'"', **owner)
    assert answer.status == 413
    assert "1 MiB" in told(answer)
    assert server("POST", "/sdapi/v1/txt2img", b'"' + b"x" * (4 << 20) + b'"', **owner).status == 200
    key, own = server.access.machine_key.encode(), f"127.0.0.1:{server.port}".encode()
    head = b"POST /api/jobs HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = server.raw(head % (own, key) + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 413")
    both = head % (own, key) + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert server.raw(both).startswith(b"HTTP/1.1 400")
    # An absurd length is refused before a byte of it comes.
    assert server.raw(head % (own, key) + b"Content-Length: 999999999999\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_a_packed_body_is_not_unpacked(server: Served) -> None:
    for coding in ("gzip", "deflate", "br", "identity, gzip"):
        answer = server("POST", "/api/jobs", {}, as_owner=True, content_encoding=coding)
        assert answer.status == 415


def test_a_body_must_come_and_not_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.05)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def drops() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    for receive in (never, drops):
        body = Body(receive, 50, Memory())
        with pytest.raises(Refusal) as refused:
            asyncio.run(body.whole())
        assert refused.value.status == 408


def test_bodies_together_have_a_limit() -> None:
    memory = Memory(100)
    memory.hold(90)
    with pytest.raises(Refusal) as refused:
        memory.hold(11)
    assert refused.value.status == 503
    memory.release(90)
    memory.hold(100)


def test_what_a_request_held_is_given_back(server: Served) -> None:
    for size in (1000, 2 << 20):
        server("POST", "/api/jobs", b"[" + b" " * size + b"]", as_owner=True, content_type="application/json")
    assert server.access.memory._held == 0


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/api/../x", "/api/%2e%2e/x", "/api/%2E%2e%2fx", "/api/..%5cx", "/api/x%00", "/api/%5c..%5cx", "/static/..\\x",
     "/static/%252e%252e/x", "/api/./x", "/api/%0d%0aSet-Cookie:x", "/api/%ff%fe", "/api/x%7f", "/api/?q=%00"],
)  # fmt: skip
def test_an_address_that_can_be_read_in_two_ways_is_refused(server: Served, path: str) -> None:
    assert server("GET", path, as_owner=True).status == 400


def test_long_addresses_and_many_headers_are_refused(server: Served) -> None:
    assert server("GET", "/api/" + "x" * 9000, as_owner=True).status == 414
    assert server("GET", "/health", **{f"x-{number}": "x" for number in range(101)}).status == 431
    assert server("GET", "/health", x_long="x" * 33_000).status == 431
    for name in (b"Origin", b"Authorization", b"Content-Type"):
        own = f"127.0.0.1:{server.port}".encode()
        twice = b"GET /health HTTP/1.1\r\nHost: %b\r\n%b: x\r\n%b: y\r\n\r\n" % (own, name, name)
        assert server.raw(twice).startswith(b"HTTP/1.1 400")
    assert server.raw(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b"content-security-policy" in server.raw(b"nonsense\r\n\r\n")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "BREW"])
def test_unknown_methods_are_refused(server: Served, method: str) -> None:
    assert server(method, "/health").status == 405


def test_head_is_get_without_a_body(server: Served) -> None:
    get, head = server("GET", "/health"), server("HEAD", "/health")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", get.headers["content-length"])
    assert server("HEAD", "/api/endless", as_owner=True).status == 200
    assert server("HEAD", "/api/jobs").status == 401


def test_a_slow_head_and_a_slow_reader_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.api.server.HEAD_WITHIN", 0.2)
    monkeypatch.setattr("bottega.api.server.READ_WITHIN", 0.2)
    with serving(tmp_path, gate) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
            assert silent.recv(1) == b""
        whole = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
            slow.sendall(whole)
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")
            slow.sendall(whole[:-10])
            with suppress(ConnectionResetError):
                while slow.recv(1 << 16):
                    pass
        head = f"GET /api/flood HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"Authorization: Bearer {server.access.machine_key}"
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as reader:
            reader.sendall(f"{head}\r\n\r\n".encode())
            assert reader.recv(1)
            deadline = time.monotonic() + 60
            while server.access.running:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def _head(server: Served, path: str, more: str = "", method: str = "GET") -> bytes:
    own = f"127.0.0.1:{server.port}"
    key = server.access.machine_key
    return f"{method} {path} HTTP/1.1\r\nHost: {own}\r\nAuthorization: Bearer {key}\r\n{more}\r\n".encode()


def test_requests_that_come_together_are_answered_one_after_the_other(server: Served) -> None:
    two = [_head(server, "/health"), _head(server, "/health", method="TRACE")]
    body = b'{"a": 1}'
    lengths = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    told = server.raw(b"".join([*two, _head(server, "/api/jobs", lengths, "POST"), body]))
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200", b"405", b"200"]
    assert b'"size": 8,' in told


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.3"])
def test_an_upgrade_that_nobody_wants_is_a_plain_request(server: Served, protocol: str) -> None:
    upgrade = _head(server, "/health", f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n")
    told = server.raw(upgrade * 3 + _head(server, "/health", "Connection: close\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200"] * 4


@pytest.mark.parametrize(
    "line",
    [b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /health HTTP/9.9", b"GET /health", b"PRI * HTTP/2.0"],
)  # fmt: skip
def test_lines_that_only_a_proxy_or_nobody_understands_are_refused(server: Served, line: bytes) -> None:
    own = f"127.0.0.1:{server.port}".encode()
    assert server.raw(b"%b\r\nHost: %b\r\n\r\n" % (line, own)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("more", ["X: a\r\n b\r\n", "X : a\r\n", "X\r\n", "X: a\0b\r\n", "Content-Length: 1, 2\r\n",
                                  "Transfer-Encoding: chunked, identity\r\n", "Content-Length: +1\r\n"])  # fmt: skip
def test_headers_that_can_be_read_in_two_ways_are_refused(server: Served, more: str) -> None:
    assert server.raw(_head(server, "/health", more, "POST")).startswith(b"HTTP/1.1 400")


def test_what_nothing_comes_of_has_an_end(server: Served) -> None:
    chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    posted = _head(server, "/api/jobs", chunked, "POST")
    for begun in (b"GET /", _head(server, "/health")[:-2] + b"X: ", b"\r\n", posted + b"1;", posted + b"0\r\nX: "):
        filler = begun if not begun.strip() else b"x"
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as endless, suppress(ConnectionError):
            endless.sendall(begun)
            sent = 0
            while sent < 64 << 20:
                sent += endless.send(filler * (1 << 16))
            pytest.fail(f"{begun!r} and 64 MiB more were taken")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_is_no_request_though_an_upgrade_is_asked_for(server: Served, is_chunked: bool) -> None:
    hidden = _head(server, "/hidden")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden) if is_chunked else hidden
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    asked = "Content-Type: image/png\r\nX-Bottega-Upload: 1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    head = _head(server, "/api/inputs", f"{asked}{length}\r\n", "POST")
    last = _head(server, "/health", "Connection: close\r\n")
    told = server.raw(head + body + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"200"] * 2
    assert b'"size": %d,' % len(hidden) in told
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head)
        time.sleep(0.05)  # so that the head is read before the body comes
        connection.sendall(body + last)
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).count(b"HTTP/1.1 200") == 2
    assert server.raw(_head(server, "/x", method="CONNECT") + hidden).count(b"HTTP/1.1") == 1


def test_a_body_that_is_none_is_answered(server: Served) -> None:
    chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    for body in (b"nonsense\r\n", b"2\r\n{}{}\r\n"):
        assert server.raw(_head(server, "/api/jobs", chunked, "POST") + body).startswith(b"HTTP/1.1 400")


def test_one_connection_asks_for_so_many_at_once_and_no_more(server: Served) -> None:
    many = _head(server, "/health") * 60
    told = server.raw(many + _head(server, "/health", "Connection: close\r\n"))
    assert told.count(b"HTTP/1.1 200") == 61
    with suppress(ConnectionResetError):
        assert server.raw(b"GET /a HTTP/1.1\r\n\r\n" * 10_000).count(b"HTTP/1.1") <= 1


def test_what_comes_after_its_answer_has_to_come_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.api.server.HEAD_WITHIN", 0.2)
    with serving(tmp_path, gate) as server, socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: image/png\r\n"
        asked = f"{head}X-Bottega-Upload: 1\r\nContent-Length: 1000\r\n\r\n".encode()

        def refused() -> bool:
            slow.sendall(asked)
            told = b""
            while b"</html>" not in told:
                more = slow.recv(1 << 16)
                assert more
                told += more
            return told.startswith(b"HTTP/1.1 401")

        for _ in range(2):  # a body that comes late, and whole, is no harm
            assert refused()
            slow.sendall(b"x" * 500)
            slow.sendall(b"x" * 500)
            time.sleep(0.5)
        assert refused()
        deadline = time.monotonic() + 60
        with suppress(ConnectionError):
            while slow.send(b"x"):
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_headers_behind_a_body_are_nobodys(server: Served) -> None:
    more = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    told = server.raw(_head(server, "/api/jobs", more, "POST") + b"2\r\n{}\r\n0\r\nHost: evil.test\r\nX: y\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200")


def test_who_goes_is_missed_though_more_was_asked_for(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as gone:
        gone.sendall(_head(server, "/api/endless") + _head(server, "/health"))
        assert gone.recv(1)
    deadline = time.monotonic() + 60
    while server.access.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- how much --------------------------------------------------------------------------------------------------------


def test_a_caller_who_sends_too_much_is_told_when_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, gate, requests_per_second=1) as server:
        statuses = [server("GET", "/api/jobs", as_owner=True) for _ in range(8)]
        assert [answer.status for answer in statuses[:5]] == [200] * 5
        last = statuses[-1]
        assert last.status == 429 and int(last.headers["retry-after"]) >= 1
        # Others are not held to it.
        key = server.accounts.add("ada")
        assert server("GET", "/api/jobs", authorization=f"Bearer {key}").status == 200


@pytest.mark.parametrize(
    "begun",
    ["", "GET /he", "GET /health HTTP/1.1\r\n{host}\r\n", "POST /api/session HTTP/1.1\r\n{host}{body}\r\n"],
)
def test_connections_that_ask_for_nothing_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    monkeypatch.setattr("bottega.api.server.MAX_CONNECTIONS", 8)
    with serving(tmp_path, gate) as server, ExitStack() as stack:
        host = f"Host: 127.0.0.1:{server.port}\r\n"
        begun = begun.format(host=host, body="Content-Type: application/json\r\nContent-Length: 9\r\n")
        stream = stack.enter_context(asked(server, "/api/endless", server.access.machine_key))
        for _ in range(20):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN))
            silent.sendall(begun.encode())
            assert server("GET", "/health").status == 200
        # What is being answered was there before them, and stays.
        assert stream.read1(1 << 20) and stream.read1(1 << 20)


class Line(asyncio.Transport):
    """A connection of which nothing comes, that counts how often it is looked at."""

    looks = 0

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1), "sockname": ("127.0.0.1", 2)})
        self.aborted = False

    def is_closing(self) -> bool:
        Line.looks += 1
        return self.aborted

    def abort(self) -> None:
        self.aborted = True  # its protocol is told later


@contextmanager
def connecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], tuple[Connection, Line]]]:
    """Makes connections from an address, as a loop without a turn in between does."""
    monkeypatch.setattr(Line, "looks", 0)
    config, state, loop = Config(gate), ServerState(), asyncio.new_event_loop()

    def connect(address: str) -> tuple[Connection, Line]:
        one, line = Connection(config, state, {}, loop), Line(address)
        one.connection_made(line)
        return one, line

    with closing(loop):
        yield connect


def test_a_burst_of_connections_takes_no_more_work_for_each_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.api.server.MAX_CONNECTIONS", 100)
    with connecting(monkeypatch) as connect:
        lines = [connect("127.0.0.1")[1] for _ in range(1000)]
    assert [line.aborted for line in lines] == [True] * 900 + [False] * 100
    assert Line.looks <= 2 * len(lines)


def test_one_address_has_so_many_connections_of_which_those_that_ended_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bottega.api.server.MAX_FROM_ONE", 3)
    with connecting(monkeypatch) as connect:
        there = [connect("192.0.2.1") for _ in range(5)]
        assert [line.aborted for _, line in there] == [False] * 3 + [True] * 2
        assert not connect("192.0.2.2")[1].aborted and not any(connect("127.0.0.1")[1].aborted for _ in range(5))
        for one, _ in there[2:]:
            one.connection_lost(ConnectionError())
        assert [connect("192.0.2.1")[1].aborted for _ in range(2)] == [False, True]


def test_one_caller_has_so_many_requests_open_and_leaves_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.api.access.limits.MAX_OPEN", 5)
    with serving(tmp_path, gate) as server:
        key = server.accounts.add("ada")
        with ExitStack() as stack:
            for _ in range(5):
                assert stack.enter_context(asked(server, "/api/endless", key)).status == 200
            refused = server("GET", "/api/jobs", authorization=f"Bearer {key}")
            assert refused.status == 429 and "ada has 5 requests open" in told(refused)
            assert int(refused.headers["retry-after"]) >= 1
            assert server("GET", "/health", authorization=f"Bearer {key}").status == 200
            assert server("GET", "/api/jobs", as_owner=True).status == 200
        until(lambda: not server.access.running)
        assert server("GET", "/api/jobs", authorization=f"Bearer {key}").status == 200


def test_buckets_refill_and_forget() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 3.0, clock=lambda: now[0], most=2)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert buckets.take("a") == 0
    for name in "bcd":
        buckets.take(name)
    assert len(buckets._left) == 2


def test_wrong_keys_make_an_address_wait_longer_and_longer_and_right_ones_do_not(server: Served) -> None:
    now = [0.0]
    failures = Failures(clock=lambda: now[0])
    waits = []
    for _ in range(20):
        try:
            failures.add("1.2.3.4")
            waits.append(0.0)
        except TooMuch as error:
            waits.append(float(error.headers["Retry-After"]))
            now[0] += float(error.headers["Retry-After"])
    assert waits[:5] == [0] * 5
    assert max(waits) >= 60
    failures.add("4.3.2.1")
    answers = [server("GET", "/api/jobs", authorization="Bearer wrong").status for _ in range(8)]
    assert answers[0] == 401 and answers[-1] == 429
    assert server("GET", "/api/jobs", as_owner=True).status == 200


def test_users_have_quotas(tmp_path: Path) -> None:
    now = [86400.0 * 10]
    with closing(Accounts(tmp_path / "access.sqlite", clock=lambda: now[0])) as accounts:
        accounts.add("ada", quota=Quota(waiting=3, per_minute=2, pixels_per_day=1000))
        quotas = Quotas(accounts, clock=lambda: now[0], wall=lambda: now[0])
        recipe = Recipe(prompt="x", size=Size(width=20, height=10), count=2)
        assert quotas.waiting("ada") == 3
        assert quotas.waiting("owner") is None

        def ask(owner: str, *, there_is_room: bool = True) -> None:
            with quotas.allow(owner, recipe):
                if not there_is_room:
                    raise QueueFull("no room", "later", 1)

        ask("ada")
        with pytest.raises(QueueFull):
            ask("ada", there_is_room=False)
        ask("ada")  # what the queue refused counts as nothing
        with pytest.raises(TooMuch, match="2 jobs a minute"):
            ask("ada")
        now[0] += 61
        with pytest.raises(TooMuch, match="200 are left"):
            ask("ada")
        now[0] += 86400
        ask("ada")
        for _ in range(5):
            ask("owner")


@pytest.mark.parametrize("name", ["", "Owner", "owner", "a b", "../x", "a" * 33, "ä", "-a"])
def test_names_of_users_are_plain(tmp_path: Path, name: str) -> None:
    with closing(Accounts(tmp_path / "access.sqlite")) as accounts, pytest.raises(AccountError):
        accounts.add(name)


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/", "/gallery", "/api/jobs", "/v1/models", "/enter", "/api/../x"])
def test_every_answer_is_sealed(server: Served, path: str) -> None:
    for headers in ({}, {"as_owner": True}, {"host": "evil.test"}):
        sealed = server("GET", path, **headers).headers  # type: ignore[arg-type]
        assert sealed["x-content-type-options"] == "nosniff"
        assert sealed["referrer-policy"] == "no-referrer"
        assert sealed["cross-origin-opener-policy"] == sealed["cross-origin-resource-policy"] == "same-origin"
        policy = sealed["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert "server" not in sealed and sealed["x-request-id"]
    assert "sandbox" in server("GET", "/api/jobs", as_owner=True).headers["content-security-policy"]


def test_a_bug_is_told_by_an_id_and_nothing_else(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    answer = server("GET", "/api/bug", as_owner=True)
    assert answer.status == 500
    assert answer.json["error"]["class"] == "ServerError"
    assert b"secret" not in answer.body and b"Traceback" not in answer.body and b"KeyError" not in answer.body
    id = answer.json["error"]["id"]
    assert any(id in record.getMessage() and record.exc_info for record in caplog.records)
    assert id == answer.headers["x-request-id"]


def test_each_door_has_its_own_shape_of_errors(server: Served) -> None:
    from bottega.api.errors import response

    error = UnknownModel("x")
    native = json.loads(bytes(response("/api/jobs", error, "7").body))["error"]
    assert (native["class"], native["id"], native["problems"]) == ("UnknownModel", "7", [])
    openai = response("/v1/images/generations", error, "7")
    assert openai.status_code == 404
    assert json.loads(bytes(openai.body))["error"].keys() == {"message", "type", "param", "code"}
    a1111 = json.loads(bytes(response("/sdapi/v1/txt2img", error, "7").body))
    assert a1111.keys() == {"error", "detail", "body", "errors"}
    assert response("/v1/x", KeyError("x"), "7").headers["x-should-retry"] == "false"
    assert response("/v1/x", NoDevice("no worker"), "7").headers["x-should-retry"] == "false"
    assert response("/api/x", InvalidRecipe([]), "7").status_code == 422


@pytest.mark.parametrize("schema", [QUEUE, CATALOG, GALLERY, None])
def test_a_full_disk_has_one_name_whatever_did_not_fit(schema: Schema | None, tmp_path: Path) -> None:
    with pytest.raises((BottegaError, sqlite3.OperationalError)) as failed, closing(connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        with explained(tmp_path / "x.sqlite", schema) if schema else nullcontext():
            database.execute("CREATE TABLE much (x)")
    full = OSError(errno.ENOSPC, "No space left on device")
    saving = SaveError("x.png: could not be written")
    saving.__cause__ = full
    for error in (failed.value, full, saving):
        answer = response("/api/jobs", error, "7")
        assert (answer.status_code, json.loads(bytes(answer.body))["error"]["class"]) == (507, "DiskFull")


@pytest.mark.parametrize(
    "text",
    [
        "/home/ada/models/a.safetensors: is cut",
        "see '/tmp/x/y.png'",
        "in C:\\Users\\ada\\x.png",
        "/root/x (/mnt/disk/y)",
    ],
)
def test_no_error_tells_a_path(text: str) -> None:
    from bottega.api.errors import response

    for error in (FileError("/srv/models/a.ckpt", text, text), UnknownModel("x", [text])):
        for path in ("/api/x", "/v1/x", "/sdapi/v1/x"):
            said = bytes(response(path, error, "7").body).decode()
            for secret in ("home/", "ada", "/tmp", "/srv", "/root", "/mnt", "Users"):
                assert secret not in said


# --- the end ---------------------------------------------------------------------------------------------------------


def test_when_it_ends_streams_end_and_what_waits_is_told(tmp_path: Path) -> None:
    got: list[Any] = []
    with serving(tmp_path, gate) as server:

        def ask(path: str) -> None:
            got.append(server("GET", path, as_owner=True))

        threads = [threading.Thread(target=ask, args=(path,)) for path in ("/api/endless", "/api/slow")]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(server.access.running) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 6
    for thread in threads:
        thread.join(60)
    assert sorted(answer.status for answer in got) == [200, 503]
