"""The zip archives in which torch keeps checkpoints, read so strictly that every other program sees the same members.

PKWARE's APPNOTE.TXT 6.3.10. The central directory counts; each local header must agree with it, nothing may overlap or
be there twice, and nothing may lie before or after the archive.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple

from bottega.formats.pickled.values import Broken, CutShort

MAX_MEMBERS = 150_000
MAX_DIRECTORY = 24 << 20
# Of names with accents, one by one and together: to normalise one takes time that grows with the square of its length.
MAX_NAME = 512
MAX_ACCENTED = 4 << 20
MAX_COMMENT = 65_535
# All zeros shrink to a thousandth; no model's numbers do.
MAX_RATIO = 200
FREE_INFLATION = 64 << 20

_END, _END64, _LOCATOR64 = Struct("<4s4H2IH"), Struct("<4sQ2H2I4Q"), Struct("<4sIQI")
# Of the fields of a member's two headers, those that matter: versions, times, and what the other header says, don't.
_CENTRAL, _LOCAL = Struct("<4s4x2H4x3I4H2x2I"), Struct("<4s2x2H16x2H")
_FIELD = Struct("<2sH")  # what an extra field is, and how many bytes follow
_LARGE, _PADDING = b"\1\0", b"FB"  # extra fields that torch writes: large sizes, and what aligns a storage
_MAX_STAMP = 32  # bytes
_STAMPS = (b"UT", b"ux", b"UX", b"\n\0")  # and those of programs that pack: times and owners
_MAX_FIELDS = 8  # of one member
_ALL_ONES = 0xFFFFFFFF
_FLAGS = 0x0001 | 0x0020 | 0x0040 | 0x2000  # encrypted, patched, strongly encrypted, masked
_STORED, _DEFLATED = 0, 8
_KIND = 0o170000 << 16  # where the directory keeps what Unix says of a file
_KINDS = frozenset(kind << 16 for kind in (0, stat.S_IFREG, stat.S_IFDIR))
_pread = getattr(os, "pread", None)
_MAX_DESCRIPTOR = 24  # sizes and checksum, which may follow a member's bytes


class Member(NamedTuple):
    """One file of an archive: its bytes lie from `start` to `end`, deflated or as they are; `size` is theirs unpacked.

    `crc` is what the directory claims, 0 if it may not have been computed.
    """

    name: str
    start: int
    end: int
    size: int
    deflated: bool
    crc: int


class Archive(NamedTuple):
    """An archive: what its directory lists, in its order and with folders; its files by name; and whether there is more
    in it than torch writes into one: comments, or extra fields that are neither sizes nor padding."""

    names: list[str]
    members: dict[str, Member]
    embellished: bool


def read_archive(file: BinaryIO, size: int) -> Archive:
    """The archive that `file` (of `size` bytes) is; Broken if anything in it is ambiguous."""
    directory, count, first, comment = _directory(file, size)
    entries, embellished = _entries(directory, count)
    embellished |= comment > 0
    names = _names([raw_name for _, raw_name, *_ in entries])
    members: dict[str, Member] = {}
    position = gap = 0
    for (offset, raw_name, packed, unpacked, method, crc), name in sorted(zip(entries, names, strict=True)):
        if not position <= offset <= position + gap:
            raise Broken("bytes of it belong to no member" if offset > position else "two of its members overlap")
        # The member's own header, which must say the same as the directory; no call, because there are many of them.
        name_end = _LOCAL.size + len(raw_name)
        header = read_at(file, offset, name_end + _FIELD.size)  # these bytes are there: the directory follows
        magic, flags, own_method, name_length, extra_length = _LOCAL.unpack_from(header)
        if magic != b"PK\3\4" or name_length != len(raw_name) or header[_LOCAL.size : name_end] != raw_name:
            raise Broken("a member has two names: another one in its directory than where it lies")
        if own_method != method or flags & _FLAGS:
            raise Broken("a member is packed otherwise than its directory says")
        start = offset + name_end + extra_length
        if extra_length and _FIELD.unpack_from(header, name_end) != (_PADDING, extra_length - _FIELD.size):
            embellished |= not _is_usual(read_at(file, offset + name_end, extra_length))
        position, gap = start + packed, _MAX_DESCRIPTOR
        if position > first:
            raise Broken("a member reaches into its directory")
        if name[-1] != "/":
            members[name] = Member(name, start, position, unpacked, method == _DEFLATED, crc)
        elif unpacked:
            raise Broken("a folder in it has content")
    if first > position + _MAX_DESCRIPTOR:
        raise Broken("bytes of it belong to no member")
    _check_inflation(members.values())
    return Archive(names, members, embellished)


def unpack(file: BinaryIO, member: Member, limit: int) -> bytes:
    """The bytes of one member; Broken if they are more than `limit`."""
    if member.size > limit:
        raise Broken(f"its member {member.name!a} claims {member.size:,} bytes, of {limit:,} allowed")
    raw = read_at(file, member.start, member.end - member.start)
    if not member.deflated:
        return raw
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = inflater.decompress(raw, member.size + 1)
    except zlib.error:
        raise Broken(f"its member {member.name!a} can't be unpacked") from None
    if len(unpacked) != member.size or not inflater.eof or inflater.unused_data:
        raise Broken(f"its member {member.name!a} unpacks to another size than it claims")
    return unpacked


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Exactly `count` bytes; Broken if the file ends before."""
    raw = _pread(file.fileno(), count, start) if _pread else b""  # a third faster; Windows has none
    if len(raw) < count:
        file.seek(start)
        raw = file.read(count)
    if len(raw) < count:
        raise CutShort("it ends before its storages do")
    return raw


