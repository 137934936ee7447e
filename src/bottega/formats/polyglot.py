"""What else a model file may be to other programs: a zip or tar archive, or a pickle, beside what its beginning says.

torch.load goes by the content alone: it tries whatever has the name of a model as a zip archive, a tar archive and a
pickle. What an unpickler would do with an honest file's first bytes ends after one or two of them, so that the look for
a pickle is hardly ever longer. It follows opcodes without doing them, farther than any unpickler would come.
"""

from __future__ import annotations

import errno
import io
import os
from typing import BinaryIO

_TAR_BLOCK = 512
_ZIP_END = 22  # bytes at the end of a zip archive, before its comment
_MAX_COMMENT = 65_535
_ZIP_LOCATOR = 20  # bytes before that end, in large archives

# The opcodes of pickles by what follows them. Those of protocol 0 take lines; numbers in them may be followed by a zero
# byte and anything, so that all lines are taken.
_FIXED = {
    **dict.fromkeys(b"(.012NQRabdeotu)]}sl\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x94\x97\x98", 0),
    **dict.fromkeys(b"Khq\x80\x82", 1), **dict.fromkeys(b"M\x83", 2), **dict.fromkeys(b"Jjr\x84", 4), ord("G"): 8,
}  # fmt: skip
_LINES = frozenset(b"FILPSVgp")
_COUNTED = {**dict.fromkeys(b"UC\x8a\x8c", 1), **dict.fromkeys(b"TXB\x8b", 4), **dict.fromkeys(b"\x8d\x8e\x96", 8)}
_TEXTS = frozenset(b"SVUTX\x8c\x8d")
_GLOBAL, _INST, _STACK_GLOBAL, _FRAME, _STRING = b"ci\x93\x95S"
_MAX_OPCODES = 10_000  # of what is no pickle, nothing like as many follow each other
_MAX_FRAME = 1 << 40  # bytes; no unpickler has room for more
_PIECE = 64 << 10  # bytes of a line or text that are looked at


def other_kind(file: BinaryIO, size: int) -> str:
    """What else other programs may take a safetensors or GGUF file of `size` bytes for, or nothing."""
    return other_archive(file, size) or ("a pickle" if _is_pickle(file, size) else "")


def other_archive(file: BinaryIO, size: int) -> str:
    """The archive that other programs may take a file for: torch's oldest reader tries tar before all else."""
    if _ends_a_zip(file, size):
        return "a zip archive"
    file.seek(0)
    block = file.read(_TAR_BLOCK)
    return "a tar archive" if len(block) == _TAR_BLOCK and _begins_a_tar(block) else ""


def _ends_a_zip(file: BinaryIO, size: int) -> bool:
    """Whether there is the end of a zip archive that leads to a directory; four bytes of it are in many a tensor."""
    tail_at = max(0, size - _ZIP_END - _MAX_COMMENT)
    file.seek(tail_at)
    tail = file.read(size - tail_at)
    found = tail.rfind(b"PK\5\6")
    while found >= 0:
        end = tail[found : found + _ZIP_END]
        if tail[max(0, found - _ZIP_LOCATOR) :].startswith(b"PK\6\7"):
            return True
        length, first = int.from_bytes(end[12:16], "little"), int.from_bytes(end[16:20], "little")
        for directory in (first, tail_at + found - length):  # the latter where something was put before the archive
            if 0 <= directory < size:
                file.seek(directory)
                if file.read(4) == b"PK\1\2":
                    return True
        found = tail.rfind(b"PK\5\6", 0, found)
    return False


def _begins_a_tar(block: bytes) -> bool:
    """Whether Python's tarfile takes a file's first block for a header of its own: it goes by the checksum alone."""
    if block[257:262] == b"ustar":
        return True
    field = block[148:156]
    if field[0] in (0o200, 0o377):
        told = int.from_bytes(field[1:], "big") - (256**7 if field[0] == 0o377 else 0)
    else:
        try:
            told = int(field.partition(b"\0")[0].decode("ascii").strip() or "0", 8)
        except ValueError:
            return False
    counted = block[:148] + b" " * 8 + block[156:]  # the checksum's own field counts as spaces
    unsigned = sum(counted)
    return told in (unsigned, unsigned - 256 * sum(byte > 127 for byte in counted))


def _is_pickle(file: BinaryIO, size: int) -> bool:
    """Whether an unpickler that begins at a file's first byte may come to what would import something.

    Without that a pickle is harmless; and what is written like no name can't be imported, so that an honest file's
    bytes are no pickle even where its header's length happens to begin like one.
    """
    file.seek(0)
    named = False  # whether a text was there that STACK_GLOBAL could take for a module's name
    for _ in range(_MAX_OPCODES):
        byte = file.read(1)
        if not byte:
            return False
        code = byte[0]
        if (count := _FIXED.get(code)) is not None:
            file.seek(count, io.SEEK_CUR)
        elif code in _LINES:
            line = _line(file)
            named |= code in _TEXTS and _is_name_in_line(code, line)
        elif (width := _COUNTED.get(code)) is not None:
            count = int.from_bytes(file.read(width), "little")
            if count > size - file.tell():
                return False
            end = file.tell() + count
            piece = file.read(min(count, _PIECE))
            named |= code in _TEXTS and _is_name(piece)
            file.seek(end)
        elif code in (_GLOBAL, _INST):
            module, name = _line(file), _line(file)
            if _is_name(module) and _is_name(name):
                return True
        elif code == _STACK_GLOBAL:
            if named:
                return True
        elif code == _FRAME:  # unpicklers differ in what they do where its end is not that of an opcode
            return int.from_bytes(file.read(8), "little") < _MAX_FRAME
        else:
            return False
    return True


def _line(file: BinaryIO) -> bytes:
    """The beginning of the line that follows, which is read to its end."""
    line = piece = file.readline(_PIECE)
    while piece and not piece.endswith(b"\n"):
        _skip_hole(file)
        piece = file.readline(_PIECE)
    return line.removesuffix(b"\n")


def _skip_hole(file: BinaryIO) -> None:
    """Go to the next bytes that a sparse file holds: the zeros before them, of which there may be terabytes, end no
    line."""
    if not hasattr(os, "SEEK_DATA"):
        return
    at = file.tell()
    try:
        handle = file.fileno()
        before = os.lseek(handle, 0, os.SEEK_CUR)
        data = os.lseek(handle, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # this disk does not tell, or there is none
            return
        data = os.fstat(handle).st_size  # none follow
    os.lseek(handle, before, os.SEEK_SET)
    file.seek(max(at, data))


def _is_name_in_line(code: int, line: bytes) -> bool:
    """Whether the text that the line after STRING or UNICODE stands for may be a name."""
    line = line.rstrip()
    if code == _STRING:
        return line[:1] in (b"'", b'"') and line[-1:] == line[:1] and (b"\\" in line or _is_name(line[1:-1]))
    try:
        return _is_name(str(line, "raw-unicode-escape").encode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return False


def _is_name(raw: bytes) -> bool:
    """Whether this is written as the names of modules, and of what is in them, are."""
    try:
        return all(part.replace("-", "_").isidentifier() for part in raw.decode("utf-8").split("."))
    except UnicodeDecodeError:
        return False
