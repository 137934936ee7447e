"""One file from a site to the disk: it goes on where it broke off, and is checked while it arrives.

The bytes lie in `NAME.part`, and in `NAME.part.json` what they are part of. An attempt that breaks off or
is stopped makes the disk keep all that has arrived and notes how much that is: the next one goes on from that very
byte. One that is killed can't: therefore after every 2 MiB the disk is made to keep what it was given before more is
written, so that even after a power cut everything up to a multiple of 2 MiB is really there. From such a place a
download goes on where nothing farther is noted, and no more than that is fetched twice. What an earlier command has
fetched is read again to compute the hash, which costs no traffic.
"""

from __future__ import annotations

import email.message
import errno
import hashlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from blake3 import blake3

from bottega.errors import BottegaError, FormatError, SaveError
from bottega.formats import strictjson
from bottega.formats.atomic import sync_folder
from bottega.formats.sniff import KINDS, sniff_bytes
from bottega.library.hashes import hash_file_all
from bottega.library.sources.client import ATTEMPTS, Client, Response, delay_before_retry, http_error, shown_url
from bottega.library.sources.errors import Damaged, HttpError, NetworkError, Refused, Unreachable
from bottega.library.sources.offers import RemoteFile

SYNC_EVERY = 2 << 20
CHUNK = 256 << 10
MAX_SIZE = 1 << 40  # of one file, whatever a server says
SLOWEST = 1024  # bytes a second, over as long as the client waits for a silent server
PROGRESS = 256 << 10  # bytes farther than ever before: the attempts were worth it, and are counted anew
SMALL = 64 << 20  # bytes of a file that needs no more room than itself
MIB = 1 << 20
_NEVER = frozenset(("html", "json", "lfs-pointer", "program", "png", "jpeg", "webp", "gif"))  # told by the first bytes
_OF_A_PART = frozenset(("autov1", "autov3"))  # hashes that leave out a part of the file

Told = Callable[[int, int | None], None]  # (bytes there, bytes in all if that is known)


@dataclass(frozen=True)
class Fetched:
    """A file that arrived whole: where it is, its hash, and what the server said of it."""

    path: Path
    size: int
    sha256: str
    etag: str = ""
    last_modified: str = ""
    suggested_name: str = ""
    url: str = ""


@dataclass
class _State:
    """What the bytes in `NAME.part` are part of: kept in `NAME.part.json`."""

    key: str
    expected: dict[str, str]
    url: str = ""
    etag: str = ""
    last_modified: str = ""
    size: int | None = None
    suggested_name: str = ""
    safe: int = 0  # bytes that the disk was made to keep when the last attempt ended


class _Restart(Exception):
    """What is there can't be gone on with; the reason is for nobody."""


def download(
    client: Client, file: RemoteFile, part: Path, keep_free: int = 0, told: Told = lambda done, size: None
) -> Fetched:
    """The file, whole and checked, at `part`; for whoever holds the lock on it.

    `told` may raise to stop: what has arrived stays for the next time. Raises Damaged (and removes what arrived) where
    the bytes are not those that were promised, FormatError, Refused or NetworkError for an answer that is no such file
    (what arrived before stays), HttpError, Unreachable after several attempts, and SaveError where the disk is full.
    """
    failures, farthest = 0, _length(part)
    digests = _Digests(file)
    while True:
        try:
            return _attempt(client, file, part, digests, keep_free, told)
        except _Restart:
            discard(part)
            failures += 1
            if failures >= ATTEMPTS:
                raise NetworkError(f"{shown_url(file.urls[0])}: the server's answers contradict each other") from None
        except (Unreachable, HttpError) as error:
            failures += 1
            if (reached := _length(part)) - farthest >= PROGRESS:
                failures, farthest = 1, reached
            if failures >= ATTEMPTS:
                raise
            client.pause(delay_before_retry(error, failures - 1))
        except Damaged:
            discard(part)
            raise
        except OSError as error:
            raise _disk_error(part, error) from error


def discard(part: Path) -> None:
    """Throw away what has arrived of a file."""
    part.unlink(missing_ok=True)
    forget_state(part)


