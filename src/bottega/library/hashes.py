"""The hashes by which the world knows a model's bytes: computed once, remembered until the bytes change."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import BinaryIO, Protocol

from bottega.errors import FileError
from bottega.formats.sniff import sniff_bytes
from bottega.library.buffers import read_buffer
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import Stamp, file_stamp, folder_files, stamp_of

CHUNK = 4 << 20
AHEAD = 4  # chunks that may be in memory while the slowest hash catches up
_AUTOV1 = range(0x100000, 0x110000)  # the bytes that the oldest of the hashes is of

Told = Callable[[int, int], None]  # (bytes done, bytes in all)


@dataclass(frozen=True)
class Hashes:
    """All hashes of a model's bytes, in hexadecimal digits.

    `sha256` is of the whole file; A1111 and Civitai show its first 10 digits as AutoV2. `autov1`, A1111's old hash, is
    of 64 KiB at the first MiB, and so collides; a file that ends before them has none. `autov3` is of the tensors of a
    safetensors file without its header, so that it outlives an edit of the metadata; None for other formats. `crc32` is
    written in capitals, as Civitai does. A folder has a SHA-256 only (see `hash_model`): the others are names that
    sites give to files, and empty.
    """

    sha256: str
    autov1: str = ""
    autov3: str | None = None
    crc32: str = ""
    blake3: str = ""


def sha256_of(catalog: Catalog, entry: Entry, told: Told = lambda done, total: None) -> Entry:
    """The entry with the SHA-256 of its bytes as they are now, from the catalog where that is still true.

    Only that one is computed: all of them together take three times the work. Raises FileError if the bytes change or
    go meanwhile, OSError if they can't be read.
    """
    with _gone(entry.path):
        if entry.sha256 and entry.stamp == stamp_of(entry.path):
            return entry
        with _alone(entry.path):
            stamp, known = stamp_of(entry.path), catalog.entry(entry.path)
            if known and known.sha256 and known.stamp == entry.stamp == stamp:
                return known  # another thread was quicker
            return keep_hash(catalog, entry, stamp, "sha256", hash_model(entry.path, stamp, told))


def keep_hash(catalog: Catalog, entry: Entry, stamp: Stamp, kind: str, digits: str) -> Entry:
    """The entry with a hash (`sha256`, `blake3`) that was computed since its bytes had this stamp, kept in the catalog.

    Raises FileError if the bytes changed meanwhile, or since they were scanned.
    """
    _check_same(entry, stamp)
    return catalog.keep(entry, {kind: digits})


def hashes_of(catalog: Catalog, entry: Entry, told: Told = lambda done, total: None) -> Entry:
    """The entry with all hashes of its bytes as they are now, from the catalog where those are still true.

    Raises what `sha256_of` raises.
    """
    with _gone(entry.path):
        is_folder = entry.path.is_dir()
        if entry.sha256 and entry.stamp == stamp_of(entry.path) and (entry.blake3 or is_folder):
            return entry
        with _alone(entry.path):
            stamp, known = stamp_of(entry.path), catalog.entry(entry.path)
            if known and known.sha256 and known.stamp == entry.stamp == stamp and (known.blake3 or is_folder):
                return known
            if is_folder:
                hashes = Hashes(hash_model(entry.path, stamp, told))
            else:
                hashes = hash_file_all(entry.path, lambda done: told(done, stamp.size))
            _check_same(entry, stamp)
            return catalog.keep_hashes(entry, hashes)


_guard = Lock()
_hashing: dict[Path, tuple[Lock, int]] = {}  # the models that threads hash or wait for, and how many these are


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no two threads hash one model at the same time: the second one finds what the first has computed."""
    with _guard:
        lock, threads = _hashing.get(path, (Lock(), 0))
        _hashing[path] = lock, threads + 1
    try:
        with lock:
            yield
    finally:
        with _guard:
            lock, threads = _hashing.pop(path)
            if threads > 1:
                _hashing[path] = lock, threads - 1


@contextmanager
def _gone(path: Path) -> Iterator[None]:
    """A model that is not there any more, as the FileError that it is."""
    try:
        yield
    except FileNotFoundError:
        raise FileError(path, "is gone", "put it back, or scan the shelves again") from None


def _check_same(entry: Entry, stamp: Stamp) -> None:
    """FileError unless the bytes that had this stamp before they were read still have it, and had it in the scan."""
    if stamp_of(entry.path) != stamp:
        raise _changed(entry.path)
    if entry.stamp != stamp:
        raise FileError(entry.path, "was changed since it was scanned", "scan the shelves again")


def _changed(path: Path) -> FileError:
    return FileError(path, "was changed while it was read", "try again when it is complete")


def hash_model(path: Path, stamp: Stamp, told: Told = lambda done, total: None) -> str:
    """The SHA-256 of a file, or of a model folder.

    A folder's is that of the lines "name, zero byte, SHA-256 of the file, line feed" of its files, sorted by name.
    """
    if not path.is_dir():
        return hash_file(path, lambda done: told(done, stamp.size))
    hashes: dict[str, str] = {}
    done = 0
    for name, file in folder_files(path):
        hashes[name] = hash_file(file, partial(_from, told, done, stamp.size))
        done += file.stat().st_size
    return folder_sha256(hashes)


