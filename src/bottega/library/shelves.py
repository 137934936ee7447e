"""What lies on a shelf: the models in a folder of any workbench, found by their places and endings, none opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bottega.library.disk import FOLDER_MARK, MODEL_SUFFIXES, Stamp, file_stamp, folder_stamp

# Python's own folders are full of `.pt` and `.bin` files that are no models.
NO_SHELVES = frozenset(("__pycache__", "node_modules", "site-packages", "venv", "__MACOSX"))

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
    models = shelf / "models"
    if models.is_dir() and any((shelf / sign).exists() for sign in ("webui.py", "launch.py", "comfy", "embeddings")):
        return tuple(
            place
            for place in (models, shelf / "embeddings", shelf / "extensions" / "sd-webui-controlnet" / "models")
            if place.is_dir()
        )
    beside = shelf.parent / "embeddings"
    if shelf.name == "models" and (shelf / "Stable-diffusion").is_dir() and beside.is_dir():
        return (shelf, beside)
    return (shelf,)


class Walk:
    """One walk over folders, each entered once, however many links and shelves lead to it.

    Real folders come before links, so that a model is known by its own path rather than by a link to it; a folder
    that is a shelf of its own is left to that shelf.
    """

    def __init__(self, shelves: Iterable[Path]) -> None:
        self.unreadable: dict[Path, str] = {}
        self._roots = {place: path for path in shelves if (place := _place(path))}
        self._entered: set[Place] = set()

    def models(self, shelf: Path) -> Iterator[Found]:
        """The models on a shelf with their stamps: files by their endings, and folders in diffusers' layout."""
        for place in shelf_places(shelf):
            self._links: list[Path] = []
            yield from self._look(place, root=True)
            while self._links:
                yield from self._look(self._links.pop(0))

    def covers(self, path: Path, places: Iterable[Path]) -> bool:
        """Whether a model at this path would have been found by walking these places."""
        inner = [root for root in self._roots.values() if path.is_relative_to(root)]
        return any(path.is_relative_to(place) and all(place.is_relative_to(root) for root in inner) for place in places)

    def _look(self, folder: Path, root: bool = False) -> Iterator[Found]:
        place = _place(folder)
        if place is None or place in self._entered or (place in self._roots and not root):
            return
        self._entered.add(place)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            if any(entry.name == FOLDER_MARK for entry in entries):
                yield Found(folder, folder_stamp(folder))
                return
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.name.startswith((".", "~")):  # hidden, or temporary
                continue
            if _is_folder(entry):
                if entry.name in NO_SHELVES:
                    continue
                if entry.is_symlink():
                    self._links.append(Path(entry.path))
                else:
                    yield from self._look(Path(entry.path))
            elif _is_model(entry) and f"{entry.name}.aria2" not in names:  # aria2 is still downloading it
                yield Found(Path(entry.path), file_stamp(entry.stat()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_model(entry: os.DirEntry[str]) -> bool:
    try:
        return os.path.splitext(entry.name)[1].lower() in MODEL_SUFFIXES and entry.is_file()
    except OSError:
        return False


def _place(folder: Path) -> Place | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
