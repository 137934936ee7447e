"""Reads the numbers of tensors from model files, a block at a time, so that no file is too large.

Files are read, not mapped: pages of a map count as memory of the process, those of the system's cache do not.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable, Generator, Iterator
from math import prod
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from bottega.errors import FormatError
from bottega.formats.gguf import QUANTISED
from bottega.formats.header import BYTES_OF_DTYPE, Packed, TensorInfo
from bottega.formats.sniff import unreadable
from bottega.library.buffers import read_buffer
from bottega.library.unpacked import KEPT, Unpacked
from bottega.spec import Pieces

if TYPE_CHECKING:
    import numpy as np

ELEMENTS = 1 << 19  # of one block: so large that a call costs little, so small that HELD fit in the processor's cache
AHEAD = 2  # blocks that may be in use at once: one, and the next, which is being made or has been
HELD = AHEAD + 1  # pieces of memory in which blocks take turns
MAPPED = 64 << 20  # bytes of a map, which count as memory of the process

Item = TypeVar("Item")


class Reader:
    """Reads tensors; a context manager that closes the files it opened. To be used by one thread at a time.

    A block is overwritten when `HELD` more have been read.
    """

    def __init__(self) -> None:
        self._files: dict[Path, _Open] = {}
        self._unpacked: dict[tuple[Path, Packed], Unpacked] = {}  # the one that was used longest ago comes first
        self._buffers = [bytearray() for _ in range(HELD)]
        self._turn = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        for packed in self._unpacked.values():
            packed.close()
        self._files.clear()
        self._unpacked.clear()

    def blocks(self, pieces: Pieces, elements: int = ELEMENTS) -> Iterator[memoryview]:
        """The little-endian numbers of the pieces, one after the other, `elements` at a time; the last may be fewer."""
        size = int(elements * BYTES_OF_DTYPE[dtype_of(pieces)])
        left = sum(bytes_of(info) for info in pieces)
        sources = (fill for info in pieces for fill in self._sources(info))
        fill = next(sources, None)
        while left:
            block = self._buffer(min(size, left))
            filled = 0
            while filled < len(block) and fill is not None:
                count = fill(block[filled:])
                filled += count
                if not count:
                    fill = next(sources, None)
            left -= len(block)
            yield block

    def _buffer(self, size: int) -> memoryview:
        """The one of the buffers that was used longest ago, or a larger one in its place."""
        self._turn = (self._turn + 1) % HELD
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = read_buffer(size)
        return memoryview(self._buffers[self._turn])[:size]

    def _sources(self, info: TensorInfo) -> Iterator[Callable[[memoryview], int]]:
        """What fills memory with the tensor's bytes, and answers with how many it gave, 0 at its end."""
        packed = self._unpack(info, info.packed) if info.packed else None
        if info.strides is None and not info.big_endian:
            yield self._unpacked_span(info, packed) if packed else self._span(info)
            return
        for slab in gathered(info, packed.whole().fileno() if packed else None):
            yield io.BytesIO(slab).readinto

    def _unpack(self, info: TensorInfo, packed: Packed) -> Unpacked:
        """The stretch that a tensor lies in, which others may lie in too, so that a few are kept."""
        key = info.file, packed
        self._unpacked[key] = self._unpacked.pop(key) if key in self._unpacked else Unpacked(info, packed)
        if len(self._unpacked) > KEPT:
            self._unpacked.pop(next(iter(self._unpacked))).close()
        return self._unpacked[key]

    def _unpacked_span(self, info: TensorInfo, packed: Unpacked) -> Callable[[memoryview], int]:
        at = info.start

        def fill(room: memoryview) -> int:
            nonlocal at
            wanted = min(len(room), info.end - at)
            count = packed.read(at, room[:wanted]) if wanted else 0
            if wanted and not count:
                raise FormatError(info.file, "its compressed tensors are shorter than it claims", "download it again")
            at += count
            return count

        return fill

    def _span(self, info: TensorInfo) -> Callable[[memoryview], int]:
        at = info.start

        def fill(room: memoryview) -> int:
            nonlocal at
            wanted = min(len(room), info.end - at)
            if not wanted:
                return 0
            try:
                if info.file not in self._files:
                    self._files[info.file] = _Open(info.file)
                count = self._files[info.file].read(at, room[:wanted])
            except OSError as error:
                raise unreadable(info.file, error) from error
            if not count:
                raise FormatError(info.file, "became shorter while it was read", "try again when it is complete")
            at += count
            return count

        return fill