def forget_state(part: Path) -> None:
    """Forget what a part was part of, once it is whole and has a name of its own."""
    _state_path(part).unlink(missing_ok=True)


def _attempt(client: Client, file: RemoteFile, part: Path, digests: _Digests, keep_free: int, told: Told) -> Fetched:
    state = _read_state(part, file)
    start = _resumable(part, state)
    digests.begin_with(part, start, told)  # before the server is asked: it would not wait so long
    if state.size is not None and start == state.size:
        return _finished(file, part, state, digests, resumed=True)
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and (validator := _validator(state)):
        headers["If-Range"] = validator
    for url in file.urls:
        with client.get(url, headers, file.site) as response:
            if response.status in (404, 410) and url != file.urls[-1]:
                continue
            if response.status == 416:
                raise _Restart
            if response.status not in (200, 206):
                raise http_error(response, file.site)
            digests.begin_with(part, _agree(response, file, state, start), told)
            _check_room(part, (state.size or file.size or 0) - digests.size, keep_free)
            resumed = digests.size > 0
            beginning = b""
            if not resumed:
                beginning = _beginning(response, file)
                _drop(part)
            _write_state(part, state)
            _receive(client, response, beginning, part, state, digests, told)
            return _finished(file, part, state, digests, resumed=resumed)
    raise AssertionError("the last address is never skipped")


def _agree(response: Response, file: RemoteFile, state: _State, start: int) -> int:
    """Where the body goes on, after comparing what the server says with what is there; brings `state` up to date."""
    headers = response.headers
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    length = _number(headers.get("Content-Length"))
    if response.status == 206:
        match = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", headers.get("Content-Range", "").strip())
        if not start or match is None or int(match[1]) != start:
            raise _Restart
        total = None if match[3] == "*" else int(match[3])
        changed = (state.etag and etag and etag != state.etag) or (state.size and total and total != state.size)
        if changed or (not state.etag and state.last_modified and modified and modified != state.last_modified):
            raise _Restart
        size = total if total is not None else state.size
        if length is not None and size is not None and start + length != size:
            raise _Restart
    else:
        start, size, state.safe = 0, length, 0
        state.etag, state.last_modified = etag, modified
        state.expected = {**file.hashes, **_linked(response, file)}
    if file.exact and size is not None and size != file.size:
        raise NetworkError(f"{response.url}: it has {size:,} bytes instead of {file.size:,}", "try again later")
    if (size or 0) > MAX_SIZE:
        raise Refused(f"{response.url}: the server says that it has {size:,} bytes; no model is so large")
    state.size = size if size is not None else file.size if file.exact else None
    state.url = shown_url(file.urls[0])
    state.suggested_name = _suggested_name(response) or state.suggested_name
    return start


def _drop(part: Path) -> None:
    """Take away bytes that are of no use, for good, before anything says that they belong to another file."""
    if part.exists():
        part.unlink()
        sync_folder(part.parent)


def _receive(
    client: Client,
    response: Response,
    beginning: bytes,
    part: Path,
    state: _State,
    digests: _Digests,
    told: Told,
) -> None:
    """Write the body, whose beginning may have been read, after what is there, and hash it.

    Raises Unreachable where it breaks off. Unless the disk or a kill ends it the next attempt goes on from there.
    """
    done = digests.size
    limit = state.size if state.size is not None else MAX_SIZE
    pace = _Pace(client.stall, done)
    told(done, state.size)
    with part.open("r+b" if done else "wb", buffering=0) as out:
        out.truncate(done)
        out.seek(done)
        try:
            chunk = beginning or response.read(CHUNK)
            while chunk:
                if done + len(chunk) > limit:
                    what = f"{response.url}: more than the {limit:,} bytes that it should have"
                    raise Damaged(what, "try again later")
                _write(out, chunk, done)
                digests.update(chunk)
                done += len(chunk)
                told(done, state.size)
                pace.check(response.url, done)
                chunk = response.read(CHUNK)
            if state.size is not None and done < state.size:
                what = f"{response.url}: it broke off after {done:,} of {state.size:,} bytes"
                raise Unreachable(what, "run the command again to go on")
        except (BottegaError, KeyboardInterrupt):  # after an error of the disk nobody knows what it has kept
            os.fsync(out.fileno())
            state.safe = done
            _write_state(part, state)
            raise
        os.fsync(out.fileno())


