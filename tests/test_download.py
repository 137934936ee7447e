"""One file from a server that misbehaves in every way we know: the right bytes, or an explicit error, never others."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from site_server import (
    Fault,
    Request,
    Served,
    Site,
    answer,
    changing,
    chunked,
    cut,
    drip,
    flip,
    raw,
    reset,
    running,
    serve,
    stall,
    with_headers,
)

from bottega.errors import BottegaError, FormatError, SaveError
from bottega.library.sources import download as module
from bottega.library.sources.client import ATTEMPTS, Client
from bottega.library.sources.download import Fetched, download
from bottega.library.sources.errors import Damaged, HttpError, NetworkError, Refused, RefusedAddress, Unreachable
from bottega.library.sources.exclusive import exclusive
from bottega.library.sources.offers import RemoteFile

PATH = "/m.safetensors"
SYNC = 32 << 10
SIZE = 5 * SYNC + 777


def body_of(seed: int, size: int = SIZE) -> bytes:
    """Bytes that begin as a safetensors file does: nothing else is asked of them here."""
    start = (1000).to_bytes(8, "little") + b'{"'
    return start + random.Random(seed).randbytes(size - len(start))


BODY, OTHER = body_of(1), body_of(2)


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYNC_EVERY", SYNC)
    monkeypatch.setattr(module, "CHUNK", 10_000)
    monkeypatch.setattr(module, "PROGRESS", SYNC)


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with running() as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    shared_site.files = {PATH: Served(BODY)}
    shared_site.json, shared_site.answers = {}, {}
    shared_site.requests.clear()
    shared_site.sent.clear()
    return shared_site


@pytest.fixture
def waits() -> list[float]:
    """How long the client would have waited between attempts."""
    return []


@pytest.fixture
def client(waits: list[float]) -> Client:
    return Client(stall=30, allow_loopback=True, pause=waits.append)


@pytest.fixture
def impatient(waits: list[float]) -> Client:
    """A client for sites that fall silent: it may give up on a busy machine's good ones, too."""
    return Client(stall=0.7, allow_loopback=True, pause=waits.append)


def remote(site: Site, body: bytes | None = BODY, **more: object) -> RemoteFile:
    hashes = {"sha256": hashlib.sha256(body).hexdigest()} if body is not None else {}
    options = {"hashes": hashes, "path": "m.safetensors", **more}
    return RemoteFile(key="test", urls=(f"{site.url}{PATH}",), **options)  # type: ignore[arg-type]


def check(fetched: Fetched, body: bytes = BODY) -> None:
    assert fetched.path.read_bytes() == body
    assert (fetched.sha256, fetched.size) == (hashlib.sha256(body).hexdigest(), len(body))


# --- the faults ------------------------------------------------------------------------------------------------------

LONG_AGO = formatdate(time() - 1000, usegmt=True)

