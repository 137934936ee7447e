"""One server to a home: a lock that ends with its process, whatever ends that."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from bottega.errors import BottegaError
from bottega.formats.atomic import private_folder
from bottega.jobs.wire import identity, lives

try:
    import fcntl
except ImportError:  # Windows: there the process that is named in the file is looked for
    fcntl = None  # type: ignore[assignment]


class HomeBusy(BottegaError):
    """Another process serves this home already; `url` is where it answers, empty where it does not say."""

    def __init__(self, home: Path, url: str) -> None:
        where = f" at {url}" if url else ""
        super().__init__(f"a server runs on {home} already{where}", "use that one, or end it first")
        self.url = url


class HomeLock:
    """The right to serve a home, for as long as the block lasts; raises HomeBusy where somebody else has it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._handle: int | None = None

    def __enter__(self) -> HomeLock:
        path = self.home / "serve.lock"
        private_folder(self.home)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _claimed(handle) or _held(handle):
                raise HomeBusy(self.home, _served_at(self.home, _holder(handle)))
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps({"process": identity(os.getpid()), "boot": _boot()}).encode(), 0)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._handle is not None:
            with suppress(OSError):
                os.truncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def _served_at(home: Path, holder: str) -> str:
    """Where the process of that identity says that it serves a home; empty if it does not say."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((home / "serve.json").read_text(encoding="utf-8"))
        if str(told["pid"]) == holder.partition(":")[0]:  # and not what a server left that was killed
            return str(told["url"])
    return ""


def _claimed(handle: int) -> bool:
    """Whether the system gives the lock to us, or has none to give on that disk."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _held(handle: int) -> bool:
    """Whether the process that the file names lives on, for disks that know no locks; none outlives a boot."""
    holder = _holder(handle)
    return holder not in ("", identity(os.getpid())) and lives(holder)


def _holder(handle: int) -> str:
    """The identity of the process that the file names; empty where it names none of this boot."""
    with suppress(ValueError, KeyError, TypeError):
        told = json.loads(os.pread(handle, 4096, 0))
        if str(told["boot"]) == _boot():
            return str(told["process"])
    return ""


def _boot() -> str:
    """What tells this boot of the machine from others; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