def _write(out: BinaryIO, chunk: bytes, at: int) -> None:
    """Write a chunk that begins at `at`; before more than a whole stretch is written the stretch is safe on disk."""
    view = memoryview(chunk)
    while view:
        room = SYNC_EVERY - at % SYNC_EVERY
        written = out.write(view[:room])
        at += written
        view = view[written:]
        if at % SYNC_EVERY == 0:
            os.fsync(out.fileno())


class _Digests:
    """The hashes of a file, fed as it arrives, over all attempts."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._clear()

    def _clear(self) -> None:
        file = self._file
        self.size = 0
        self._sha256 = hashlib.sha256()
        others = set() if file.sha256 else set(file.hashes)  # a whole SHA-256 leaves nothing to be asked
        self._blake3 = blake3() if "blake3" in others else None
        self._crc32 = 0 if "crc32" in others else None
        self._git = None
        if "git" in others and file.size is not None:
            self._git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def begin_with(self, part: Path, length: int, told: Told) -> None:
        """Be the hashes of so many bytes of what is there: those that were not hashed yet are read."""
        if self.size > length:
            self._clear()
        if self.size == length:
            return
        with part.open("rb", buffering=0) as there:
            there.seek(self.size)
            while self.size < length:
                chunk = there.read(min(4 * MIB, length - self.size))
                if not chunk:
                    raise _Restart
                self.update(chunk)
                told(self.size, None)

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._crc32 is not None:
            self._crc32 = zlib.crc32(chunk, self._crc32)
        if self._blake3 is not None:
            self._blake3.update(chunk)
        if self._git is not None:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def computed(self) -> Mapping[str, str]:
        """Every hash that can be compared, by the name of its kind."""
        known = {"sha256": self.sha256}
        if self._crc32 is not None:
            known["crc32"] = f"{self._crc32:08x}"
        if self._blake3 is not None:
            known["blake3"] = self._blake3.hexdigest()
        if self._git is not None:
            known["git"] = self._git.hexdigest()
        return known


def _finished(file: RemoteFile, part: Path, state: _State, digests: _Digests, *, resumed: bool) -> Fetched:
    """The file, if it is the one that was promised. What was put together of several attempts gets another chance."""
    if broken := _broken_promise({**state.expected, **file.hashes}, digests, part):
        if resumed:
            raise _Restart
        raise Damaged(
            f"{shown_url(file.urls[0])}: its {broken}; "
            "the file was damaged on the way or is another one, and was thrown away",
            "try again; if it happens again the site's file is not the one that it should be",
        )
    if digests.size == 0:
        raise Damaged(f"{shown_url(file.urls[0])}: it is empty", "check it on its page")
    return Fetched(part, digests.size, digests.sha256, state.etag, state.last_modified, state.suggested_name, state.url)


def _broken_promise(expected: Mapping[str, str], digests: _Digests, path: Path) -> str:
    """The first hash that is not as expected, in words; empty if all are."""
    computed = dict(digests.computed())
    if not _OF_A_PART.isdisjoint(expected):
        hashes = hash_file_all(path)  # rare enough to read it once more
        computed |= {name: told for name in _OF_A_PART if (told := getattr(hashes, name))}
    for kind, digits in expected.items():
        if kind in computed and not computed[kind].startswith(digits.lower()):
            return f"{kind} is {computed[kind]} instead of {digits}"
    return ""


def is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether the bytes at a path are those that a site promises of a file. Raises OSError."""
    size = path.stat().st_size
    if file.exact and size != file.size:
        return False
    digests = _Digests(file)
    digests.begin_with(path, size, lambda done, total: None)
    return not _broken_promise(file.hashes, digests, path)


