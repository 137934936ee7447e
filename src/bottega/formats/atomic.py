"""Files that appear complete, on disk and under their final name, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bottega.errors import SaveError

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "make its folder first",
    errno.ENOTDIR: "make its folder first",
    errno.EISDIR: "choose a name that is no folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def atomic(path: str | Path, settle: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """A file to write into. `path` becomes it when the block ends well; else `path` stays as it was, and no
    temporary file is left. `settle` gives the temporary file its name. An OSError on the way becomes a SaveError, but
    for the FileExistsError of `settle_new`."""
    path = Path(path)
    temporary = path.with_name(f".bottega-{secrets.token_hex(8)}.part")
    try:
        file = open(temporary, "xb")  # noqa: SIM115  closed below, before its temporary name is given up
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            settle(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # an interrupt may come when it has its name already
            raise
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "check the disk")
        raise SaveError(f"{path}: could not be written ({reason})", remedy) from error


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