def folder_sha256(hashes: Mapping[str, str]) -> str:
    """The SHA-256 of a model folder, of those of its files by their names in it."""
    lines = hashlib.sha256()
    for name, sha256 in sorted(hashes.items()):
        lines.update(os.fsencode(f"{name}\0{sha256}\n"))
    return lines.hexdigest()


def _from(told: Told, before: int, total: int, done: int) -> None:
    told(before + done, total)


def hash_file(path: Path, told: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of one file's bytes."""
    digest = hashlib.sha256()
    _feed(digest, path, told)
    return digest.hexdigest()


def blake3_file(path: Path, told: Callable[[int], None] = lambda done: None) -> str:
    """The BLAKE3 of one file's bytes, in less than half the time of a SHA-256."""
    from blake3 import blake3

    digest = blake3()
    _feed(digest, path, told)
    return digest.hexdigest()


def _feed(digest: _Hash, path: Path, told: Callable[[int], None]) -> None:
    done = 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(read_buffer(min(CHUNK, os.fstat(file.fileno()).st_size)))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            told(done)


def hash_file_all(path: Path, told: Callable[[int], None] = lambda done: None) -> Hashes:
    """All hashes of one file, from one reading of it: near the pace of the slowest of them where cores are free.

    Whatever `told(bytes done)` raises ends it. Raises FileError if the file changes meanwhile.
    """
    from blake3 import blake3

    with path.open("rb", buffering=0) as file:
        before = file_stamp(os.fstat(file.fileno()))
        whole, old, crc, fast = hashlib.sha256(), hashlib.sha256(), _Crc32(), blake3()
        lanes = [_Lane(whole), _Lane(crc), _Lane(fast), _Lane(old, _AUTOV1.start, _AUTOV1.stop)]
        tensors = None
        if (start := _tensors_start(file, before.size)) is not None:
            tensors = hashlib.sha256()
            lanes.append(_Lane(tensors, start))
        with _Lanes(lanes) as feed:
            done = feed.all_of(file, told)
        if done != before.size or file_stamp(os.fstat(file.fileno())) != before:
            raise _changed(path)
    return Hashes(
        sha256=whole.hexdigest(),
        autov1=old.hexdigest()[:8] if done > _AUTOV1.start else "",
        autov3=tensors.hexdigest() if tensors else None,
        crc32=f"{crc.value:08X}",
        blake3=fast.hexdigest(),
    )


def _tensors_start(file: BinaryIO, size: int) -> int | None:
    """Where the tensors of a safetensors file begin; None for any other."""
    head = file.read(512)
    file.seek(0)
    start = 8 + int.from_bytes(head[:8], "little")
    return start if sniff_bytes(head) == "safetensors" and start <= size else None


class _Hash(Protocol):
    """What takes bytes, as hashlib's hashes do."""

    def update(self, data: memoryview, /) -> object: ...


class _Crc32:
    def __init__(self) -> None:
        self.value = 0

    def update(self, data: memoryview, /) -> None:
        self.value = zlib.crc32(data, self.value)


class _Lane:
    """A thread that feeds one hash with those bytes of a file that it is of, in order."""

    def __init__(self, digest: _Hash, start: int = 0, stop: int | None = None) -> None:
        self._digest = digest
        self._start, self._stop = start, stop
        self.todo: SimpleQueue[tuple[int, int, memoryview] | None] = SimpleQueue()

    def work(self, done: SimpleQueue[int | Exception]) -> None:
        """Hash what comes, and tell the number of each buffer that is free again, until None comes."""
        try:
            while (chunk := self.todo.get()) is not None:
                number, position, data = chunk
                first = max(0, self._start - position)
                last = len(data) if self._stop is None else max(0, min(len(data), self._stop - position))
                if first < last:
                    self._digest.update(data[first:last])  # without Python's lock: the others go on meanwhile
                done.put(number)
        except Exception as error:  # handed over to the thread that waits for the buffer
            done.put(error)


class _Lanes:
    """Reads a file into a few buffers in turn, each of which all lanes hash before it is filled again.

    Not concurrent.futures: its locks are taken in Python, and a Ctrl-C at the wrong moment leaves one locked for ever.
    """

    def __init__(self, lanes: list[_Lane]) -> None:
        self._lanes = lanes
        self._done: SimpleQueue[int | Exception] = SimpleQueue()
        self._threads = [Thread(target=lane.work, args=(self._done,), daemon=True) for lane in lanes]
        self._busy = [0] * AHEAD  # lanes that still hash what is in each buffer
        self._buffers = [memoryview(read_buffer(CHUNK)) for _ in range(AHEAD)]

    def __enter__(self) -> _Lanes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for lane in self._lanes:
            lane.todo.put(None)
        for thread in self._threads:
            thread.join()

    def all_of(self, file: BinaryIO, told: Callable[[int], None]) -> int:
        """Hash the file from where it is to its end; the number of its bytes."""
        position = turn = 0
        while True:
            self._wait(turn)
            count = file.readinto(self._buffers[turn])  # type: ignore[attr-defined]
            if not count:
                break
            self._busy[turn] = len(self._lanes)
            for lane in self._lanes:
                lane.todo.put((turn, position, self._buffers[turn][:count]))
            position += count
            turn = (turn + 1) % AHEAD
            told(position)
        for each in range(AHEAD):
            self._wait(each)
        return position

    def _wait(self, turn: int) -> None:
        """Until no lane needs this buffer any more."""
        while self._busy[turn]:
            number = self._done.get()
            if isinstance(number, Exception):
                raise number
            self._busy[number] -= 1
