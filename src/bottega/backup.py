"""A home in one archive and back: settings, what is known of models and outputs, jobs, inputs and outputs.

    bottega-backup.json     what it is: `version`, `app`, `created`
    settings.toml           without the password of a proxy
    catalog.sqlite ...      as they were at one moment each: jobs first, so that none is done without its outputs
    a1111-options.json      what each user has chosen through the A1111 API
    inputs/ cards/ datasets/ outputs/
    training/               logs, samples, and what trainings that ended early go on from
    checksums.json          the SHA-256 of every file before it; an archive without it was cut short

Models are not in it: they are large, and can be fetched or copied again. Keys are only there if that was asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from math import inf
from pathlib import Path
from typing import IO, cast

from bottega.errors import BottegaError, FileError, FormatError, SaveError
from bottega.formats import strictjson
from bottega.formats.atomic import atomic, remove_stale, scratch_folder, sync_folder
from bottega.formats.database import code_of, connect
from bottega.gallery import Gallery, GalleryError
from bottega.jobs.lock import HomeLock
from bottega.settings import Settings, read_settings
from bottega.version import __version__

VERSION = 1
HEAD, TAIL = "bottega-backup.json", "checksums.json"
SETTINGS = "settings.toml"
DATABASES = ("queue.sqlite", "gallery.sqlite", "catalog.sqlite")
OPTIONS = "a1111-options.json"  # which is replaced as a whole when it changes
_USERS = "access.sqlite"
KEYS = ("tokens.toml", _USERS)
FOLDERS = ("inputs", "cards", "datasets", "training", "outputs")
LATENTS = "latents"  # of a training, which encodes its pictures again
ENDINGS = (".tar", ".tar.gz", ".tgz")

Told = Callable[[str, int, int], None]

_BLOCK = 1 << 20
_SPARE = 64 << 20  # bytes that a restore leaves free
_LARGEST_NOTE = 256 << 20  # of the archive's own two files
_LONGEST_HEADER = 16 << 10  # of a member: the longest name takes 4 KiB
_LATEST = 1 << 37  # seconds: the year 6325
_DEEPEST = 12
_PASSWORD = re.compile(r"""(?m)^(\s*proxy\s*=\s*["']\w+://)[^/"'@\s]*@""")
_NEVER = re.compile(r"[\x00-\x1f\x7f\\]" if os.name != "nt" else r'[\x00-\x1f\x7f\\:<>"|?*]|[. ]$')  # in a name
_TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError)
_DAMAGED = "get it again from where it was copied, or take an older one"


class HomeInUse(BottegaError):
    """There is something in a home that a restore would put out of sight."""

    exit_code = 2


@dataclass(frozen=True)
class Saved:
    """What went into an archive; `left_out` are files that could not be read, with the reason."""

    path: Path
    files: int
    bytes: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """What came out of an archive; `aside` is where the things are that stood in its place, and `notes` say what is
    left to do."""

    home: Path
    files: int
    bytes: int
    created: float
    aside: Path | None
    notes: tuple[str, ...]


# --- backup ----------------------------------------------------------------------------------------------------------


def backup(settings: Settings, path: Path, told: Told, *, outputs: bool = True, keys: bool = False) -> Saved:
    """Write a home into an archive, `.tar` or `.tar.gz` by its name, that nobody else may read; a server may run
    meanwhile.

    `told(phase, done, total)` is told the bytes. Raises FileError for another ending or a home that is not there,
    SaveError where the archive can't be written; whatever goes wrong or is interrupted, nothing of it is left.
    """
    if not path.name.lower().endswith(ENDINGS):
        raise FileError(path, "no archive is called so", "end its name with .tar, or with .tar.gz to compress it")
    if not settings.home.is_dir():
        raise FileError(settings.home, "there is no home here", "set BOTTEGA_HOME to the one that you mean")
    packed = not path.name.lower().endswith(".tar")
    remove_stale(path.parent)  # of a backup that was killed
    with (
        atomic(path, mode=0o600) as file,
        scratch_folder(path.parent) as copies,
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0) if packed else nullcontext(file) as content,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        return _Writing(settings, path, archive, copies, told).write(outputs, keys)


class _Writing:
    """One archive that is being written."""

    def __init__(self, settings: Settings, path: Path, archive: tarfile.TarFile, copies: Path, told: Told) -> None:
        self._settings = settings
        self._path = path
        self._archive = archive
        self._copies = copies
        self._told = told
        self._sums: dict[str, str] = {}
        self._left_out: list[str] = []
        self._done = self._total = 0

    def write(self, outputs: bool, keys: bool) -> Saved:
        head = {"version": VERSION, "app": f"bottega {__version__}", "created": time.time()}
        self._add_text(HEAD, json.dumps(head))
        home = self._settings.home
        with suppress(FileNotFoundError):
            told = (home / SETTINGS).read_text(encoding="utf-8", errors="surrogateescape")
            self._add_text(SETTINGS, told if keys else _PASSWORD.sub(r"\1", told))
        names = (*DATABASES, OPTIONS, *(KEYS if keys else ()))
        files = [(name, copy) for name in names if (copy := self._copy(home / name)) is not None]
        kept = self._settings
        places = [("inputs", kept.inputs), ("cards", kept.cards), ("datasets", kept.datasets)]
        if outputs:
            places.append(("outputs", self._settings.outputs))
        files += [(f"{name}/{below}", found) for name, place in places for below, found in _files(place)]
        for below, found in _files(home / "training"):
            if LATENTS not in below.split("/"):
                files.append((f"training/{below}", found))
        self._total = sum(size for _, found in files if (size := _size(found)))
        for name, found in files:
            self._add(name, found)
            if found.is_relative_to(self._copies):
                found.unlink()
        count = len(self._sums) - 1
        self._add_text(TAIL, json.dumps(self._sums))
        return Saved(self._path, count, self._done, tuple(self._left_out))

    def _copy(self, file: Path) -> Path | None:
        """A copy of a file of the home; of a database as it is at one moment, whoever writes it meanwhile."""
        if not file.is_file():
            return None
        copy = self._copies / file.name
        if file.suffix != ".sqlite":
            shutil.copyfile(file, copy)
            return copy
        try:
            with closing(connect(os.fspath(file))) as source, closing(connect(os.fspath(copy))) as target:
                source.backup(target)
        except sqlite3.DatabaseError as error:
            if code_of(error) == sqlite3.SQLITE_FULL:
                raise SaveError(f"{copy}: could not be written ({error})", "free some space") from error
            raise FileError(file, f"can't be copied ({error})", "mend it, or move it away") from error
        return copy

    def _add(self, name: str, found: Path) -> None:
        """Add a file as it is when it is opened; one that is gone by then is told of at the end."""
        if found.is_symlink():  # which could be a link to anything, and is shown to nobody
            self._left_out.append(f"{name}: is a link to a file elsewhere")
            return
        if not _belongs(name):
            self._left_out.append(f"{name}: no archive can hold this name")
            return
        try:
            file = found.open("rb")
        except OSError as error:
            self._left_out.append(f"{name}: {error.strerror or error}")
            return
        with file:
            status = os.fstat(file.fileno())
            info = _member(name, status.st_size)
            # Nanoseconds, by which the gallery knows that a file is the one it read.
            info.pax_headers = {"mtime": f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}"}
            reader = _Counted(file, found, lambda count: self._told("save", self._done + count, self._total))
            self._archive.addfile(info, reader)
        self._done += status.st_size
        self._sums[name] = reader.digest

    def _add_text(self, name: str, text: str) -> None:
        content = text.encode(errors="surrogateescape")
        self._archive.addfile(_member(name, len(content)), io.BytesIO(content))
        self._sums[name] = hashlib.sha256(content).hexdigest()


class _Counted:
    """A file that is hashed and counted while it is read."""

    def __init__(self, file: IO[bytes], path: Path, told: Callable[[int], None]) -> None:
        self._file = file
        self._path = path
        self._told = told
        self._hash = hashlib.sha256()
        self._count = 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        if len(block) < size:
            raise FileError(self._path, "became shorter while it was read", "try again")
        self._hash.update(block)
        self._count += len(block)
        self._told(self._count)
        return block

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(time.time()), 0o600
    return info


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder with their places in it, in order, also those in folders that links lead to.

    Hidden ones are being written.
    """
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # links that lead in a circle
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


# --- restore ---------------------------------------------------------------------------------------------------------


def restore(settings: Settings, path: Path, told: Told, *, force: bool = False) -> Restored:
    """Make a home what it was when an archive was written.

    A home with anything in it is only touched with `force`; what stands in the way is then moved into a folder of the
    home, and never removed. The archive is checked first, all its names and sizes, and written out under other names;
    the home changes when every byte of it is on disk and right.

    Raises FileError and FormatError for what is no backup or a damaged one, HomeInUse for a home with something in it,
    HomeBusy for one that a server runs on, FileError where the disk has no room.
    """
    plan = _checked(path)
    home = settings.home
    fresh = not home.exists()
    if not force and not fresh and any(entry.name != "serve.lock" for entry in home.iterdir()):
        raise HomeInUse(
            f"{home} is in use", "choose an empty one with BOTTEGA_HOME, or move what is there aside with --force"
        )
    try:
        with HomeLock(home):
            _check_room(home, plan)
            remove_stale(home)  # of a restore that was killed
            with scratch_folder(home) as place:
                _write_out(path, plan, place, told)
                _check_databases(path, place)
                left_out = _forget_elsewhere(path, place)
                aside = _settle(place, home)
    except BaseException:
        if fresh:
            with suppress(OSError):
                (home / "serve.lock").unlink()
                home.rmdir()
        raise
    return Restored(home, len(plan.files), plan.bytes, plan.created, aside, tuple(_notes(home, plan, left_out)))


@dataclass(frozen=True)
class _Plan:
    """What an archive holds: its files with their sizes and sums."""

    created: float
    files: Mapping[str, int]
    sums: Mapping[str, str]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def _checked(path: Path) -> _Plan:
    """Go through an archive without writing anything; FormatError for whatever no backup holds."""
    files: dict[str, int] = {}
    seen: set[str] = set()
    head: dict[str, object] | None = None
    tail: dict[str, object] | None = None
    with _reading(path) as (archive, members):
        for info in members:
            name = info.name
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
                raise FormatError(path, f"holds {ascii(name)[:200]}, which is no plain file", "do not use this archive")
            if not _belongs(name):
                raise FormatError(path, f"holds {ascii(name)[:200]}, which no backup has", "do not use this archive")
            if name in seen or tail is not None:
                raise FormatError(path, f"holds {ascii(name)[:200]} where it can't be", "do not use this archive")
            seen.add(name)
            if name in (HEAD, TAIL):
                note = _note(path, archive, info)
                head, tail = (note, tail) if name == HEAD else (head, note)
            else:
                files[name] = info.size
            if head is None:
                raise FormatError(path, "is no backup of Bottega", "choose one that `bottega backup` wrote")
    if head is None or tail is None:
        raise FormatError(path, "is cut short" if head else "is no backup of Bottega", _DAMAGED)
    version = head.get("version")
    if type(version) is not int or version < 1:
        raise FormatError(path, f"its {HEAD} is damaged", _DAMAGED)
    if version > VERSION:
        raise FormatError(path, "was written by a newer Bottega", "update Bottega")
    for name in files:
        if above := next((folder for folder in _above(name) if folder in files), None):
            what = f"holds {ascii(above)[:200]} as a file and as a folder"
            raise FormatError(path, what, "do not use this archive")
    sums = {name: str(digest) for name, digest in tail.items()}
    if sums.keys() - {HEAD} != files.keys():
        raise FormatError(path, "does not hold the files that it lists", _DAMAGED)
    created = head.get("created")
    if not isinstance(created, int | float) or not 0 <= created < _LATEST:
        raise FormatError(path, f"its {HEAD} is damaged", _DAMAGED)
    return _Plan(float(created), files, sums)


@contextmanager
def _reading(path: Path) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """An archive to read, and its members; errors of its format become FormatErrors."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # from a pipe nothing may ever come
        raise FileError(path, "is no regular file", "name an archive that `bottega backup` wrote")
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file, mode="rb") if packed else nullcontext(file) as content:
                bounded = _Bounded(cast(IO[bytes], content))
                with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as archive:
                    yield archive, _members(archive, bounded)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileError(
            path, error.strerror or "can't be read", "name an archive that `bottega backup` wrote"
        ) from None
    except _TAR_ERRORS as error:
        raise FormatError(path, f"is damaged, or no archive ({error})", _DAMAGED) from None