# --- the directory ---------------------------------------------------------------------------------------------------


def _directory(file: BinaryIO, size: int) -> tuple[bytes, int, int, int]:
    """The central directory, how many members it lists, where it begins, and the length of the archive's comment."""
    tail_at = max(0, size - _END.size - MAX_COMMENT)
    tail = read_at(file, tail_at, size - tail_at)
    found = tail.rfind(b"PK\5\6")
    if found < 0:
        raise CutShort("the end of the archive is missing")
    end_at = tail_at + found
    if size - end_at < _END.size:
        raise CutShort("the end of the archive is missing")
    _, disk, first_disk, here, count, length, first, comment = _END.unpack_from(tail, found)
    if end_at + _END.size + comment != size:
        surplus = size - end_at - _END.size - comment
        if surplus < 0:
            raise CutShort("the end of the archive is missing")
        raise Broken(f"{surplus:,} bytes follow its end")
    directory_end = end_at
    if end_at >= _LOCATOR64.size:
        locator = read_at(file, end_at - _LOCATOR64.size, _LOCATOR64.size)
        if locator.startswith(b"PK\6\7"):
            small = (here, count, length, first)
            large, directory_end = _directory64(file, locator, end_at - _LOCATOR64.size)
            if any(old not in (new, 0xFFFF, _ALL_ONES) for old, new in zip(small, large, strict=True)):
                raise Broken("its two directories contradict each other")
            here, count, length, first = large
    if disk or first_disk or here != count:
        raise Broken("it is one part of several")
    if first + length != directory_end:
        raise Broken("its directory is not where it should be: something was put before or into it")
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise Broken(f"it has {count:,} members, of {MAX_MEMBERS:,} allowed")
    return read_at(file, first, length), count, first, comment


def _directory64(file: BinaryIO, locator: bytes, locator_at: int) -> tuple[tuple[int, int, int, int], int]:
    """Members here and in all, length and place of the directory, and its end, as the large form of the end says."""
    _, disk, at, disks = _LOCATOR64.unpack(locator)
    if disk or disks != 1 or at + _END64.size > locator_at:
        raise Broken("the end of its directory is not where it should be")
    magic, length, _, _, disk, first_disk, here, count, size, first = _END64.unpack(read_at(file, at, _END64.size))
    if magic != b"PK\6\6" or disk or first_disk or at + 12 + length != locator_at:
        raise Broken("the end of its directory is damaged")
    return (here, count, size, first), at


_Entry = tuple[int, bytes, int, int, int, int]  # offset, name, packed and unpacked size, method, crc


