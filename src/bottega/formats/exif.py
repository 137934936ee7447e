"""The few EXIF fields in which programs say how a picture was made, and cameras how it was held: read from any TIFF
block, written as A1111 does.

EXIF 2.32, sections 4.6.2 (the structure), 4.6.4 (Orientation) and 4.6.5 (UserComment).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_USER_COMMENT = 0x9286
_EXIF_IFD = 0x8769
_ORIENTATION = 0x0112
_QUARTER_TURNS = range(5, 9)
_NAMES = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software", _USER_COMMENT: "UserComment"}
_BYTE, _ASCII, _SHORT, _LONG, _UNDEFINED = 1, 2, 3, 4, 7


def read(block: bytes) -> dict[str, str]:
    """The texts of an EXIF block by their names; what is out of its bounds is passed over."""
    block = block.removeprefix(b"Exif\0\0")
    order = _order(block)
    if order is None:
        return {}
    texts: dict[str, str] = {}
    pending = [struct.unpack_from(f"{order}I", block, 4)[0]]
    for offset in pending:
        for tag, kind, count, value in _entries(block, order, offset):
            if tag == _EXIF_IFD and len(pending) == 1:  # followed once, so that blocks can't send us in circles
                pending.append(struct.unpack(f"{order}I", value)[0])
            elif tag in _NAMES and kind in (_BYTE, _ASCII, _UNDEFINED):  # Pillow writes comments as bytes
                start = struct.unpack(f"{order}I", value)[0]
                raw = value[:count] if count <= 4 else block[start : start + count]
                text = _user_comment(raw) if tag == _USER_COMMENT else _plain(raw)
                if text:
                    texts[_NAMES[tag]] = text
    return texts


def lies_on_its_side(block: bytes) -> bool:
    """Whether the picture of this EXIF block is upright only after a quarter turn, which swaps its width and height."""
    block = block.removeprefix(b"Exif\0\0")
    order = _order(block)
    if order is None:
        return False
    for tag, kind, _, value in _entries(block, order, struct.unpack_from(f"{order}I", block, 4)[0]):
        if tag == _ORIENTATION and kind == _SHORT:
            (orientation,) = struct.unpack_from(f"{order}H", value)
            return orientation in _QUARTER_TURNS
    return False


def write(user_comment: str) -> bytes:
    """An EXIF block with one field: the comment as UTF-16BE, which A1111 writes and reads whatever the byte order."""
    comment = b"UNICODE\0" + user_comment.encode("utf-16-be")
    first = struct.pack(">HHHII", 1, _EXIF_IFD, _LONG, 1, 26) + bytes(4)  # one entry; no directory follows
    second = struct.pack(">HHHII", 1, _USER_COMMENT, _UNDEFINED, len(comment), 44) + bytes(4)
    return b"MM\0\x2a" + struct.pack(">I", 8) + first + second + comment


def _order(block: bytes) -> str | None:
    """The byte order of a TIFF block; None for what is none."""
    return {b"II": "<", b"MM": ">"}.get(block[:2]) if len(block) >= 8 else None


def _entries(block: bytes, order: str, offset: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, count and the four bytes of value (or its offset) of a directory's entries."""
    if offset + 2 > len(block):
        return
    (count,) = struct.unpack_from(f"{order}H", block, offset)
    for start in range(offset + 2, min(offset + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, length, value = struct.unpack_from(f"{order}HHI4s", block, start)
        yield tag, kind, length, value


def _user_comment(raw: bytes) -> str:
    code, body = raw[:8], raw[8:]
    if code == b"UNICODE\0":
        return _utf16(body)
    return _plain(body if code in (b"ASCII\0\0\0", bytes(8)) else raw)


def _utf16(body: bytes) -> str:
    """UTF-16 in the byte order that makes sense: neither the block's own nor the standard's is reliable."""
    if body[:2] == b"\xfe\xff":
        return body[2:].decode("utf-16-be", "replace").rstrip("\0")
    if body[:2] == b"\xff\xfe":
        return body[2:].decode("utf-16-le", "replace").rstrip("\0")
    # Every `parameters` text has ASCII in it, of which one byte in two is zero: the first in big-endian.
    little = body[1::2].count(0) > body[0::2].count(0)
    return body.decode("utf-16-le" if little else "utf-16-be", "replace").rstrip("\0")


def _plain(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.rstrip("\0 ")