class _Open:
    """An open file that knows where it is: most reads go on where the last one ended, and seeking costs a call."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._at = 0

    def read(self, at: int, room: memoryview) -> int:
        """Fill memory from byte `at` on; how many bytes there were."""
        if at != self._at:
            self._file.seek(at)
        count = self._file.readinto(room)
        self._at = at + count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def dtype_of(pieces: Pieces) -> str:
    """The dtype of the pieces; FormatError if they are of several, or quantised."""
    dtypes = {info.dtype for info in pieces}
    (dtype, *others) = sorted(dtypes)
    if others:
        raise FormatError(pieces[0].file, f"parts of one tensor are stored as {dtype} and {others[0]}")
    if dtype not in BYTES_OF_DTYPE:
        raise _not_writable(pieces[0].file, dtype)
    return dtype


def _not_writable(path: Path, dtype: str) -> FormatError:
    if dtype in QUANTISED:
        what = f"it holds tensors that are quantised ({dtype})"
        return FormatError(path, what, "get the model in float16: what quantisation lost can't be brought back")
    return FormatError(path, f"it holds tensors of the dtype {dtype}, which safetensors lacks", "get it in another one")


def shape_of(pieces: Pieces) -> tuple[int, ...]:
    """The shape of the pieces on top of each other."""
    if len(pieces) == 1:
        return pieces[0].shape
    return (sum(info.shape[0] for info in pieces), *pieces[0].shape[1:])


def bytes_of(info: TensorInfo) -> int:
    """How many bytes the numbers of a tensor take, one after the other."""
    return int(prod(info.shape) * BYTES_OF_DTYPE[info.dtype])


def gathered(info: TensorInfo, whole: int | None = None) -> Iterator[memoryview]:
    """The numbers of a tensor that lies scattered or in the other byte order: little-endian, one after another.

    It is read by way of a map of which no more than `MAPPED` bytes are touched before they are given back: of its file,
    or of the open one with the descriptor `whole`, into which it was unpacked.
    """
    import numpy as np

    width = int(BYTES_OF_DTYPE[info.dtype])
    number = np.dtype(f"{'>' if info.big_endian else '<'}u{width}")
    if info.dtype == "C64":  # two numbers, each in its own order
        number = np.dtype(f"{'>' if info.big_endian else '<'}c8")
    if 0 in info.shape:
        return
    content = _mapped(info, whole)
    if len(content) < info.end:
        raise FormatError(info.file, "became shorter while it was read", "try again when it is complete")
    flat = np.frombuffer(content, np.uint8, info.end - info.start, info.start)
    shape = info.shape or (1,)
    if info.strides is None:
        view = flat.view(number).reshape(shape)
    else:
        steps = tuple(step * width for step in info.strides) or (width,)
        view = np.lib.stride_tricks.as_strided(flat[: len(flat) // width * width].view(number), shape, steps)
    for part in _slabs(view):
        slab = np.empty(part.shape, number.newbyteorder("<"))
        for place in _tiles(part):
            slab[place] = part[place]
            if len(flat) > MAPPED and hasattr(mmap, "MADV_DONTNEED"):
                content.madvise(mmap.MADV_DONTNEED)
        yield memoryview(slab.reshape(-1).view(np.uint8))


def _tiles(part: np.ndarray[Any, Any]) -> Iterator[tuple[slice, ...]]:
    """The places of parts of an array each of which touches little of the map, however far apart its rows lie."""
    axis = max(range(part.ndim), key=lambda each: part.strides[each])
    step = max(1, MAPPED // max(1, part.strides[axis]))
    for at in range(0, part.shape[axis], step):
        yield (*[slice(None)] * axis, slice(at, at + step))


def _slabs(view: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Parts of an array, in order, of about a block's elements each, however long its rows are."""
    if view[0].size > ELEMENTS:
        for row in view:
            yield from _slabs(row)
        return
    rows = max(1, ELEMENTS // max(1, view[0].size))
    for at in range(0, len(view), rows):
        yield view[at : at + rows]


def _mapped(info: TensorInfo, whole: int | None) -> mmap.mmap:
    try:
        if whole is not None:
            return mmap.mmap(whole, 0, access=mmap.ACCESS_READ)
        with info.file.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise unreadable(info.file, error) from error


def ahead(items: Generator[Item]) -> Generator[Item]:
    """The items, made by another thread: up to `AHEAD` of them, from the one on that is in use."""
    # Queues in C, as locks that are taken in Python can stay locked for ever when a Ctrl-C comes at the wrong moment.
    ready: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    room: SimpleQueue[bool] = SimpleQueue()

    def make() -> None:
        try:
            while room.get():
                ready.put((next(items),))
        except StopIteration:
            ready.put(None)
        except BaseException as error:  # it is raised where the items are used
            ready.put(error)
        finally:
            items.close()

    for _ in range(AHEAD):
        room.put(True)
    thread = Thread(target=make, name="reader", daemon=True)
    thread.start()
    try:
        while (made := ready.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made[0]
            room.put(True)
    finally:
        room.put(False)
        thread.join()
