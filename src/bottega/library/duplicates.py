"""Models that are there more than once: found by their hashes, and replaced by links where that is asked for."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bottega.errors import BottegaError, FileError
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import stamp_of
from bottega.library.hashes import Told, hashes_of, sha256_of

SAMPLE = 64 << 10  # bytes that are compared at three places before whole files are hashed
CHUNK = 4 << 20

Failed = Callable[[BottegaError | OSError], None]
Copy = list[Entry]  # the entries whose paths are names of one file, or of one folder


@dataclass(frozen=True)
class Group:
    """Models with the same bytes (`same` is "bytes"), or with the same tensors under other metadata ("tensors").

    The first copy is the one to keep: it lies in a store that names files by their hashes, or has most names, or is
    the oldest. The names of one file are one copy, and no duplicates. `saved` is what the other copies take on disk.
    """

    same: str
    copies: tuple[tuple[Entry, ...], ...]
    saved: int

    @property
    def kept(self) -> Entry:
        """The model to keep."""
        return self.copies[0][0]

    @property
    def can_be_linked(self) -> bool:
        """Whether links can take the place of the others: only where every byte is the same, and of files."""
        return self.same == "bytes" and not self.kept.path.is_dir()


@dataclass(frozen=True)
class Linked:
    """A path that became a link to the model that is kept: "hard", or "symbolic" to one on another file system."""

    path: Path
    kept: Path
    kind: str


# --- finding them ----------------------------------------------------------------------------------------------------


def duplicates(
    catalog: Catalog, told: Told = lambda done, total: None, failed: Failed = lambda error: None
) -> list[Group]:
    """The models on record that are there more than once, those that would save most first.

    Only those are hashed that have the same size, or tensors of the same size, dtype and kind, and then the same bytes
    at a few places. What can't be read is told to `failed` and left out.
    """
    copies = _copies(entry for entry in catalog.entries() if not entry.error)
    alike = _in_turn(copies, _size, partial(_sample, whole=True))
    exact = _by_hash(alike, partial(sha256_of, catalog), lambda entry: entry.sha256, told, failed)

    others = {id(copy) for group in exact for copy in group[1:]}  # whose tensors are those of the first, of course
    with_tensors = [copy for copy in copies if id(copy) not in others and _has_tensors(copy[0])]
    alike = _in_turn(with_tensors, _tensors, partial(_sample, whole=False))
    near = _by_hash(alike, partial(hashes_of, catalog), lambda entry: entry.autov3, told, failed)
    groups = [*(_group("bytes", each) for each in exact), *(_group("tensors", each) for each in near)]
    return sorted(groups, key=lambda group: -group.saved)


def _copies(entries: Iterable[Entry]) -> list[Copy]:
    """The entries whose files are there, those that are names of one file together."""
    copies: dict[tuple[int, int], Copy] = {}
    for entry in entries:
        try:
            status = os.stat(entry.path)
        except OSError:
            continue
        copies.setdefault((status.st_dev, status.st_ino), []).append(entry)
    return list(copies.values())


def _in_turn(copies: list[Copy], *keys: Callable[[Entry], object]) -> list[list[Copy]]:
    """Groups of at least two copies for which all keys are the same, each key only asked where those before it are."""
    groups = [copies]
    for key in keys:
        groups = [alike for group in groups for alike in _alike(group, [key(copy[0]) for copy in group])]
    return groups


def _alike(copies: Sequence[Copy], keys: Sequence[object]) -> list[list[Copy]]:
    """The copies in groups of at least two that have the same key; those without one are left out."""
    groups: dict[object, list[Copy]] = {}
    for copy, key in zip(copies, keys, strict=True):
        if key is not None:
            groups.setdefault(key, []).append(copy)
    return [group for group in groups.values() if len(group) > 1]


def _size(entry: Entry) -> object:
    return (entry.size, entry.path.is_dir()) if entry.size else None


def _has_tensors(entry: Entry) -> bool:
    """Whether the tensors are the end of this very file, as in safetensors (whose shards lie in several)."""
    return entry.format == "safetensors" and 0 < entry.bytes < entry.size and entry.path.is_file()


def _tensors(entry: Entry) -> object:
    return entry.bytes, entry.parameters, entry.dtype, entry.kind


def _sample(entry: Entry, whole: bool) -> object:
    """A hash of what is at three places of a file, or of its tensors; nothing of a folder, and None if unreadable."""
    if entry.path.is_dir():
        return ""
    start = 0 if whole else entry.size - entry.bytes
    digest = hashlib.blake2b()
    try:
        with entry.path.open("rb", buffering=0) as file:
            for place in (start, (start + entry.size) // 2, entry.size - SAMPLE):
                file.seek(max(start, place))
                digest.update(file.read(SAMPLE))
    except OSError:
        return None
    return digest.digest()


def _by_hash(
    groups: Sequence[list[Copy]],
    hashed: Callable[[Entry, Told], Entry],
    key: Callable[[Entry], str | None],
    told: Told,
    failed: Failed,
) -> list[list[Copy]]:
    """The groups by the hashes of their copies, which are computed where they are not known."""
    total = sum(copy[0].size for group in groups for copy in group)
    done = 0
    same: list[list[Copy]] = []
    for group in groups:
        keys: list[str | None] = []
        for copy in group:
            try:
                copy[0] = hashed(copy[0], partial(_from, told, done, total))
            except (FileError, OSError) as error:
                failed(error)
                keys.append(None)
            else:
                keys.append(key(copy[0]))
            done += copy[0].size
        same += _alike(group, keys)
    return same


def _from(told: Told, before: int, total: int, done: int, _: int) -> None:
    told(before + done, total)


def _group(same: str, copies: list[Copy]) -> Group:
    ordered = sorted(copies, key=_worth_keeping)
    return Group(same, tuple(map(tuple, ordered)), sum(copy[0].size for copy in ordered[1:]))


def _worth_keeping(copy: Copy) -> tuple[bool, int, int, str]:
    """What comes first by this is kept."""
    in_store = any(Path(os.path.realpath(entry.path)).parent.name == "blobs" for entry in copy)
    try:
        names = os.stat(copy[0].path).st_nlink
    except OSError:
        names = 0
    return not in_store, -max(names, len(copy)), copy[0].stamp.mtime_ns, str(copy[0].path)


# --- linking them ----------------------------------------------------------------------------------------------------


def link(catalog: Catalog, group: Group, failed: Failed = lambda error: None) -> tuple[list[Linked], int]:
    """Replace all copies of a group but the first by links to it; those links, and how many bytes that freed.

    Every byte is compared once more before. A copy that can't be replaced stays as it is and is told to `failed`.
    """
    kept = Path(os.path.realpath(group.kept.path))
    linked: list[Linked] = []
    freed = 0
    for copy in group.copies[1:] if group.can_be_linked else ():
        real = dict.fromkeys(Path(os.path.realpath(entry.path)) for entry in copy)
        try:
            names = os.stat(copy[0].path).st_nlink
            linked += [Linked(path, kept, replace_by_link(path, kept)) for path in real]
            freed += copy[0].size if names <= len(real) else 0  # else it has a name that we don't know of
            catalog.put(replace(entry, stamp=stamp_of(entry.path), sha256=group.kept.sha256) for entry in copy)
        except (BottegaError, OSError) as error:
            failed(error)
    return linked, freed


def replace_by_link(path: Path, kept: Path) -> str:
    """Let a path lead to the bytes of `kept`, which must be the same: its kind, "hard" or "symbolic".

    At every moment there is either the file or the link. Raises FileError if the bytes differ, or change meanwhile;
    OSError if the folder can't be written.
    """
    before = (os.stat(path), os.stat(kept))
    if os.path.samestat(*before):
        return "hard"
    if not _same_bytes(path, kept):
        raise FileError(path, f"is not the same as {kept} any more", "scan the shelves again")
    temporary = path.with_name(f".bottega-{secrets.token_hex(8)}.part")
    try:
        kind = _make_link(temporary, kept)
        for one, other in zip(before, (os.stat(path), os.stat(kept)), strict=True):
            if (one.st_ino, one.st_size, one.st_mtime_ns) != (other.st_ino, other.st_size, other.st_mtime_ns):
                raise FileError(path, "was changed while it was compared", "try again when it is complete")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return kind


def _make_link(path: Path, kept: Path) -> str:
    try:
        os.link(kept, path)
        return "hard"
    except OSError:  # another file system, or one that has no hard links
        os.symlink(kept, path)
        return "symbolic"


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while True:
            a, b = first.read(CHUNK), second.read(CHUNK)
            if a != b:
                return False
            if not a:
                return True
