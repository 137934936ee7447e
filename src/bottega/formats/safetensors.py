"""Safetensors: eight bytes of length, a JSON header, then the tensors' bytes, each byte owned by exactly one tensor.

https://github.com/huggingface/safetensors#format. Reading is stricter than the reference library where it lets a file
mean two things (a key that appears twice) or nothing sensible (10,000 axes), and tells what is wrong with the file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import repeat
from operator import sub
from pathlib import Path
from typing import Any, BinaryIO

from bottega.errors import FormatError
from bottega.formats import strictjson
from bottega.formats.atomic import atomic, write_behind
from bottega.formats.header import BYTES_OF_DTYPE, Header, LaidOut, shown
from bottega.formats.layout import Layout, Row
from bottega.formats.polyglot import other_kind
from bottega.formats.sniff import refusal, sniff, unreadable
from bottega.formats.tensor_bytes import read_bytes

MAX_HEADER = 16 << 20  # the largest real ones stay below 1 MiB; parsing costs some 30 times as much memory
MAX_METADATA = 16 << 20
MAX_TENSORS = 300_000
MAX_RANK = 64
MAX_DIMENSION = 1 << 40
MAX_ELEMENTS = 1 << 48  # that a shape with a zero in it would have without; all others are bounded by their bytes
COUNTED_HEADER = 1 << 20  # of a header that is longer the marks are counted before anything is made of it
MAX_UNEXPLAINED = 100_000  # marks of each kind that no tensor needs: of metadata, and of fields that we don't know
KEPT_LAYOUTS = 64  # real ones take a megabyte, hostile ones three
KEPT_LENGTH = 1 << 19  # characters of the longest that is kept: a LoRA for all of SD XL has 400,000
STRETCH = 32 << 20  # bytes after which the disk is given what was written

_BITS = {dtype: int(size * 8) for dtype, size in BYTES_OF_DTYPE.items()}
_FIELDS = ("dtype", "shape", "data_offsets")
_METADATA = '{"__metadata__":'
_RHYTHM = ((2, ":{"), (3, "dtype"), (4, ":"), (6, ","), (7, "shape"), (9, "data_offsets"))
_MARKS = ((b"[", 2), (b"{", 1), (b":", 4), (b",", 3 + MAX_RANK))  # and how many a tensor may have, outside of texts
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # one that never ends too, so that it is read once
_JSON_SPACE = " \t\r\n"
_DAMAGED = "the file is damaged or was written by a broken tool: download it again"
_MISLEADING = "it was made to mislead: delete it, and get this model from its author"
_CUT = "the download probably stopped halfway: download it again"


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file. Its tensors come in the order of their bytes, which cover the file to its end.

    Every other kind of file is refused by its name; what is unusual but harmless is kept in the header's notes.
    """
    path = Path(path)
    kind = sniff(path)
    if kind != "safetensors":
        raise refusal(path, kind)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                raise FormatError(path, f"its header claims {length:,} bytes, of {MAX_HEADER:,} allowed", _DAMAGED)
            raw = file.read(length)
            other = other_kind(file, size)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(raw) < length:
        raise FormatError(path, f"cut short: only {len(raw):,} of its header's {length:,} bytes are there", _CUT)
    if other:
        raise FormatError(path, f"it is also {other}, in which other programs may find something else", _MISLEADING)
    try:
        metadata, layout = _parse(raw)
    except ValueError as error:
        raise FormatError(path, f"its header is broken: {error}", _DAMAGED) from None
    except MemoryError:
        raise FormatError(path, "its header needs more memory than there is", _DAMAGED) from None
    data, end = 8 + length, sum(layout.dtypes.values())  # the tensors leave no gap
    if missing := max(0, data + end - size):
        there = f"{size:,} of {data + end:,} bytes are there, {missing:,} are missing"
        raise FormatError(path, f"cut short: {there}", _CUT)
    if surplus := size - data - end:
        raise FormatError(path, f"{surplus:,} bytes at its end belong to no tensor", _DAMAGED)
    return Header(
        path,
        "safetensors",
        LaidOut(layout, path, data),
        metadata,
        notes=tuple(_notes(raw, size, layout)),
    )


def read_tensor(header: Header, name: str) -> bytes:
    """The bytes of one tensor, little-endian and one element after the other."""
    info = header.tensors.get(name)
    if info is None:
        raise FormatError(header.path, f"it has no tensor {shown(name)}", "see its header for those that it has")
    return read_bytes(info)


