"""The bytes of one tensor, wherever and however a file keeps them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Literal

from bottega.errors import FormatError
from bottega.formats.header import BYTES_OF_DTYPE, Packed, TensorInfo
from bottega.formats.sniff import unreadable

# Bytes of one element of each dtype whose elements are whole bytes; the last lines are only found in pickles.
BYTES_OF_ELEMENT: dict[str, int] = {
    **{dtype: int(size) for dtype, size in BYTES_OF_DTYPE.items() if size == int(size)},
    "C32": 4, "C64": 8, "C128": 16,
    "F4_X2": 1, "BITS8": 1, "BITS16": 2, "BITS1X8": 1, "BITS2X4": 1, "BITS4X2": 1,
}  # fmt: skip
_COMPLEX = ("C32", "C64", "C128")
_CHUNK = 1 << 20
_LETTERS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def read_bytes(info: TensorInfo) -> bytes:
    """A tensor's elements as safetensors has them: little-endian, one after the other; else they are as they lie."""
    raw = _unpacked(info, info.packed) if info.packed else _stored(info)
    if len(raw) < info.end - info.start:
        raise FormatError(info.file, "it became shorter while it was read", "scan it again")
    if info.strides is not None:
        raw = _gathered(raw, info.shape, info.strides, BYTES_OF_ELEMENT[info.dtype])
    return swapped(raw, info.dtype) if info.big_endian else raw


def swapped(raw: bytes, dtype: str) -> bytes:
    """The same numbers in the other order of bytes."""
    size = BYTES_OF_ELEMENT[dtype] // (2 if dtype in _COMPLEX else 1)
    turned = bytearray(len(raw))
    for index in range(size):
        turned[index::size] = raw[size - 1 - index :: size]
    return bytes(turned)


def inflate(info: TensorInfo, packed: Packed) -> Iterator[bytes]:
    """What a packed stretch of a file holds, in pieces of at most a megabyte, and no byte more than it claims."""
    if packed.way == "picture":
        from bottega.formats import pictured

        content = pictured.numbers(info.file)
        if len(content) != packed.size:
            raise FormatError(info.file, "was changed since its header was read", "scan it again")
        yield from (content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK))
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left, given = packed.end - packed.start, 0
    try:
        with info.file.open("rb") as file:
            file.seek(packed.start)
            while given < packed.size and not inflater.eof:
                source = inflater.unconsumed_tail
                if not source:
                    source = file.read(min(left, _CHUNK))
                    left -= len(source)
                piece = inflater.decompress(source, min(_CHUNK, packed.size - given))
                if not piece and not source:
                    break
                given += len(piece)
                yield piece
    except zlib.error:
        raise FormatError(info.file, "its compressed tensors are damaged", "download it again") from None
    except OSError as error:
        raise unreadable(info.file, error) from error
    if given < packed.size:
        raise FormatError(info.file, "its compressed tensors are shorter than it claims", "download it again")


def _stored(info: TensorInfo) -> bytes:
    try:
        with info.file.open("rb") as file:
            file.seek(info.start)
            return file.read(info.end - info.start)
    except OSError as error:
        raise unreadable(info.file, error) from error


def _unpacked(info: TensorInfo, packed: Packed) -> bytes:
    kept, position = bytearray(), 0
    for piece in inflate(info, packed):
        kept += piece[max(0, info.start - position) : max(0, info.end - position)]
        position += len(piece)
        if position >= info.end:
            break
    return bytes(kept)


def _gathered(raw: bytes, shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bytes:
    """Elements that lie apart, one after the other; `raw` begins with the first of them."""
    if size == 16:  # memoryview knows no such elements: take each for two
        shape, strides, size = (*shape, 2), (*(2 * stride for stride in strides), 1), 8
    axes = [(count, stride) for count, stride in zip(shape, strides, strict=True) if count != 1]
    if not axes:
        return raw[:size]
    elements = memoryview(raw).cast(_LETTERS[size])
    # The longest axis is walked by slices; the axes within it have to be walked too, so it is the last one that counts.
    (count, stride), outer = axes[-1], axes[:-1]
    rows = []
    for place in itertools.product(*(range(0, count * step, step) if step else [0] * count for count, step in outer)):
        first = sum(place)
        row = elements[first : first + (count - 1) * stride + 1 : stride] if stride else elements[first : first + 1]
        rows.append(row.tobytes() if stride else row.tobytes() * count)
    return b"".join(rows)