def _state_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path, file: RemoteFile) -> _State:
    """What is known of the bytes that are there; a blank state where they belong to something else, or to nothing."""
    blank = _State(file.short_key, dict(file.hashes))
    try:
        told = strictjson.object_or_none(_state_path(part).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return blank
    if told is None or told.get("key") != file.short_key:
        return blank
    expected = told.get("expected")
    texts = {
        name: told[name] for name in ("url", "etag", "last_modified", "suggested_name") if _is_text(told.get(name))
    }
    hashes = {key: value for key, value in expected.items() if _is_text(value)} if isinstance(expected, dict) else {}
    if any(hashes.get(kind, value) != value for kind, value in file.hashes.items()):
        return blank
    size, safe = _count(told.get("size")), _count(told.get("safe"))
    return _State(file.short_key, hashes, size=size, safe=safe or 0, **texts)


def _write_state(part: Path, state: _State) -> None:
    path = _state_path(part)
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(asdict(state), out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    sync_folder(path.parent)  # or after a power cut an older note would tell of these bytes


def _resumable(part: Path, state: _State) -> int:
    """How many of the bytes that are there can be gone on from: none where nothing could tell if the file changed."""
    there = _length(part)
    if not (state.etag or state.last_modified or state.expected.keys() - _OF_A_PART - {"crc32"}):
        return 0
    if state.size is not None and there == state.size:
        return there
    if state.size is not None and there > state.size:
        return 0
    stretches = there - there % SYNC_EVERY
    return max(state.safe, stretches) if state.safe <= there else stretches


def _validator(state: _State) -> str:
    """What makes a server answer with all of a file that has changed; a weak ETag can't serve (RFC 9110, 13.1.5)."""
    if state.etag and not state.etag.startswith("W/"):
        return state.etag
    return state.last_modified


def _linked(response: Response, file: RemoteFile) -> dict[str, str]:
    """The SHA-256 that Hugging Face gives of a large file when it points to where the file is."""
    if file.site is None or file.site.name != "huggingface":
        return {}
    told = response.hops[0].headers.get("X-Linked-Etag", "").strip('"')
    return {"sha256": told} if re.fullmatch("[0-9a-f]{64}", told) else {}


def _beginning(response: Response, file: RemoteFile) -> bytes:
    """The first bytes of a body; refuses at once what no model begins with, such as the page that asks to log in."""
    beginning = response.read(CHUNK)
    if file.is_model and (kind := sniff_bytes(beginning[:512])) in _NEVER:
        name, remedy = KINDS[kind]
        raise FormatError(response.url, f"this is {name}, not a model", remedy)
    return beginning


def _check_room(part: Path, missing: int, keep_free: int) -> None:
    """Raise SaveError unless the disk has room for what is still to come, 5 % of it, and what is to stay free."""
    needed = missing + missing // 20 + (keep_free if missing > SMALL else min(keep_free, SMALL))
    free = shutil.disk_usage(part.parent).free
    if missing and free < needed:
        raise SaveError(
            f"{part.parent}: it takes {needed // MIB + 1:,} MiB with room to spare, and {free // MIB:,} MiB are free",
            "free some space, or choose a folder on another disk; what has arrived is kept",
        )


def _disk_error(part: Path, error: OSError) -> SaveError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else error.strerror or str(error)
    remedy = "free some space and run the command again: it goes on from here" if full else "check the disk"
    return SaveError(f"{part}: could not be written ({reason})", remedy)


class _Pace:
    """Notices a server that sends next to nothing for ever."""

    def __init__(self, within: float, done: int) -> None:
        self._within = within
        self._since, self._done = time.monotonic(), done

    def check(self, url: str, done: int) -> None:
        now = time.monotonic()
        if now - self._since < self._within:
            return
        if done - self._done < SLOWEST * (now - self._since):
            raise Unreachable(
                f"{url}: less than {SLOWEST} bytes a second arrive", "try again later; what is here is kept"
            )
        self._since, self._done = now, done


def _suggested_name(response: Response) -> str:
    """The name that the server gives the file (RFC 6266), else the end of its address; not to be trusted."""
    disposition = email.message.Message()
    disposition["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    try:
        name = disposition.get_filename()
    except (LookupError, UnicodeError, ValueError):
        name = None
    return name or unquote(urlsplit(response.hops[0].url).path.rpartition("/")[2])


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _number(told: str | None) -> int | None:
    return int(told) if told is not None and re.fullmatch("[0-9]{1,18}", told) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _is_text(value: object) -> bool:
    return isinstance(value, str)