def write(
    path: str | Path,
    tensors: Iterable[tuple[str, str, Sequence[int], bytes | bytearray | memoryview]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write (name, dtype, shape, bytes) to a new file, complete and on disk or not at all.

    Wide dtypes come first, then names in order, as the reference library does: so every tensor begins at a multiple of
    its own element size and a memory map of the file can be used as it is. Equal input gives equal bytes.
    """
    path = Path(path)
    rows = sorted(tensors, key=lambda row: _place_in_file(row[1], row[0]))
    sized = [(name, dtype, shape, memoryview(buffer).nbytes) for name, dtype, shape, buffer in rows]
    header = _packed_header(path, sized, metadata)
    with atomic(path) as file:
        file.write(header)
        for _, _, _, buffer in rows:
            file.write(buffer)


Declared = tuple[str, str, Sequence[int]]  # name, dtype, shape
Contents = Iterable[tuple[str, bytes | bytearray | memoryview]]  # name, and some of its bytes


def file_order(tensors: Iterable[Declared]) -> list[Declared]:
    """Tensors in the order in which `write` and `write_stream` lay their bytes down."""
    return sorted(tensors, key=lambda row: _place_in_file(row[1], row[0]))


def file_size(path: str | Path, tensors: Iterable[Declared], metadata: Mapping[str, str] | None = None) -> int:
    """How many bytes a file of these tensors will have; FormatError if there can be no such file."""
    rows = _sized(file_order(tensors))
    return len(_packed_header(Path(path), rows, metadata)) + sum(size for *_, size in rows)


def write_stream(
    path: str | Path,
    tensors: Iterable[Declared],
    contents: Contents,
    metadata: Mapping[str, str] | None = None,
    *,
    seal: Callable[[], Mapping[str, str]] | None = None,
    arrived: Callable[[Path, int, int], None] = lambda file, start, end: None,
    check: Callable[[Path], None] = lambda written: None,
    settle: Callable[[Path, Path], None] = os.replace,
) -> None:
    """Write a file whose tensors are known, and whose bytes come bit by bit: `write` for what is too large to hold.

    `contents` are (name, bytes) in the order of `file_order`, as many for each tensor as one likes. Meanwhile `arrived`
    is told that the temporary file, whose tensors begin at byte `start`, can be read up to byte `end`. `seal` is asked
    for the final metadata when they are written, which must not take more bytes than the first. Then `check` is given
    the temporary file when all is written, while the disk may still take it in, and raises if it is not what it should
    be; only then `settle` gives it its name.
    """
    path = Path(path)
    rows = _sized(file_order(tensors))
    header = _packed_header(path, rows, metadata)
    with atomic(path, settle) as file:
        file.write(header)
        _pour(file, path, rows, contents, partial(arrived, Path(file.name), len(header)))
        if seal:
            final = _packed_header(path, rows, seal(), len(header))
            if len(final) > len(header):
                raise ValueError(f"{path}: the final header takes {len(final)} bytes, of {len(header)} that it has")
            file.seek(0)
            file.write(final)
        file.flush()
        check(Path(file.name))


def _pour(
    file: BinaryIO, path: Path, rows: Sequence[_Sized], contents: Contents, arrived: Callable[[int], None]
) -> None:
    """Write contents as they come, each where the header says that it is; `arrived` is told up to where they are."""
    wanted = iter([(name, size) for name, _, _, size in rows if size])
    name, missing, sent = "", 0, 0
    for given, chunk in contents:
        count = memoryview(chunk).nbytes
        if not count:
            continue
        if not missing:
            name, missing = next(wanted, ("", 0))
        if given != name or count > missing:
            raise ValueError(f"{path}: {count} bytes of {given!r} came where {missing} of {name!r} are due")
        file.write(chunk)
        missing -= count
        file.flush()
        there = file.tell()
        arrived(there)
        if there - sent >= STRETCH:
            write_behind(file.fileno(), sent, there)
            sent = there
    file.flush()
    arrived(file.tell())
    if missing or next(wanted, None):
        raise ValueError(f"{path}: the contents ended within or before tensors that were declared")


_Sized = tuple[str, str, Sequence[int], int]  # name, dtype, shape, bytes


def _place_in_file(dtype: str, name: str) -> tuple[int, str]:
    return -_BITS.get(dtype, 0), name


def _sized(rows: Iterable[Declared]) -> list[_Sized]:
    return [(name, dtype, shape, math.prod(shape) * _BITS.get(dtype, 0) // 8) for name, dtype, shape in rows]


def _packed_header(path: Path, rows: Iterable[_Sized], metadata: Mapping[str, str] | None, at_least: int = 0) -> bytes:
    """The length, the JSON and its padding, of as many bytes as asked: all that comes before the tensors' bytes."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for name, dtype, shape, size in rows:
        if name in entries or name == "__metadata__":
            raise FormatError(path, f"two tensors are called {shown(name)}", "give each its own name")
        end = position + size
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    try:
        raw = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        _parse(raw)  # never write what we would not read
    except ValueError as error:
        raise FormatError(path, f"this can't be written as safetensors: {error}", "change the tensors") from None
    raw = raw.ljust(at_least - 8)
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _parse(raw: bytes) -> tuple[dict[str, str], Layout]:
    """The metadata and the tensors in the order of their bytes; ValueError says what is wrong."""
    if len(raw) > COUNTED_HEADER:
        _check_marks(raw)
    return _parse_usual(raw) or _parse_any(raw)


def _check_marks(raw: bytes) -> None:
    """ValueError for more lists, objects, keys or items than tensors explain: a list takes 2 bytes here, 60 as such."""
    tensors = min(raw.count(b'"data_offsets"'), MAX_TENSORS)
    limits = [(mark, MAX_UNEXPLAINED + each * tensors) for mark, each in _MARKS]
    if any(raw.count(mark) > limit for mark, limit in limits):  # metadata may be JSON, with marks in texts
        bare, at = bytearray(), 0
        for text in _TEXT.finditer(raw):  # re.sub would keep every piece for a while
            bare += raw[at : text.start()]
            at = text.end()
        bare += raw[at:]
        for mark, limit in limits:
            if (count := bare.count(mark)) > limit:
                raise ValueError(f"it has {count:,} times '{mark.decode()}', of {limit:,} that tensors can need")


def _parse_usual(raw: bytes) -> tuple[dict[str, str], Layout] | None:
    """A sound header exactly as the reference library spells it, at a quarter of the cost; None for any other."""
    try:
        metadata, entries = _split_metadata(raw.decode())
        return metadata, _kept(entries) if len(entries) <= KEPT_LENGTH else _laid_out_usually(entries)
    except (ValueError, IndexError, RecursionError):
        return None


def _laid_out_usually(entries: str) -> Layout:
    """The layout that the text of the tensors' entries spells; ValueError (or IndexError) where it is not as usual.

    Cut at its quotes, `,"NAME":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}` has ten pieces for each tensor.
    Every piece is accounted for, so whatever is accepted here reads the same, letter for letter, in `_parse_any`.
    """
    pieces = f",{entries},".split('"')
    names, places = pieces[1::10], '"'.join(pieces[10::10])
    count, rest = divmod(len(pieces), 10)
    if (
        rest != 1
        or pieces[0] != ","
        or any(pieces[at::10].count(piece) != count for at, piece in _RHYTHM)
        or not (places.startswith(":[") and places.endswith("]},"))
        or places.count(']},":[') != count - 1  # so that there is nothing else between two places
        or {*map(str.count, pieces[10::10], repeat(","))} != {2}
        or "\\" in entries
        or not "".join(names).isprintable()  # JSON escapes control characters
        or len({"__metadata__", *names}) != count + 1
    ):
        raise ValueError("it is not spelled as usual")
    offsets = json.loads(places.replace(']},":[', ",")[1:-2])
    starts, ends = offsets[::2], offsets[1::2]
    spelled = [*zip(pieces[5::10], pieces[8::10], strict=True)]
    kinds = {each: _kind(*each) for each in {*spelled}}
    dtypes, shapes, sizes = zip(*[kinds[each] for each in spelled], strict=True)
    if {*map(type, offsets)} != {int} or (*map(sub, ends, starts),) != sizes:
        raise ValueError("its places are not as long as its tensors")
    if min(starts) < 0 or len(names) > MAX_TENSORS:
        raise ValueError("it is out of bounds")
    return _laid_out([*map(Row, starts, ends, names, dtypes, shapes)])


# Of the layouts that were read last, those of a common length: shelves are full of models that are laid out alike.
# What is wrong raises an error, and so is never kept.
_kept = lru_cache(maxsize=KEPT_LAYOUTS)(_laid_out_usually)


def _split_metadata(text: str) -> tuple[dict[str, str], str]:
    """The metadata, where a header begins with it, and the text of the tensors' entries."""
    metadata: object = {}
    begin = 1
    if text.startswith(_METADATA):
        metadata, begin = strictjson.parse_part(text, len(_METADATA))
        if text[begin] != ",":
            raise ValueError("no tensors follow")
        begin += 1
    end = text.rindex("}")  # a header is large: every copy of its text counts
    if text[0] != "{" or text[end - 1] != "}" or text[end + 1 :].strip(_JSON_SPACE):
        raise ValueError("it is no JSON object of objects")
    return _check_metadata(metadata), text[begin:end]


def _kind(dtype: str, shape: str) -> tuple[str, tuple[int, ...], int]:
    """A tensor's dtype, shape and bytes; `shape` is spelled `:[2,3],`."""
    if not (shape.startswith(":[") and shape.endswith("],")):
        raise ValueError("it is no list")
    sizes = json.loads(shape[1:-1])
    whole, left = divmod(_check_kind(dtype, sizes), 8)
    if left:
        raise ValueError("half a byte")
    return dtype, tuple(sizes), whole


def _parse_any(raw: bytes) -> tuple[dict[str, str], Layout]:
    """The same for any header, entry by entry, with the reason where one is broken."""
    entries = strictjson.parse(raw)
    if not isinstance(entries, dict):
        raise ValueError("it is no JSON object")
    metadata = _check_metadata(entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"{len(entries):,} tensors, of {MAX_TENSORS:,} allowed")
    rows: list[Row] = []
    for name, entry in entries.items():
        try:
            rows.append(_check_entry(name, entry))
        except ValueError as error:
            raise ValueError(f"tensor {shown(name)}: {error}") from None
    return metadata, _laid_out(rows)


def _check_metadata(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ may only hold text")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA:
        raise ValueError(f"__metadata__ is larger than {MAX_METADATA:,} characters")
    return metadata


def _check_entry(name: str, entry: Any) -> Row:
    """One tensor's entry, whose numbers must be whole, in range and agree with each other."""
    if type(entry) is not dict:
        raise ValueError("it is described by no JSON object")
    try:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    except KeyError as missing:
        raise ValueError(f"{missing} is not said") from None
    if len(entry) > len(_FIELDS):
        strictjson.check_depth(entry)  # unknown fields mean nothing to us, but may be deep
    needed = _check_kind(dtype, shape)
    if type(offsets) is not list or len(offsets) != 2:
        raise ValueError("its data_offsets must be two numbers")
    start, end = offsets
    if type(start) is not int or type(end) is not int or not 0 <= start <= end:
        raise ValueError("its data_offsets must be two whole numbers, the smaller first")
    if needed != (end - start) * 8:
        raise ValueError(f"{dtype} {shape} takes {needed / 8:,g} bytes, its offsets span {end - start:,}")
    return Row(start, end, name, dtype, tuple(shape))


def _check_kind(dtype: object, shape: object) -> int:
    """How many bits a tensor of this dtype and shape takes, if there is such a tensor."""
    bits = _BITS.get(dtype) if type(dtype) is str else None
    if bits is None:
        raise ValueError(f"the dtype {shown(str(dtype)[:200])} is unknown")
    if type(shape) is not list or len(shape) > MAX_RANK:
        raise ValueError(f"its shape must be a list of at most {MAX_RANK} sizes")
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_DIMENSION:
            raise ValueError(f"a size in its shape is no whole number from 0 to {MAX_DIMENSION:,}")
    if 0 in shape and math.prod(filter(None, shape)) > MAX_ELEMENTS:
        raise ValueError(f"its shape {shape} is too large, though it has no numbers")
    return math.prod(shape) * bits


def _laid_out(rows: list[Row]) -> Layout:
    """Put tensors in the order of their bytes, and make sure that every byte up to the last belongs to exactly one.

    So there is no room to hide anything, and no second reading.
    """
    rows.sort()
    position = 0
    for start, end, name, _, _ in rows:
        if start != position:
            wrong = "shares bytes with another one" if start < position else f"leaves a gap before byte {start:,}"
            raise ValueError(f"tensor {shown(name)} {wrong}")
        position = end
    return Layout({row.name: row for row in rows})


def _notes(raw: bytes, size: int, layout: Layout) -> Iterable[str]:
    if raw[:1] != b"{":
        yield "white space before the header, which the format does not allow"
    if len(raw) > 1 << 20 and len(raw) * 10 > size:
        yield f"an unusually large header: {len(raw):,} of {size:,} bytes"
    if not layout.rows:
        yield "no tensors"
