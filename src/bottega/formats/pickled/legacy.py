"""Checkpoints that are pickles without an archive: torch's format until 1.5, stacked pickles before their storages.

torch/serialization.py, `_legacy_save`: magic number, version, facts of the system, the object, the storages' keys, and
then for each key its number of elements and their bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from bottega.formats.pickled.archive import read_at
from bottega.formats.pickled.machine import Machine
from bottega.formats.pickled.rebuild import BYTES_OF_STORED
from bottega.formats.pickled.values import Broken, CutShort

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
MAX_PICKLE = 64 << 20
_WINDOWS = (1 << 20, MAX_PICKLE)


@dataclass(frozen=True)
class Legacy:
    """The object that was saved, and where the bytes of each storage lie (start and end), by key."""

    root: object
    storages: dict[str, tuple[int, int]]


def read(file: BinaryIO, size: int) -> tuple[Machine, Legacy | Exception]:
    """What the file holds, or why that can't be told; with the machine that knows what is named in it.

    Its pickles lie before all else, so the beginning of a large file is tried first.
    """
    for window in _WINDOWS:
        data = read_at(file, 0, min(size, window))
        machine = Machine()
        try:
            return machine, _read(machine, data, file, size)
        except (ValueError, IndexError, KeyError, struct.error) as error:
            failure = error.with_traceback(None)  # which would keep all that was read
        if window >= size or not _may_be_short(failure):
            break
    return machine, failure


def _may_be_short(failure: Exception) -> bool:
    """Whether more bytes might have helped."""
    return not isinstance(failure, Broken | KeyError) or isinstance(failure, CutShort)


def _read(machine: Machine, data: bytes, file: BinaryIO, size: int) -> Legacy:
    root, at = machine.run(data)
    if type(root) is not int or root != MAGIC:
        if at != size:
            raise Broken(f"{size - at:,} bytes follow the end of its pickle")
        if machine.storages:
            raise Broken("it is only the inner pickle of a checkpoint: the tensors' bytes are missing")
        return Legacy(root, {})
    version, at = machine.run(data, at)
    if type(version) is not int or version != VERSION:
        raise Broken("it is of a version of torch's format that nobody ever wrote")
    _, at = machine.run(data, at)
    root, at = machine.run(data, at)
    keys, at = machine.run(data, at)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Broken("its list of storages is none")
    return Legacy(root, _storages(machine, keys, file, at, size))


def _storages(machine: Machine, keys: list[str], file: BinaryIO, at: int, size: int) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        storage = machine.storages.get(key)
        if key in places or storage is None:
            raise Broken("its list of storages is not that of its tensors")
        count = int.from_bytes(read_at(file, at, 8), "little", signed=True)
        at += 8
        end = at + count * BYTES_OF_STORED[storage.dtype]
        if count < 0:
            raise Broken(f"it has a storage of {count:,} numbers")
        if end > size:
            raise CutShort(f"its storage of {count:,} numbers is longer than the rest of the file")
        places[key] = at, end
        at = end
    if at != size:
        raise Broken(f"{size - at:,} bytes follow its last storage")
    return places