class _Bounded:
    """A file in which what tells of one member takes only so many bytes.

    `tarfile` reads long names, other extensions and whole chains of them before anybody can look at one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left: float = _LONGEST_HEADER
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError("a header without end")
        return self._file.read(size)

    def seek(self, place: int) -> None:
        try:
            self._file.seek(place)
        except OSError as error:  # beyond what any file has
            raise tarfile.ReadError(str(error)) from None


def _members(archive: tarfile.TarFile, content: _Bounded) -> Iterator[tarfile.TarInfo]:
    content.left = _LONGEST_HEADER
    while (info := archive.next()) is not None:
        if archive.pax_headers:  # every member would get a copy
            raise tarfile.ReadError("headers for all files")
        content.left = inf
        yield info
        content.left = _LONGEST_HEADER


def _note(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> dict[str, object]:
    """One of the archive's own two files."""
    if info.size > _LARGEST_NOTE:
        raise FormatError(path, f"its {info.name} is too large", _DAMAGED)
    file = archive.extractfile(info)
    assert file is not None
    told = strictjson.parse(file.read())
    if not isinstance(told, dict):
        raise FormatError(path, f"its {info.name} is damaged", _DAMAGED)
    return told


def _belongs(name: str) -> bool:
    """Whether a backup may hold a file of this name."""
    folder, slash, below = name.partition("/")
    if not slash:
        return name in (HEAD, TAIL, SETTINGS, *DATABASES, OPTIONS, *KEYS)
    return folder in FOLDERS and _is_plain(below)


