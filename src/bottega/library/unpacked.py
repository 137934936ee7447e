"""Reads what lies compressed in a model file without ever holding it: tensors of a zip archive that was deflated.

A stretch that is read forwards is unpacked as it is read. What is asked for again, or not in order, is unpacked once
into a file without a name in the system's temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bottega.errors import SaveError
from bottega.formats.header import Packed, TensorInfo
from bottega.formats.tensor_bytes import inflate

KEPT = 4  # stretches that are kept at hand: tensors that share one seldom follow each other exactly


class Unpacked:
    """One compressed stretch of a file, from which tensors are read; `close` it."""

    def __init__(self, info: TensorInfo, packed: Packed) -> None:
        self._info, self._packed = info, packed
        self._pieces: Iterator[bytes] = inflate(info, packed)
        self._piece, self._position = memoryview(b""), 0  # what is unpacked and not given yet, and where it begins
        self._whole: IO[bytes] | None = None

    def close(self) -> None:
        """Remove the file that it was unpacked into, if there is one."""
        if self._whole is not None:
            self._whole.close()

    def read(self, at: int, room: memoryview) -> int:
        """Fill memory with the bytes from a place on; as many as were there, 0 at the end."""
        if self._whole is None and at >= self._position:
            return self._read_on(at, room)
        whole = self.whole()
        whole.seek(at)
        return whole.readinto(room)  # type: ignore[attr-defined, no-any-return]  # unbuffered files have it

    def whole(self) -> IO[bytes]:
        """All of it, as a file."""
        if self._whole is None:
            self._whole = _file_of(self._info.file, inflate(self._info, self._packed), self._packed.size)
        return self._whole

    def _read_on(self, at: int, room: memoryview) -> int:
        while self._position + len(self._piece) <= at:
            self._position += len(self._piece)
            self._piece = memoryview(next(self._pieces, b""))
            if not self._piece:
                return 0
        some = self._piece[at - self._position :][: len(room)]
        room[: len(some)] = some
        self._piece, self._position = self._piece[at - self._position + len(some) :], at + len(some)
        return len(some)


def _file_of(source: Path, pieces: Iterator[bytes], size: int) -> IO[bytes]:
    try:
        whole = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by whoever asked for it
        try:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[whole.write(left) :]
        except BaseException:
            whole.close()
            raise
    except OSError as error:
        what = f"{source}: could not be unpacked into {tempfile.gettempdir()} ({error.strerror or error})"
        raise SaveError(what, f"it takes {size / 1e9:.2f} GB there: free some space, or set TMPDIR") from error
    return whole
