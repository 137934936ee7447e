"""Archives in which every field can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from hostile.opcodes import MAGIC, pickle, table, text, whole


@dataclass(frozen=True)
class Entry:
    """One member; what is None is told truthfully."""

    name: str
    data: bytes = b""
    local_name: str | None = None
    crc: int | None = None
    flags: int = 0
    method: int = 0
    attributes: int = 0
    size: int | None = None
    place: int | None = None
    extra: bytes = field(default=b"", repr=False)
    local_extra: bytes = b""

    @property
    def packed(self) -> bytes:
        if self.method != 8:
            return self.data
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()


def archive(
    entries: Sequence[Entry],
    *,
    before: bytes = b"",
    inside: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    """A zip archive; `before`, `inside` (before its end) and `after` are what does not belong to it."""
    body, directory = bytearray(before), bytearray()
    for entry in entries:
        packed = entry.packed
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        raw, local = entry.name.encode(), (entry.local_name or entry.name).encode()
        sizes = (crc, len(packed), min(size, 0xFFFFFFFF))
        place = len(body) if entry.place is None else entry.place
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, entry.flags, entry.method, 0, 33, *sizes, len(local),
                            len(entry.local_extra))  # fmt: skip
        body += local + entry.local_extra + packed
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 3 << 8, 20, entry.flags, entry.method, 0, 33, *sizes, len(raw), len(entry.extra),
            0, 0, 0, entry.attributes << 16, place,
        )  # fmt: skip
        directory += raw + entry.extra
    count = len(entries)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory) + inside + end + comment + after


def members(data: bytes, storages: Sequence[bytes] = (), prefix: str = "archive", **lies: object) -> list[Entry]:
    """What torch puts into a checkpoint's archive; `lies` are told of its pickle."""
    return [
        Entry(f"{prefix}/data.pkl", data, **lies),  # type: ignore[arg-type]
        Entry(f"{prefix}/byteorder", b"little"),
        *(Entry(f"{prefix}/data/{key}", raw) for key, raw in enumerate(storages)),
        Entry(f"{prefix}/version", b"3\n"),
    ]


def checkpoint(data: bytes, *storages: bytes, **lies: object) -> bytes:
    return archive(members(data, storages, **lies))


def legacy(root: bytes, storages: Sequence[tuple[int, bytes]] = (), *, magic: bytes = MAGIC, **parts: bytes) -> bytes:
    """torch's format before archives: stacked pickles and then (number, bytes) of each storage."""
    info = table({"protocol_version": whole(1001), "little_endian": b"\x88", "type_sizes": b"}"})
    keys = b"](" + b"".join(text(str(index)) for index in range(len(storages))) + b"e"
    stacked = [magic, parts.get("version", whole(1001)), parts.get("info", info), root, parts.get("keys", keys)]
    body = b"".join(map(pickle, stacked))
    return body + b"".join(struct.pack("<q", count) + raw for count, raw in storages)


def tar_block(name: str, data: bytes, *, magic: bytes = b"ustar\x0000") -> bytes:
    """The header of a file in a tar archive, with the checksum that it needs; the file's bytes are to follow."""
    block = bytearray(512)
    block[: len(name)] = name.encode("latin-1")
    block[100:108], block[124:136], block[156:157] = b"0000644\0", b"%011o\0" % len(data), b"0"
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
