"""A small writer of GGUF files, valid and hostile, for tests: every number in it can be a lie."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, LIST, U64, I64, F64 = range(13)
FORMS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
ALIGNMENT = 32

# Number, elements of a block and bytes of a block of some types, from ggml's documentation.
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A text; `length` is what its length says if not the truth."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def items(kind: int, values: Sequence[object], count: int | None = None) -> bytes:
    """The content of a list of plain values."""
    head = struct.pack("<IQ", kind, len(values) if count is None else count)
    if kind == TEXT:
        return head + b"".join(text(str(value)) for value in values)
    return head + struct.pack(f"<{len(values)}{FORMS[kind]}", *values)


def key(name: str | bytes, kind: int, value: object) -> bytes:
    """One entry of the metadata; bytes are taken as they are."""
    if isinstance(value, bytes):
        raw = value
    elif kind == TEXT:
        raw = text(str(value))
    else:
        raw = struct.pack(f"<{FORMS[kind]}", value)
    return text(name) + struct.pack("<I", kind) + raw


def tensor(name: str | bytes, sizes: Sequence[int], kind: int = 0, offset: int = 0, axes: int | None = None) -> bytes:
    """One entry of the table of tensors; `sizes` as in the file, the shortest step first."""
    head = text(name) + struct.pack("<I", len(sizes) if axes is None else axes)
    return head + struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<IQ", kind, offset)


def file(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = ALIGNMENT,
) -> bytes:
    """A whole file of these parts; `counts` (tensors, keys) is what it claims if not the truth."""
    claimed = (len(tensors), len(keys)) if counts is None else counts
    head = b"GGUF" + struct.pack("<IQQ", version, *claimed) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def model(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], keys: Sequence[bytes] = (), *, architecture: str = "llama"
) -> bytes:
    """A valid file of zeros with tensors of (name, type, shape as torch says it)."""
    table, position = [], 0
    for name, word, shape in tensors:
        number, block, size = TYPES[word]
        table.append(tensor(name, shape[::-1], number, position))
        position += -(-math.prod(shape) // block * size // ALIGNMENT) * ALIGNMENT
    return file([key("general.architecture", TEXT, architecture), *keys], table, bytes(position))