# Each makes the answers to the first requests; the later ones are proper. With it: whether the bytes must arrive.
SCRIPTS: dict[str, tuple[Callable[[int], list[Fault]], bool]] = {
    "cut": (lambda at: [cut(at)], True),
    "cut thrice": (lambda at: [cut(at // 3), cut(at // 2), cut(at)], True),
    "reset": (lambda at: [reset(at)], True),
    "stall": (lambda at: [stall(at)], True),
    "drip": (lambda at: [drip(at)], True),
    "flipped bit": (lambda at: [flip(at)], False),
    "flipped bit before a cut": (lambda at: [_flipped_and_cut(at)], True),
    "length too great": (lambda at: [with_headers(Content_Length=str(SIZE + 1 + at))] * 9, False),
    "length too small": (lambda at: [with_headers(Content_Length=str(at))] * 9, False),
    "length is no number": (lambda at: [with_headers(Content_Length="many")], True),
    "no length": (lambda at: [with_headers(Content_Length=None)], True),
    "no length, and cut": (lambda at: [_without_length(at)], False),
    "200 for 206": (lambda at: [cut(at), with_headers(), _whole], True),
    "206 from elsewhere": (lambda at: [cut(at), _from_elsewhere], True),
    "206 of another size": (lambda at: [cut(at), _of_another_size], True),
    "206 unasked": (lambda at: [with_headers(), _unasked] if not at else [_unasked], True),
    "changed, ranges honoured": (lambda at: [cut(at), changing(OTHER, serve)], False),
    "changed, If-Range ignored": (lambda at: [cut(at), changing(OTHER, _ignoring_if_range)], False),
    "416": (lambda at: [cut(at), answer(416, Content_Range=f"bytes */{SIZE}")], True),
    "429": (lambda at: [cut(at), answer(429, Retry_After="7")], True),
    "503": (lambda at: [answer(503, Retry_After=formatdate(time() + 30, usegmt=True)), cut(at)], True),
    "429 for too long": (lambda at: [cut(at), answer(429, Retry_After="86400")], False),
    "500 for ever": (lambda at: [answer(500)] * 9, False),
    "403": (lambda at: [cut(at), answer(403)], False),
    "HTML": (lambda at: [answer(200, b"<!DOCTYPE html><html>log in</html>" + bytes(at), "text/html")], False),
    "HTML that calls itself a model": (lambda at: [answer(200, b"\n <html>" + bytes(at), "application/x")], False),
    "JSON": (lambda at: [answer(200, b'{"error": "no"}', "application/json")], False),
    "gzip": (lambda at: [answer(200, gzip.compress(BODY), Content_Encoding="gzip")], False),
    "gzip that says nothing": (lambda at: [answer(200, gzip.compress(BODY, 1))], False),
    "chunks": (lambda at: [chunked(BODY)], True),
    "chunks, cut": (lambda at: [chunked(BODY[:at], end=b"")], True),
    "chunks, no numbers": (lambda at: [chunked(BODY[:at], end=b"zz\r\nabc")], True),
    "chunks without end": (lambda at: [chunked(BODY + OTHER)], False),
    "nothing": (lambda at: [answer(200)], False),
    "no answer": (lambda at: [raw(b"")], True),
    "no HTTP": (lambda at: [raw(b"SSH-2.0-OpenSSH\r\n" + bytes(at))], False),
    "endless headers": (lambda at: [raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n")], False),
    "one endless header": (lambda at: [raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")], False),
    "304": (lambda at: [cut(at), answer(304)], False),
    "redirects in circles": (lambda at: [answer(302, Location=PATH)] * 9, False),
    "redirect to a private address": (lambda at: [cut(at), answer(302, Location="https://169.254.169.254/")], False),
    "redirect to a file": (lambda at: [answer(302, Location="file:///etc/passwd")], False),
    "redirect to nowhere": (lambda at: [answer(302, Location="http://[")], False),
    "redirect once": (lambda at: [answer(307, Location=f"{PATH}?signature=1"), cut(at)], True),
}  # fmt: skip


def _flipped_and_cut(at: int) -> Fault:
    def fault(request: object, served: Served) -> None:
        body = bytearray(served.body)
        body[max(12, at - 1)] ^= 1
        cut(max(at, 13))(request, Served(bytes(body), served.etag))  # type: ignore[arg-type]

    return fault


def _without_length(at: int) -> Fault:
    def fault(request: object, served: Served) -> None:
        with_headers(Content_Length=None)(request, Served(served.body[:at], served.etag))  # type: ignore[arg-type]

    return fault


def _whole(request: object, served: Served) -> None:
    serve(request, Served(served.body, served.etag, ranges=False))  # type: ignore[arg-type]


def _from_elsewhere(request: object, served: Served) -> None:
    with_headers(Content_Range=f"bytes 5-{SIZE - 1}/{SIZE}")(request, served)  # type: ignore[arg-type]


def _of_another_size(request: object, served: Served) -> None:
    answer(206, b"x" * 10, Content_Range="bytes 0-9/10")(request, served)  # type: ignore[arg-type]


def _unasked(request: object, served: Served) -> None:
    answer(206, served.body, Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}")(request, served)  # type: ignore[arg-type]


def _ignoring_if_range(request: object, served: Served) -> None:
    del request.headers["If-Range"]  # type: ignore[attr-defined]
    serve(request, served)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_right_bytes_or_an_explicit_error(
    name: str, site: Site, client: Client, impatient: Client, tmp_path: Path
) -> None:
    script, must_arrive = SCRIPTS[name]
    slow = name in ("stall", "drip")
    client = impatient if slow else client
    points = [0, 1, SYNC - 1, SYNC, SIZE - 1] if slow else [0, 1, 9, 511, SYNC - 1, SYNC, SYNC + 1, SIZE - 1]
    points += [] if slow else random.Random(name).sample(range(20, SIZE - 1), 12)
    for index, at in enumerate(points):
        at = max(at, 1) if "too small" in name or "no length" in name else at
        site.files[PATH] = Served(BODY, faults=script(at))
        part = tmp_path / f"{index}.part"
        try:
            check(download(client, remote(site), part))
        except BottegaError as error:
            assert not must_arrive, f"at {at}: {error}"
            # What is kept is a beginning of the file, or it is nothing: the next attempt never builds on other bytes.
            site.files[PATH] = Served(BODY)
            check(download(client, remote(site), part))
        else:
            assert must_arrive, f"at {at}: arrived"


@pytest.mark.parametrize("name", ["cut", "200 for 206", "206 from elsewhere", "416", "chunks, cut", "redirect once"])
def test_without_a_hash_the_validators_are_enough(name: str, site: Site, client: Client, tmp_path: Path) -> None:
    for index, at in enumerate((0, 1, SYNC, 2 * SYNC + 5, SIZE - 1)):
        site.files[PATH] = Served(BODY, faults=SCRIPTS[name][0](at))
        check(download(client, remote(site, None), tmp_path / f"{index}.part"))


@pytest.mark.parametrize("then", [serve, _ignoring_if_range])
@pytest.mark.parametrize("modified", ["", LONG_AGO], ids=["without a date", "with a date"])
def test_a_file_that_changes_meanwhile_arrives_as_the_new_one(
    then: Fault, modified: str, site: Site, client: Client, tmp_path: Path
) -> None:
    def changed(request: object, served: Served) -> None:
        served.headers = {"ETag": "", "Last-Modified": formatdate(time(), usegmt=True)} if modified else {}
        changing(OTHER, then)(request, served)  # type: ignore[arg-type]

    headers = {"ETag": "", "Last-Modified": modified} if modified else {}
    site.files[PATH] = Served(BODY, faults=[cut(3 * SYNC), changed], headers=headers)
    check(download(client, remote(site, None), tmp_path / "part"), OTHER)


def test_what_broke_off_goes_on_where_it_was(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [cut(4 * SYNC + 5)]
    check(download(client, remote(site), tmp_path / "part"))
    assert site.header("Range") == [None, f"bytes={4 * SYNC + 5}-"]
    assert site.header("If-Range") == [None, site.files[PATH].etag]
    assert site.sent[PATH] == SIZE
    assert not json.loads((tmp_path / "part.json").read_text())["url"].endswith("?")


def test_a_line_that_always_breaks_early_still_brings_the_file(site: Site, client: Client, tmp_path: Path) -> None:
    piece = SYNC // 3
    breaks = [_sending(piece)] * (SIZE // piece)
    site.files[PATH].faults = [*breaks]
    check(download(client, remote(site), tmp_path / "part"))
    assert site.header("Range") == [None, *(f"bytes={piece * tried}-" for tried in range(1, len(breaks) + 1))]
    assert site.sent[PATH] == SIZE


def test_a_server_that_gives_a_byte_each_time_is_given_up(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [_sending(SYNC), *[_sending(1)] * 99]
    with pytest.raises(Unreachable, match=f"broke off after {SYNC + 4:,} of {SIZE:,} bytes; run the command again"):
        download(client, remote(site), tmp_path / "part")
    assert len(site.requests) == ATTEMPTS


def test_the_next_command_goes_on_from_the_very_byte(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [cut(500)] * ATTEMPTS
    with pytest.raises(Unreachable):
        download(client, remote(site), tmp_path / "part")
    check(download(client, remote(site), tmp_path / "part"))
    assert site.header("Range")[-1] == "bytes=500-"
    assert site.sent[PATH] == SIZE


@pytest.mark.parametrize(
    ("length", "start"),
    [(SYNC + 90, SYNC + 7), (2 * SYNC + 90, 2 * SYNC), (SYNC + 6, SYNC), (SYNC - 1, None)],
    ids=["killed later", "killed a stretch later", "shortened", "shortened to less than a stretch"],
)
def test_a_note_is_trusted_as_far_as_the_bytes_are_there(
    length: int, start: int | None, site: Site, client: Client, tmp_path: Path
) -> None:
    """Killed while it went on, the note is older than the bytes; where the file is shorter than it says, it is void."""
    part = tmp_path / "part"
    site.files[PATH].faults = [cut(SYNC + 7), answer(403)]
    with pytest.raises(HttpError):
        download(client, remote(site), part)
    part.write_bytes(BODY[:length])
    check(download(client, remote(site), part))
    assert site.header("Range")[-1] == (start and f"bytes={start}-")


def test_what_one_process_has_fetched_is_hashed_once(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = module._Digests.update

    def update(digests: object, chunk: bytes) -> None:
        hashed.append(len(chunk))
        real(digests, chunk)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Digests, "update", update)
    site.files[PATH].faults = [_sending(SYNC + 1)] * 3
    check(download(client, remote(site), tmp_path / "part"))
    assert sum(hashed) == SIZE


def _sending(most: int) -> Fault:
    """A proper answer that breaks off after so many bytes."""

    def fault(request: Request, served: Served) -> None:
        cut(request.range_start(served) + most)(request, served)

    return fault


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (answer(200, b"<!DOCTYPE html>log in", "text/html"), FormatError),
        (answer(200, b'{"error": "too many requests"}', "application/json"), FormatError),
        (lambda request, served: request.begin(200, {"Content-Length": str(1 << 50)}), Refused),
    ],
)
@pytest.mark.parametrize("validators", [True, False])
def test_an_answer_that_is_no_model_takes_nothing_of_what_has_arrived(
    fault: Fault, error: type[BottegaError], validators: bool, site: Site, client: Client, tmp_path: Path
) -> None:
    site.files[PATH].faults = [cut(4 * SYNC), fault]
    with pytest.raises(error):
        download(client, remote(site, BODY if validators else None), tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY[: 4 * SYNC]
    check(download(client, remote(site, BODY if validators else None), tmp_path / "part"))
    assert site.header("Range")[-1] == f"bytes={4 * SYNC}-" and site.sent[PATH] < SIZE + 100


def test_an_answer_of_another_size_takes_nothing_of_what_has_arrived(
    site: Site, client: Client, tmp_path: Path
) -> None:
    file = remote(site, size=SIZE, exact=True)
    site.files[PATH].faults = [cut(4 * SYNC), answer(200, b"<!DOCTYPE html>log in", "text/html")]
    with pytest.raises(NetworkError, match="bytes instead of"):
        download(client, file, tmp_path / "part")
    check(download(client, file, tmp_path / "part"))
    assert site.header("Range")[-1] == f"bytes={4 * SYNC}-"


def test_a_whole_file_is_not_fetched_again(site: Site, client: Client, tmp_path: Path) -> None:
    for _ in range(2):
        check(download(client, remote(site, None), tmp_path / "part"))
    assert len(site.requests) == 1


def test_another_process_goes_on_only_with_what_is_the_same_file(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [cut(3 * SYNC)] + [answer(500)] * 4
    with pytest.raises(HttpError):
        download(client, remote(site), tmp_path / "part")
    assert (tmp_path / "part").stat().st_size == 3 * SYNC
    site.files[PATH] = Served(OTHER)
    check(download(client, remote(site, OTHER), tmp_path / "part"), OTHER)
    assert site.header("Range")[-1] is None  # the hash is another: there was nothing to go on with


def test_bytes_from_before_a_power_cut_are_not_relied_on(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [cut(3 * SYNC)] + [answer(500)] * 4
    with pytest.raises(HttpError):
        download(client, remote(site, None), tmp_path / "part")
    with (tmp_path / "part").open("ab") as file:  # of what came later the disk kept the length, but not the bytes
        file.write(bytes(100))
    check(download(client, remote(site, None), tmp_path / "part"))


def test_what_changed_on_our_disk_is_noticed(site: Site, client: Client, tmp_path: Path) -> None:
    site.files[PATH].faults = [cut(3 * SYNC + 100)] + [answer(500)] * 4
    with pytest.raises(HttpError):
        download(client, remote(site), tmp_path / "part")
    with (tmp_path / "part").open("r+b") as file:
        file.write(b"\0")
    check(download(client, remote(site), tmp_path / "part"))


# --- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "told"),
    [
        (flip(99), Damaged, "instead of"),
        (answer(200, b"<html>", "text/html"), FormatError, "this is a web page"),
        (answer(200, b"\x7fELF" + bytes(600)), FormatError, "this is a program"),
        (answer(200, b"version https://git-lfs.github.com/spec/v1\n"), FormatError, "git-LFS pointer"),
        (answer(200, b"x", Content_Encoding="br"), NetworkError, "compressed ('br')"),
        (with_headers(Content_Length="-5"), NetworkError, "says that it has -5 bytes"),
        (answer(302, Location="http://10.0.0.1/x"), RefusedAddress, "10.0.0.1 is no public address"),
        (answer(302, Location="https://[::ffff:10.0.0.1]/x"), RefusedAddress, "no public address"),
        (answer(302, Location=PATH), NetworkError, "redirects in circles"),
        (answer(302, Location="/login?reason=download-auth"), HttpError, "wants you to log in"),
        (answer(401), HttpError, "answered 401"),
        (answer(403, b'{"message": "early \x1b[31m access"}'), HttpError, "answered 403"),
        (answer(404), HttpError, "check the reference"),
        (answer(451), HttpError, "legal reasons"),
        (answer(429, Retry_After="9999"), HttpError, "too many requests"),
    ],
)
def test_errors_say_what_happened(
    fault: Fault, error: type[BottegaError], told: str, site: Site, client: Client, tmp_path: Path
) -> None:
    site.files[PATH].faults = [fault] * 9
    with pytest.raises(error) as raised:
        download(client, remote(site), tmp_path / "part")
    assert told in str(raised.value) and str(raised.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (raw(b"SSH-2.0-OpenSSH\r\n"), "no HTTP: it begins with 'SSH-2.0-OpenSSH'"),
        (raw(b"HTTP/1.1 999999 \x1b[31m\r\n\r\n"), r"no HTTP: it begins with 'HTTP/1.1 999999 \x1b[31m'"),
        (raw(b"HTTP/9.9 200 OK\r\n\r\n"), "breaks the rules of HTTP (HTTP/9.9)"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), "rules of HTTP (got more than 100 headers)"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"), "a line in the headers"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 2\r\n\r\nabc"), "tell several lengths"),
    ],
    ids=["another protocol", "no status", "another HTTP", "many headers", "a long header", "two lengths"],
)
def test_an_answer_that_is_no_http_is_the_fault_of_the_server_and_is_not_asked_for_again(
    fault: Fault, told: str, site: Site, client: Client, tmp_path: Path
) -> None:
    site.files[PATH].faults = [fault] * 9
    with pytest.raises(NetworkError) as raised:
        download(client, remote(site), tmp_path / "part")
    assert told in raised.value.what and "the fault is the server's" in raised.value.remedy
    assert str(raised.value).isprintable() and len(site.requests) == 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (raw(b""), "the server ended the connection without an answer"),
        (raw(b"HTTP/1.1 2"), "broke off its answer, or garbled it"),
        (
            chunked(BODY[:SYNC], end=b""),
            "broke off its answer, or garbled it; try again; if it happens again the fault is",
        ),
        (chunked(BODY[:SYNC], end=b"zz\r\nabc"), "broke off its answer, or garbled it"),
    ],
    ids=["nothing", "a line that is cut", "chunks, cut", "chunks, no numbers"],
)
def test_what_broke_off_is_tried_again_and_told_in_words(
    fault: Fault, told: str, site: Site, client: Client, tmp_path: Path
) -> None:
    site.files[PATH].faults = [fault] * 9
    with pytest.raises(Unreachable) as raised:
        download(client, remote(site), tmp_path / "part")
    assert told in str(raised.value) and len(site.requests) == ATTEMPTS


def test_a_silent_server_is_waited_for_so_long_and_no_longer(
    site: Site, impatient: Client, waits: list[float], tmp_path: Path
) -> None:
    site.files[PATH].faults = [stall(SYNC)] + [stall(0)] * 9
    with pytest.raises(Unreachable, match="no answer in time"):
        download(impatient, remote(site), tmp_path / "part")
    assert waits == [1.0, 1.0, 2.0, 4.0] or waits == [1.0, 2.0, 4.0, 8.0]
    assert (tmp_path / "part").stat().st_size == SYNC


def test_the_site_says_when_to_come_back(site: Site, client: Client, waits: list[float], tmp_path: Path) -> None:
    later = formatdate(time() + 60, usegmt=True)
    site.files[PATH].faults = [answer(429, Retry_After="7"), answer(503, Retry_After=later), answer(503)]
    check(download(client, remote(site), tmp_path / "part"))
    assert waits[0] == 7 and 50 < waits[1] <= 60 and waits[2] == 4


def test_other_hashes_will_do(site: Site, client: Client, tmp_path: Path) -> None:
    from zlib import crc32

    from blake3 import blake3

    good = {
        "crc32": f"{crc32(BODY):08X}",
        "blake3": blake3(BODY).hexdigest().upper(),
        "sha256": hashlib.sha256(BODY).hexdigest()[:10].upper(),
        "git": hashlib.sha1(b"blob %d\0" % SIZE + BODY).hexdigest(),
    }
    check(download(client, remote(site, hashes=good, size=SIZE, exact=True), tmp_path / "part"))
    for kind in good:
        bad = {**good, kind: "0" + good[kind][1:]} if good[kind][0] != "0" else {**good, kind: "1" + good[kind][1:]}
        with pytest.raises(Damaged, match=f"its {kind} is"):
            download(client, remote(site, hashes=bad, size=SIZE, exact=True), tmp_path / f"{kind}.part")


def test_a_size_that_the_site_told_holds(site: Site, client: Client, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=f"{SIZE:,} bytes instead of {SIZE + 1:,}"):
        download(client, remote(site, None, size=SIZE + 1, exact=True), tmp_path / "part")
    site.files[PATH].faults = [chunked(BODY + b"more")]
    with pytest.raises(Damaged, match=f"more than the {SIZE:,} bytes"):
        download(client, remote(site, None, size=SIZE, exact=True), tmp_path / "part")


def test_the_next_address_is_asked_where_one_has_nothing(site: Site, client: Client, tmp_path: Path) -> None:
    file = RemoteFile("k", (f"{site.url}/gone", f"{site.url}{PATH}"), "m.safetensors")
    check(download(client, file, tmp_path / "part"))
    assert site.paths() == ["/gone", PATH]


def test_names_are_taken_from_the_answer(site: Site, client: Client, tmp_path: Path) -> None:
    for index, (told, name) in enumerate(
        [
            ('attachment; filename="a b.safetensors"', "a b.safetensors"),
            ("attachment; filename*=UTF-8''%E6%A8%A1.pt", "模.pt"),
            ('attachment; filename="../../x"', "../../x"),
            ("", "m.safetensors"),
        ]
    ):
        site.files[PATH].headers = {"Content-Disposition": told} if told else {}
        assert download(client, remote(site), tmp_path / f"{index}").suggested_name == name


# --- the disk --------------------------------------------------------------------------------------------------------


def test_room_is_looked_for_first(site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 1000)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(SIZE + 1000))
    with pytest.raises(SaveError, match="MiB are free"):
        download(client, remote(site), tmp_path / "part", keep_free=1 << 20)
    assert not (tmp_path / "part").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage((1 << 20) + 2 * SIZE))
    check(download(client, remote(site), tmp_path / "part", keep_free=1 << 20))


def test_a_full_disk_is_an_error_and_what_arrived_goes_on_later(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._write

    def full(out: object, chunk: bytes, at: int) -> None:
        if at > 3 * SYNC:
            raise OSError(28, "No space left on device")
        real(out, chunk, at)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(SaveError, match=r"the disk is full\); free some space"):
        download(client, remote(site), tmp_path / "part")
    monkeypatch.setattr(module, "_write", real)
    check(download(client, remote(site), tmp_path / "part"))
    assert site.header("Range") == [None, f"bytes={3 * SYNC}-"]


def test_the_disk_is_made_to_keep_every_stretch_before_the_next(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    download(client, remote(site), tmp_path / "part")
    assert [size for size in synced if size >= SYNC] == [*range(SYNC, SIZE, SYNC), SIZE]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with exclusive(lock, "it"), pytest.raises(NetworkError, match="it is being fetched by another process"):  # noqa: SIM117
        with exclusive(lock, "it"):
            raise AssertionError("two at once")
    with exclusive(lock, "it"):
        assert lock.exists()
    assert not lock.exists()


def test_stopping_keeps_what_has_arrived(site: Site, client: Client, tmp_path: Path) -> None:
    def told(done: int, size: int | None) -> None:
        if done > 3 * SYNC:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(client, remote(site), tmp_path / "part", told=told)
    stopped = (tmp_path / "part").stat().st_size
    check(download(client, remote(site), tmp_path / "part"))
    assert stopped > 3 * SYNC and site.header("Range") == [None, f"bytes={stopped}-"]


def test_no_moment_at_which_old_bytes_pass_for_a_new_file(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changed; we are killed when that is written down, and go on later: nothing of the old one is left."""
    site.files[PATH].faults = [cut(3 * SYNC)] + [answer(500)] * 4
    with pytest.raises(HttpError):
        download(client, remote(site, None), tmp_path / "part")
    site.files[PATH] = Served(OTHER)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_receive", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        download(client, remote(site, None), tmp_path / "part")
    check(download(client, remote(site, None), tmp_path / "part"), OTHER)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
def test_a_disk_that_knows_no_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / "x.lock", "x"):
        assert (tmp_path / "x.lock").exists()
    assert not (tmp_path / "x.lock").exists()
