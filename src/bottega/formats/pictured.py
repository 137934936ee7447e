"""Embeddings that stable-diffusion-webui keeps in pictures: in a text of a PNG, and in the pixels at both of its sides.

The text `sd-ti-embedding` is base64 of JSON: the dictionary of a `.pt`, with `{"TORCHTENSOR": [[...]]}` for a tensor.
The same JSON, deflated, lies in the lower four bits of the columns left and right of the picture, each set apart by a
black column: the lower halves of its bytes on the left, the upper ones on the right, both XORed with the numbers of a
linear congruential generator. So it outlives a site that drops texts, but no lossy compression.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import warnings
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bottega.errors import FormatError
from bottega.formats import strictjson
from bottega.formats.header import Header, Packed, TensorInfo
from bottega.formats.media import PILLOW_ERRORS
from bottega.formats.sniff import open_regular, unreadable

if TYPE_CHECKING:
    import numpy as np

_KEYWORD = b"sd-ti-embedding"
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
_MAX_TEXT = 48 << 20  # of base64: 1,024 vectors of SD XL's larger text encoder
_MAX_JSON = 36 << 20
_MAX_LISTS = 20_000  # in it: 1,024 vectors of 16 words, and some more
_MAX_KEYS = 20_000  # a dozen, and colons in texts
_MAX_NUMBERS = 3_000_000  # 1,024 vectors of 1,280 numbers twice; each takes some 20 characters
_MAX_PIXELS = 16 << 20
_MAX_FILE = 64 << 20
_MAX_VECTORS, _MAX_WIDTH = 1024, 16_384
_AGAIN = "get it again from where it came from, as it is: pictures that were changed lose it"
_MULTIPLIER, _INCREMENT, _MODULUS = 1_664_525, 1_013_904_223, 1 << 32
_TOLD = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")


def read_header(path: Path) -> Header | None:
    """The embedding that a PNG or WebP picture holds; None for any other picture. FormatError if it is damaged."""
    told = _told(path)
    if told is None:
        return None
    words = {name: _rows(path, content) for name, content in _params(path, told).items()}
    size = sum(4 * len(rows) * len(rows[0]) for rows in words.values())
    packed = Packed(0, 0, size, "picture")  # it lies all over the file
    tensors, at = {}, 0
    for name, rows in words.items():
        end = at + 4 * len(rows) * len(rows[0])
        shape = len(rows), len(rows[0])
        tensors[f"string_to_param.{name}"] = TensorInfo("F32", shape, path, at, end, packed=packed)
        at = end
    metadata = {name: str(told[name]) for name in _TOLD if isinstance(told.get(name), str | int)}
    return Header(path, "picture", tensors, metadata)


def is_likely(path: Path) -> bool:
    """Whether a picture may hold an embedding, without decoding it: it says so, or is a WebP without loss.

    One whose text a site took away is not likely: all pictures would have to be decoded to find it. OSError if the file
    can't be read.
    """
    with open_regular(path) as file:
        if file.read(len(_PNG)) == _PNG:
            return _text(file) is not None
        return _is_exact(file)


def numbers(path: Path) -> bytes:
    """All numbers of the embedding in a picture, in the order of its header, in little-endian float32."""
    told = _told(path)
    if told is None:
        raise FormatError(path, "holds no embedding any more", "scan it again")
    made = array("f")
    for content in _params(path, told).values():
        for row in _rows(path, content):
            made.extend(row)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        made.byteswap()
    return made.tobytes()


# --- from the file to what it says -----------------------------------------------------------------------------------


def _told(path: Path) -> Mapping[str, object] | None:
    try:
        with path.open("rb") as file:
            text = _text(file) if file.read(len(_PNG)) == _PNG else None
            hidden = _in_pixels(path) if text is None and _is_exact(file) else None
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        raw = base64.b64decode(text, validate=True) if text is not None else hidden
        if raw is not None and raw.count(b"[") + raw.count(b"{") > _MAX_LISTS:
            raise ValueError("it has too many lists")
        if raw is not None and (raw.count(b":") > _MAX_KEYS or raw.count(b",") > _MAX_NUMBERS):
            raise ValueError("it has too many keys or numbers")
        told = strictjson.parse(raw) if raw is not None else None
    except (binascii.Error, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if told is not None and not isinstance(told, dict):
        raise _damaged(path, "it is no JSON object")
    return told


def _text(file: BinaryIO) -> bytes | None:
    """What the PNG says under the keyword, of tEXt chunks, as that program writes them."""
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return None
        end = file.tell() + length + 4
        if kind == b"tEXt" and len(_KEYWORD) < length <= _MAX_TEXT and file.read(len(_KEYWORD) + 1) == _KEYWORD + b"\0":
            return file.read(length - len(_KEYWORD) - 1)
        file.seek(end)
    return None


def _is_exact(file: BinaryIO) -> bool:
    """Whether it is a picture whose colours are kept as they were: a PNG of 8 bits each, or a WebP without loss."""
    file.seek(0)
    head = file.read(26)
    if head.startswith(_PNG):
        length, kind, width, height, depth, colours = struct.unpack(">I4sIIBB", head[8:].ljust(18, b"\0"))
        return (length, kind, depth) == (13, b"IHDR", 8) and colours in (2, 6) and 0 < width * height <= _MAX_PIXELS
    if not head.startswith(b"RIFF") or head[8:12] != b"WEBP":
        return False
    file.seek(12)
    for _ in range(_MAX_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8 or chunk[:4] == b"VP8L":
            return chunk[:4] == b"VP8L"
        file.seek(int.from_bytes(chunk[4:], "little") + 1 & ~1, 1)
    return False


def _in_pixels(path: Path) -> bytes | None:
    """The JSON in the sides of a picture; None if there is none, which all but a few pictures are."""
    import numpy as np

    pixels = _pixels(path)
    if pixels is None:
        return None
    lit = (pixels > 0).all(axis=2)
    if not lit.any():
        return None
    (rows,), (columns,) = lit.any(axis=1).nonzero(), lit.any(axis=0).nonzero()
    low = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 15
    (dark,) = (~low.any(axis=(0, 2))).nonzero()
    if len(dark) < 2:
        return None
    left, right = low[:, : dark[0]], low[:, dark[-1] + 1 :]
    if left.shape != right.shape or not left.size:
        return None
    secret = _secret(left.size).reshape(left.shape)
    packed = np.ascontiguousarray((right ^ secret) << 4 | (left ^ secret)).tobytes()
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, _MAX_JSON)
    except zlib.error:
        return None  # a picture with a dark frame
    return raw if inflater.eof else None


def _pixels(path: Path) -> np.ndarray | None:
    """The picture as (height, width, 3); None for one that is too large for this, or damaged."""
    import numpy as np
    from PIL import Image

    if path.stat().st_size > _MAX_FILE:
        return None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG", "WEBP"]) as picture:
            if math.prod(picture.size) > _MAX_PIXELS:
                return None
            pixels: np.ndarray = np.asarray(picture.convert("RGB"))
    except (*PILLOW_ERRORS, Image.DecompressionBombError):
        return None
    return pixels


def _secret(count: int) -> np.ndarray:
    """The lower four bits of the generator's first numbers, modulo 255. Each pass doubles how many there are."""
    import numpy as np

    found = np.array([_INCREMENT], np.uint64)  # the seed is 0
    multiplier, increment = _MULTIPLIER, _INCREMENT
    while len(found) < count:
        following = (found * np.uint64(multiplier) + np.uint64(increment)) % np.uint64(_MODULUS)
        found = np.concatenate([found, following])
        multiplier, increment = multiplier * multiplier % _MODULUS, (multiplier + 1) * increment % _MODULUS
    secret: np.ndarray = (found[:count] % np.uint64(255)).astype(np.uint8) & 15
    return secret


# --- from what it says to vectors ------------------------------------------------------------------------------------


def _params(path: Path, told: Mapping[str, object]) -> Mapping[str, object]:
    params = told.get("string_to_param")
    if not isinstance(params, dict) or not 0 < len(params) <= 16:
        raise _damaged(path, "it names no vectors")
    return params


def _rows(path: Path, content: object) -> list[list[float]]:
    """The vectors of one word, all of one width and of finite numbers."""
    rows = content.get("TORCHTENSOR") if isinstance(content, dict) else None
    if (
        not isinstance(rows, list)
        or not 0 < len(rows) <= _MAX_VECTORS
        or not all(isinstance(row, list) for row in rows)
    ):
        raise _damaged(path, "its vectors are no lists")
    width = len(rows[0])
    if not 0 < width <= _MAX_WIDTH or any(len(row) != width for row in rows):
        raise _damaged(path, "its vectors are not of one width")
    for row in rows:
        for number in row:
            if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= 3.4e38:
                raise _damaged(path, "a vector holds what is no number")
    return rows


def _damaged(path: Path, why: str) -> FormatError:
    return FormatError(path, f"the embedding in this picture is damaged ({why})", _AGAIN)
