"""Pickles put together from opcodes, so that every lie can be told."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
HOOKS = b"ccollections\nOrderedDict\n)R"


def pickle(body: bytes, protocol: int = 2) -> bytes:
    return (b"\x80" + bytes([protocol]) if protocol >= 2 else b"") + body + b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def whole(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def wholes(values: Sequence[int]) -> bytes:
    return row(*map(whole, values))


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *args: bytes) -> bytes:
    return name(module, attribute) + row(*args) + b"R"


def table(items: Mapping[str, bytes] | Sequence[tuple[bytes, bytes]]) -> bytes:
    pairs = [(text(key), value) for key, value in items.items()] if isinstance(items, Mapping) else items
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), whole(count)) + b"Q"


def tensor(
    shape: Sequence[int],
    strides: Sequence[int],
    *,
    key: str = "0",
    stored: int | None = None,
    offset: int = 0,
    kind: str = "FloatStorage",
) -> bytes:
    """A tensor as torch writes it; `stored` is how many numbers its storage is said to have."""
    count = stored if stored is not None else int(shape[0]) if shape else 1
    args = (storage(key, count, kind), whole(offset), wholes(shape), wholes(strides), b"\x89", HOOKS)
    return call("torch._utils", "_rebuild_tensor_v2", *args)


def frame(body: bytes, claimed: int | None = None) -> bytes:
    return b"\x95" + struct.pack("<Q", len(body) if claimed is None else claimed) + body
