"""Notices models that were put into their usual folders since the last scan, without looking through whole shelves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bottega.errors import BottegaError
from bottega.library.catalog import Catalog
from bottega.library.disk import EMBEDDING_FOLDERS, MODEL_SUFFIXES, is_embedding_picture, stamp_of
from bottega.library.reading import read_entry
from bottega.library.shelves import shelf_places
from bottega.spec import Recogniser

# What workbenches call the folders for a kind, in lower case.
FOLDERS: Mapping[str, frozenset[str]] = {"embedding": EMBEDDING_FOLDERS, "vae": frozenset({"vae", "vaes"})}


Looked = dict[str, int]  # folders, and when something was last put into each or taken away (ns)


def notice(
    catalog: Catalog, shelves: Sequence[Path], recognisers: Sequence[Recogniser], kinds: Sequence[str], looked: Looked
) -> None:
    """Record models of some kinds that no scan has seen: right on a shelf, in its folders for them, or beside others.

    All else is left to the next scan, which tells of it. `looked` is kept from one time to the next: while no folder
    that was looked at has changed, there is nothing to notice.
    """
    if all(os.fspath(shelf) in looked for shelf in shelves) and all(_time(each) == at for each, at in looked.items()):
        return
    looked.clear()
    looked |= {os.fspath(shelf): _time(shelf) for shelf in shelves}
    known = catalog.there()
    folders = {os.path.dirname(path) for kind in kinds for _, path, _ in catalog.of_kind(kind)}
    beside = {folder: shelf for folder in folders if (shelf := _shelf_of(Path(folder), shelves))}
    unread = False
    for shelf, file in _files(shelves, beside, frozenset().union(*(FOLDERS[kind] for kind in kinds)), looked):
        if file in known:
            continue
        if os.path.splitext(file)[1].lower() in MODEL_SUFFIXES or is_embedding_picture(Path(file)):
            try:
                entry = read_entry(Path(file), stamp_of(Path(file)), shelf, recognisers)
            except (BottegaError, OSError):
                unread = True
                continue
            if entry.kind in kinds:
                catalog.put([entry])
    if unread:  # it may still be on its way here
        looked.clear()


def _shelf_of(path: Path, shelves: Sequence[Path]) -> Path | None:
    return next((shelf for shelf in shelves if path.is_relative_to(shelf)), None)


def _time(folder: str | Path) -> int:
    """When something was last put into a folder or taken away, in nanoseconds; 0 if there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _files(
    shelves: Sequence[Path], beside: Mapping[str, Path], names: frozenset[str], looked: Looked
) -> Iterator[tuple[Path, str]]:
    """The files that are looked at, each with its shelf; those of the folder for a kind at any depth."""
    for shelf in shelves:
        for place in shelf_places(shelf):
            looked[os.fspath(place)] = _time(place)
            for entry in _entries(place):
                if entry.name.lower() in names and entry.is_dir():
                    for at, _, files in os.walk(entry):
                        looked[at] = _time(at)
                        yield from ((shelf, os.path.join(at, name)) for name in files)
                elif entry.is_file() and (place.name.lower() in names or place == shelf):
                    yield shelf, entry.path
    for folder, shelf in beside.items():
        looked[folder] = _time(folder)
        yield from ((shelf, entry.path) for entry in _entries(folder) if entry.is_file())


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return []