def _above(name: str) -> Iterator[str]:
    """The folders that a file lies in."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _is_plain(below: str) -> bool:
    """Whether this is the place of a file below a folder, and of none that hides."""
    parts = below.split("/")
    return len(parts) <= _DEEPEST and all(
        part and not part.startswith(".") and not _NEVER.search(part) and _is_unicode(part) for part in parts
    )


def _is_unicode(text: str) -> bool:
    try:
        return len(text.encode()) <= 255
    except UnicodeEncodeError:
        return False


def _check_room(home: Path, plan: _Plan) -> None:
    free = shutil.disk_usage(home).free
    if plan.bytes + _SPARE > free:
        raise FileError(
            home,
            f"has {free:,} bytes free, and the backup takes {plan.bytes:,}",
            "free some space, or choose another disk",
        )


def _write_out(path: Path, plan: _Plan, place: Path, told: Told) -> None:
    """Write the files of an archive below a folder of ours, and compare them with their sums."""
    done, total = 0, plan.bytes
    with _reading(path) as (archive, members):
        for info in members:
            if info.name not in plan.files:
                continue
            if info.size != plan.files[info.name]:
                raise FormatError(path, "was changed while it was read", "try again")
            target = place / info.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(info)
            assert source is not None
            digest = hashlib.sha256()
            with open(target, "xb", opener=_private if info.name in KEYS else None) as file:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    file.write(block)
                    done += len(block)
                    told("restore", done, total)
            if digest.hexdigest() != plan.sums[info.name]:
                raise FormatError(path, f"its {info.name} is damaged", _DAMAGED)
            with suppress(ValueError):
                os.utime(target, ns=(_nanoseconds(info),) * 2)
    os.sync()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _nanoseconds(info: tarfile.TarInfo) -> int:
    """The time of a file, to the nanosecond where it is told so."""
    seconds, _, rest = info.pax_headers.get("mtime", str(int(info.mtime))).partition(".")
    return int(seconds) * 10**9 + int(rest[:9].ljust(9, "0"))


def _check_databases(path: Path, place: Path) -> None:
    """Raise FormatError for an archive one of whose databases is damaged, which its sum does not tell."""
    for file in sorted(place.glob("*.sqlite")):
        try:
            # "immutable" keeps SQLite from writing anything beside it.
            with closing(connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
                ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise FormatError(path, f"its {file.name} is damaged ({' '.join(found.split())})", _DAMAGED)


def _forget_elsewhere(path: Path, place: Path) -> int:
    """Drop the outputs from the gallery whose paths lead out of the outputs folder: no archive has their files, and
    whoever wrote one could have any other file shown. How many they are."""
    if not (place / "gallery.sqlite").exists():
        return 0
    try:
        with Gallery(place / "gallery.sqlite", place / "outputs") as gallery:
            return gallery.forget_elsewhere()
    except GalleryError as error:
        raise FormatError(path, "its gallery.sqlite is no gallery that this Bottega can read", error.remedy) from error


def _settle(place: Path, home: Path) -> Path | None:
    """Give what was written out its names in the home; where what stood there was moved to, if anything did."""
    names = sorted(entry.name for entry in place.iterdir())
    # What belongs to a database goes with it: a new one would be read with the old one's last changes.
    stale = [f"{name}{end}" for name in names if name.endswith(".sqlite") for end in ("-wal", "-shm", "-journal")]
    standing = [name for name in (*names, *stale) if os.path.lexists(home / name)]
    aside = None
    if standing:
        aside = _new_folder(home / time.strftime("before-restore-%Y%m%d-%H%M%S"))
        for name in standing:
            os.rename(home / name, aside / name)
    for name in names:
        os.rename(place / name, home / name)
    sync_folder(home)
    return aside


def _new_folder(wanted: Path) -> Path:
    """A new folder of this name, or of one with a number behind it where that is taken."""
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _notes(home: Path, plan: _Plan, left_out: int) -> Iterator[str]:
    if _USERS in plan.files:
        yield (
            f"the archive brought the keys of users ({_USERS}): whoever has one can use the server of this home; "
            "`bottega users list` names them"
        )
    if left_out:
        many = "1 output that lies" if left_out == 1 else f"{left_out:,} outputs that lie"
        yield f"{many} outside of the outputs folder: no backup holds such files, and the gallery shows them no more"
    if any(name.startswith("outputs/") for name in plan.files):
        with suppress(BottegaError):
            outputs = read_settings({"BOTTEGA_HOME": str(home)}).outputs
            if outputs != home / "outputs":
                lie = f"those of the backup are in {home / 'outputs'}"
                yield f"{home / SETTINGS} says that outputs lie in {outputs}; {lie}"
    yield (
        "models are not part of a backup, nor are those that were trained here: copy or fetch them, then run "
        "`bottega models scan`"
    )
