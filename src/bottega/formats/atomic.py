"""Files and folders that appear complete, on disk and under their final name, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bottega.errors import SaveError

try:
    import fcntl
except ImportError:  # Windows, which lets nobody remove a file that is open
    fcntl = None  # type: ignore[assignment]

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.EFBIG: "this disk, or a limit that is set here, takes no file of that size: choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make its folder first",
    errno.ENOTDIR: "make its folder first",
    errno.EISDIR: "choose a name that is no folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def atomic(
    path: str | Path, settle: Callable[[Path, Path], None] = os.replace, *, mode: int = 0o666
) -> Iterator[BinaryIO]:
    """A file to write into. `path` becomes it when the block ends well; else `path` stays as it was, and no
    temporary file is left. `settle` gives the temporary file its name; `mode` says who may use it, as far as the umask
    lets them. An OSError on the way becomes a SaveError, but for the FileExistsError of `settle_new`."""
    path = Path(path)
    with _as_save_errors(path):
        temporary, file = _open_part(path.parent, mode)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if fcntl:  # the lock is held until it has its name: nobody takes it for a stale one
                    settle(temporary, path)
            if not fcntl:
                settle(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # an interrupt may come when it has its name already
            raise
        sync_folder(path.parent)


def settle_new_folder(temporary: Path, path: Path) -> None:
    """Give a folder a name that nothing has yet; else it is a FileExistsError."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    os.rename(temporary, path)


def replace_folder(temporary: Path, path: Path) -> None:
    """Give a folder the name of another one, which is removed; if that fails, the other one keeps its name.

    No system renames a folder over a full one. In between the other one lies in a folder of our own making, under its
    own name, so that `remove_stale` can give it back if this process is killed there.
    """
    aside, lock = _make_part_folder(path.parent, _ASIDE)
    try:
        os.rename(path, aside / path.name)
        os.rename(temporary, path)
    finally:
        # What can't be removed now, the next `remove_stale` tries to: the new folder is complete, and has its name.
        with suppress(OSError):
            _clear_aside(aside)
        if lock is not None:
            os.close(lock)


@contextmanager
def atomic_folder(path: str | Path, settle: Callable[[Path, Path], None] = settle_new_folder) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when the block ends well; else nothing is left of it.

    The files in it are to be on disk by then. `settle` gives it its name: `settle_new_folder`, or `replace_folder`. An
    OSError on the way becomes a SaveError, but for the FileExistsError of a name that is taken.
    """
    path = Path(path)
    with _as_save_errors(path):
        temporary, lock = _make_part_folder(path.parent, _SUFFIX)
        try:
            yield temporary
            sync_tree(temporary)
            settle(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)
        sync_folder(path.parent)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder that nobody else may look into, for as long as the block lasts; `remove_stale` removes a killed one's.

    An OSError where it can't be made becomes a SaveError.
    """
    with _as_save_errors(folder):
        temporary, lock = _make_part_folder(folder, _SUFFIX, 0o700)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner may look into, and any above it, unless it is there: then it stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove_stale(folder: Path) -> list[Path]:
    """Remove what `atomic` and `atomic_folder` left in a folder when their process was killed, and tell what it was.

    A folder that was to be replaced and was not gets its name back. What a living process still writes is locked, and
    stays. Only files and folders of our own making are looked at, by their name.
    """
    removed = []
    for part in sorted([*folder.glob(f"{_PREFIX}*{_SUFFIX}"), *folder.glob(f"{_PREFIX}*{_ASIDE}")]):
        try:
            with _claimed(part):
                if part.suffix == _ASIDE:
                    _clear_aside(part)
                elif part.is_dir():
                    shutil.rmtree(part)
                else:
                    part.unlink()
        except OSError:
            continue  # still written, somebody else's, or gone by now
        removed.append(part)
    return removed


def _clear_aside(aside: Path) -> None:
    """Give what was moved aside its name back if nothing took its place, and remove the rest."""
    for child in list(aside.iterdir()):
        place = aside.parent / child.name
        if not os.path.lexists(place):
            os.rename(child, place)
    shutil.rmtree(aside)


@contextmanager
def _as_save_errors(path: Path) -> Iterator[None]:
    """An OSError becomes a SaveError that names `path`, but for the FileExistsError of a name that is taken."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "check the disk")
        raise SaveError(f"{path}: could not be written ({reason})", remedy) from error


_PREFIX, _SUFFIX = ".bottega-", ".part"
_ASIDE = ".aside"  # of a folder that holds one which is being replaced


def _part_name(suffix: str) -> str:
    return f"{_PREFIX}{secrets.token_hex(8)}{suffix}"


def _open_part(folder: Path, mode: int) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked: whoever removes stale ones may have claimed it first, so take another then."""
    while True:
        temporary = folder / _part_name(_SUFFIX)
        file = open(temporary, "xb", opener=partial(os.open, mode=mode))  # noqa: SIM115  closed by the caller
        if _lock(file.fileno()) and temporary.exists():
            return temporary, file
        file.close()


def _make_part_folder(folder: Path, suffix: str, mode: int = 0o777) -> tuple[Path, int | None]:
    """A new temporary folder, with the descriptor that holds it locked, where folders can be."""
    while True:
        temporary = folder / _part_name(suffix)
        temporary.mkdir(mode)
        if not fcntl:
            return temporary, None
        try:
            handle = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _lock(handle) and temporary.exists():
            return temporary, handle
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether a file is ours until it is closed. A file system that knows no locks lets nobody claim it either."""
    if fcntl:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


@contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """A stale part, locked while it is removed; OSError if it is a link, or anybody holds it."""
    if not fcntl:
        yield
        return
    handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def write_behind(handle: int, start: int, end: int) -> None:
    """Have the system begin to send a stretch of a file to its disk, so that little is left for the `fsync` at the end.

    Linux does so for what it is told not to keep, and keeps what is not on the disk yet.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, start, end - start, os.POSIX_FADV_DONTNEED)


def settle_new(temporary: Path, path: Path) -> None:
    """Give a file a name that none has yet; FileExistsError if another process was quicker."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: reserve the name, then take it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        try:
            os.replace(temporary, path)
        except BaseException:
            os.unlink(path)
            raise
    else:
        os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; Windows has no way to ask for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path) -> None:
    """Make the names in a tree of folders survive a power cut."""
    for place, _, _ in os.walk(root, topdown=False):
        sync_folder(Path(place))
