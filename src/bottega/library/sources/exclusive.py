"""One process at a time: a lock that ends with whoever holds it, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bottega.library.sources.errors import NetworkError


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs; raises NetworkError if another process holds it."""
    while True:
        file = path.open("a+b")
        try:
            if not _locked(file):
                raise NetworkError(f"{what} is being fetched by another process", "wait for it, or stop it")
            # Whoever held it before us took its name away: then ours is a lock that nobody else can see.
            if _is_at(file, path):
                break
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        yield
    finally:
        if os.name == "nt":  # where what is open can't be removed
            file.close()
        with suppress(OSError):
            path.unlink()
        file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


if os.name == "nt":

    def _locked(file: IO[bytes]) -> bool:
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

else:

    def _locked(file: IO[bytes]) -> bool:
        import fcntl

        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system that knows no locks: nobody else can hold one there either
            return True
        return True
