"""What lies on a shelf: the models in a folder of any workbench, found by their places and endings, none opened."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from bottega.library import companions, layouts, stores
from bottega.library.disk import (
    MODEL_SUFFIXES,
    PICTURE_SUFFIXES,
    Stamp,
    file_stamp,
    folder_files,
    folder_stamp,
    is_embedding_picture,
    is_model_folder,
)

# Python's own folders are full of `.pt` and `.bin` files that are no models.
NO_SHELVES = frozenset((
    "__pycache__", "node_modules", "site-packages", "venv", "python_embeded", "python_embedded", "__MACOSX",
    "$RECYCLE.BIN", "System Volume Information", "lost+found",
))  # fmt: skip

_SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})", re.DOTALL)

_SHORT = 7  # digits of a revision, as git shortens them

Place = tuple[int, int]  # a folder, whatever links lead to it: device and inode


class Found(NamedTuple):
    """A model on a shelf: its path, its stamp, the name by which its program knows it where the path does not tell
    (empty where it does), and a number that changes when one of the files beside it (card, preview) does."""

    path: Path
    stamp: Stamp
    name: str = ""
    beside: int = 0


def shelf_places(shelf: Path) -> tuple[Path, ...]:
    """The folders to look through: all of a plain folder, but only the models of another workbench's installation.

    A1111 and Forge keep embeddings beside `models`, also where `models` itself is the shelf.
    """
    try:
        names = frozenset(os.listdir(shelf))
    except OSError:
        return (shelf,)
    if (places := layouts.installation(shelf, names, {})) is not None:
        return places
    beside = layouts.embeddings_beside(shelf)
    return (shelf,) if beside is None else (shelf, beside)


class _Revision(NamedTuple):
    """A revision of a repository in Hugging Face's cache; the files and the names of the repository's models that are
    known already, which its revisions share."""

    id: str
    files: set[Place]
    names: set[str]

    def named(self, name: str) -> str:
        """The name of a model in it: the plain one means that of the first revision which has it."""
        if name in self.names:
            name = f"{name}@{self.id[:_SHORT]}"
        self.names.add(name)
        return name


class _Step(NamedTuple):
    """A folder to look into: what its program calls it (None where it has no name for it, "" where names begin), and
    the revision of a repository that it belongs to."""

    folder: str
    name: str | None = None
    revision: _Revision | None = None


class Walk:
    """One walk over folders, each entered once, however many links and shelves lead to it.

    Real folders come before links, so that a model is known by its own path rather than by a link to it; a folder
    that is a shelf of its own is left to that shelf. `unreadable` are the folders, and the settings and databases of
    other programs, that could not be read, with the reason.
    """

    def __init__(self, shelves: Iterable[Path]) -> None:
        self.unreadable: dict[Path, str] = {}
        self._roots = {place: path for path in shelves if (place := _place(path))}
        self._inner = [os.path.join(path, "") for path in self._roots.values()]
        self._entered: set[Place] = set()
        self._led: list[Path] = []  # folders out of their shelf, to which the settings of a program led
        self._steps: list[_Step] = []  # of the shelf at hand, the next one last
        self._links: list[_Step] = []  # what comes after them
        self._recorded: set[str] = set()  # paths on it that a program's database has given already

    def models(self, shelf: Path) -> Iterator[Found]:
        """The models on a shelf with their stamps: files by their endings, and model folders."""
        root = os.fspath(shelf)
        self._steps, self._links, self._recorded = [_Step(root)], [], set()
        if beside := layouts.embeddings_beside(shelf):
            self._steps.insert(0, _Step(os.fspath(beside)))
        while self._steps or self._links:
            step = self._steps.pop() if self._steps else self._links.pop(0)
            yield from self._look(step, is_root=step.folder == root)

    def covers(self, path: Path, places: Iterable[Path]) -> bool:
        """Whether a model at this path would have been found by walking these places."""
        wanted = os.path.join(path, "")
        inner = [root for root in self._inner if wanted.startswith(root)]
        return any(
            wanted.startswith(place) and all(place.startswith(root) for root in inner)
            for place in (os.path.join(each, "") for each in (*places, *self._led))
        )

    def _look(self, step: _Step, is_root: bool) -> Iterator[Found]:
        """The models right in a folder; the folders in it are left for later steps."""
        folder = Path(step.folder)
        place = _place(folder)
        if place is None or place in self._entered or (place in self._roots and not is_root):
            return
        self._entered.add(place)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_name)
            names = frozenset(map(_name, entries))
            if is_model_folder(names):
                yield from self._folder(folder, step)
                return
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return
        if stores.is_ollama(names):
            yield from self._stored(stores.ollama_models(folder), folder)
        elif (repository := stores.hub_name(folder.name, names)) is not None:
            files, called = set[Place](), set[str]()
            revisions = [(path, _Revision(path.name, files, called)) for path in stores.hub_revisions(folder)]
            self._later(_Step(os.fspath(path), repository, revision) for path, revision in revisions)
        elif stores.is_invokeai(folder, names):
            models, stored = stores.invokeai_models(folder, self.unreadable)
            recorded = [each for each in stored if _is_model(each.path)]
            self._recorded.update(os.fspath(each.path) for each in recorded)
            self._go(folder, [models, folder / "autoimport"])
            yield from self._stored(recorded, folder)
        elif (places := layouts.installation(folder, names, self.unreadable)) is not None:
            self._go(folder, places)
        else:
            if step.name is None and (is_root or folder.name == "models") and layouts.is_lm_studio(folder):
                step = step._replace(name="")
            yield from self._plain(step, entries, names)

    def _plain(self, step: _Step, entries: Sequence[os.DirEntry[str]], names: Collection[str]) -> Iterator[Found]:
        """The model files among the entries of a folder."""
        later: list[_Step] = []
        models: list[tuple[os.DirEntry[str], str, str]] = []
        others: list[tuple[str, os.DirEntry[str]]] = []
        shared: list[os.DirEntry[str]] = []
        shards: set[tuple[str, str, str]] = set()
        for entry in entries:
            name = entry.name
            if name[0] in ".~" or name in NO_SHELVES:  # hidden, or temporary
                continue
            if _is_folder(entry):
                if entry.path not in self._recorded and not name.startswith(("datasets--", "spaces--")):
                    inner = _Step(entry.path, _joined(step.name, name), step.revision)
                    (self._links if entry.is_symlink() else later).append(inner)
                continue
            if name == companions.README or name in companions.LICENCES:
                shared.append(entry)
            stem, ending = os.path.splitext(name)
            ending = ending.lower()
            if ending in companions.LAST:
                others.append((stem, entry))
                if ending in PICTURE_SUFFIXES and is_embedding_picture(Path(entry.path)):
                    models.append((entry, stem, _joined(step.name, stem) or ""))
            elif ending in MODEL_SUFFIXES and f"{name}.aria2" not in names and entry.path not in self._recorded:
                title = None
                if (shard := _SHARD.fullmatch(stem)) is not None:
                    if (whole := (shard[1], shard[3], ending)) in shards:
                        continue
                    shards.add(whole)
                    title = shard[1]
                models.append((entry, stem, _joined(step.name, title or stem) or title or ""))
        self._later(later)
        of_all = reduce(_changing, shared, 0) if shared and models and stores.is_checkout(Path(step.folder)) else 0
        beside = _beside(others, dict.fromkeys((stem for _, stem, _ in models), of_all))
        for entry, stem, title in models:
            try:
                if not entry.is_file():
                    continue
                status = entry.stat()
            except OSError:  # a link that leads to itself, or a file that is gone
                continue
            if step.revision is not None:
                if (blob := (status.st_dev, status.st_ino)) in step.revision.files:
                    continue
                step.revision.files.add(blob)
                title = step.revision.named(title)
            yield Found(Path(entry.path), file_stamp(status), title, beside[stem])

    def _folder(self, folder: Path, step: _Step) -> Iterator[Found]:
        """The one model that a folder is, unless another revision of its repository holds the same weights."""
        name = step.name or ""
        if step.revision is not None:
            weights = {_place(path) for _, path in folder_files(folder) if path.suffix.lower() in MODEL_SUFFIXES}
            blobs = {blob for blob in weights if blob is not None}
            if blobs and blobs <= step.revision.files:
                return
            step.revision.files.update(blobs)
            name = step.revision.named(name)
        yield Found(folder, folder_stamp(folder), name)

    def _stored(self, stored: Iterable[stores.Stored], store: Path) -> Iterator[Found]:
        """Those models of a program's store that are there, unless they lie on another shelf."""
        others = tuple(root for root in self._inner if not os.path.join(store, "").startswith(root))
        for each in stored:
            if others and os.fspath(each.path).startswith(others):
                continue
            try:
                status = each.path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield Found(each.path, file_stamp(status), each.name, each.beside)
                elif stat.S_ISDIR(status.st_mode):
                    yield Found(each.path, folder_stamp(each.path), each.name, each.beside)
            except OSError:
                continue  # its program has it on record, but it is gone

    def _go(self, folder: Path, places: Iterable[Path]) -> None:
        """Look into these places later, some of which may lie out of the folder that led to them."""
        places = list(dict.fromkeys(places))
        self._led += [place for place in places if not place.is_relative_to(folder)]
        self._later(_Step(os.fspath(place)) for place in places)

    def _later(self, steps: Iterable[_Step]) -> None:
        """These are the next steps, in this order."""
        self._steps += reversed(list(steps))


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _joined(outer: str | None, name: str) -> str | None:
    """The name of what is called so inside of what is called `outer`; None where that has no name."""
    return None if outer is None else f"{outer}/{name}" if outer else name


def _is_model(path: Path) -> bool:
    """Whether something that another program has on record looks like a model to us."""
    try:
        return path.suffix.lower() in MODEL_SUFFIXES if path.is_file() else is_model_folder(os.listdir(path))
    except OSError:
        return False


def _beside(others: Iterable[tuple[str, os.DirEntry[str]]], numbers: dict[str, int]) -> dict[str, int]:
    """For each model the number that changes when a card or a picture that lies beside it does, from the one that it
    has before those are looked at."""
    for stem, entry in others:
        if stem not in numbers:
            stem, more = os.path.splitext(stem)
            if more not in companions.BEFORE or stem not in numbers:
                continue
        numbers[stem] = _changing(numbers[stem], entry)
    return numbers


def _changing(number: int, entry: os.DirEntry[str]) -> int:
    """A number that changes with this one, and when the file does."""
    try:
        status = entry.stat()
    except OSError:
        return number
    return zlib.crc32(os.fsencode(f"{entry.name}\0{status.st_size} {status.st_mtime_ns}\n"), number) or 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _place(folder: Path) -> Place | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