def _entries(directory: bytes, count: int) -> tuple[list[_Entry], bool]:
    """What the directory says of each member, and whether it says more than torch does."""
    entries = []
    embellished = False
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise Broken(f"its directory ends before the last of the {count:,} members that it claims")
        (magic, flags, method, crc, packed, unpacked, name_length, extra_length, comment_length, disk, attributes,
         offset) = _CENTRAL.unpack_from(directory, at)  # fmt: skip
        at += _CENTRAL.size
        name_end = at + name_length
        raw_name = directory[at:name_end]
        at = name_end + extra_length + comment_length
        if magic != b"PK\1\2" or at > len(directory):
            raise Broken("its directory is damaged")
        if extra_length or comment_length:
            extra = directory[name_end : name_end + extra_length]
            embellished |= comment_length > 0 or not _is_usual(extra)
            if packed == _ALL_ONES or unpacked == _ALL_ONES or offset == _ALL_ONES:
                unpacked, packed, offset = _large(extra, unpacked, packed, offset)
        if flags & _FLAGS:
            raise Broken(f"its member {_text(raw_name)!a} is encrypted, or says so")
        if method != _STORED and method != _DEFLATED:
            raise Broken(f"its member {_text(raw_name)!a} is compressed in a way that torch does not know")
        if disk or attributes & _KIND not in _KINDS:
            raise Broken(f"its member {_text(raw_name)!a} is a link, or no file")
        if method == _STORED and packed != unpacked:
            raise Broken(f"its member {_text(raw_name)!a} has two sizes")
        entries.append((offset, raw_name, packed, unpacked, method, crc))
    if at != len(directory):
        raise Broken("its directory is longer than its members")
    return entries, embellished


def _large(extra: bytes, unpacked: int, packed: int, offset: int) -> list[int]:
    """Sizes and offset, those that don't fit into 32 bits from the extra field that is for them."""
    for kind, body in _fields(extra):
        if kind == _LARGE:
            told = iter([int.from_bytes(body[index : index + 8], "little") for index in range(0, len(body) - 7, 8)])
            return [next(told, value) if value == _ALL_ONES else value for value in (unpacked, packed, offset)]
    return [unpacked, packed, offset]


def _is_usual(extra: bytes) -> bool:
    """Whether torch may have written a member's extra fields, or a program that packed its archive anew."""
    return all(
        kind in (_LARGE, _PADDING) or (kind in _STAMPS and len(body) <= _MAX_STAMP) for kind, body in _fields(extra)
    )


def _fields(extra: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each extra field of a member."""
    at = 0
    for _ in range(_MAX_FIELDS):
        if at + _FIELD.size > len(extra):
            return
        kind, length = _FIELD.unpack_from(extra, at)
        at += _FIELD.size
        yield kind, extra[at : at + length]
        at += length
    raise Broken("a member has too many extra fields")


# --- limits ----------------------------------------------------------------------------------------------------------


# A path that is absolute, has a drive, or a part that is empty, `.` or `..`; and separators of another system.
_LEADS_OUT = re.compile(rb"^/|^.?:|//|\\|\0|(?:^|/)\.{1,2}(?:/|$)|^$", re.DOTALL)
# Where none of these is in a path that all names together make, no name leads out.
_PERHAPS_LEADS_OUT = (b"//", b"/./", b"/../", b":", b"\\")


def _names(raw_names: list[bytes]) -> list[str]:
    """The names as text, none of which leads out of the folder that the archive is unpacked to, or is there twice.

    Two names are the same if file systems that take capitals for small letters, or two spellings of an accent for one,
    say so. The names of most archives are plain, and looked at all together.
    """
    together = b"\0".join(raw_names)
    path = b"/%b/" % together.replace(b"\0", b"/")
    if together.count(b"\0") >= len(raw_names) or any(piece in path for piece in _PERHAPS_LEADS_OUT):
        for raw_name in raw_names:
            if _LEADS_OUT.search(raw_name):
                raise Broken(f"its member {ascii(raw_name)[1:120]} would be unpacked outside of its folder")
    elif together.isascii():
        text = together.decode("ascii")
        if len(raw_names) == len(set(text.lower().split("\0"))):
            return text.split("\0")
    accented = [len(raw_name) for raw_name in raw_names if not raw_name.isascii()]
    if accented and (max(accented) > MAX_NAME or sum(accented) > MAX_ACCENTED):
        raise Broken("the names of its members are too long")
    names = [_text(raw_name) for raw_name in raw_names]
    seen: set[str] = set()
    for name in names:
        same = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        if same in seen:
            raise Broken(f"two of its members are called {ascii(name)[:120]}")
        seen.add(same)
    return names


def _text(raw_name: bytes) -> str:
    try:
        return raw_name.decode("utf-8")
    except UnicodeDecodeError:
        return raw_name.decode("cp437")


def _check_inflation(members: Iterable[Member]) -> None:
    deflated = [member for member in members if member.deflated]
    packed, unpacked = sum(each.end - each.start for each in deflated), sum(each.size for each in deflated)
    if unpacked > FREE_INFLATION and unpacked > MAX_RATIO * packed:
        raise Broken(f"a bomb: {packed:,} bytes in it would unpack to {unpacked:,}")
