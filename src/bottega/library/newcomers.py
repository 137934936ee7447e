"""Notices models that were put into their usual folders since the last scan, without looking through whole shelves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bottega.errors import BottegaError
from bottega.library.catalog import Catalog
from bottega.library.disk import MODEL_SUFFIXES, stamp_of
from bottega.library.reading import read_entry
from bottega.library.shelves import shelf_places
from bottega.spec import Recogniser

# What workbenches call the folders for a kind, in lower case.
FOLDERS: Mapping[str, frozenset[str]] = {"embedding": frozenset({"embeddings"}), "vae": frozenset({"vae", "vaes"})}


def notice(catalog: Catalog, shelves: Sequence[Path], recognisers: Sequence[Recogniser], kinds: Sequence[str]) -> None:
    """Record models of some kinds that no scan has seen: right on a shelf, in its folders for them, or beside others.

    All else is left to the next scan, which tells of it.
    """
    known = catalog.there()
    folders = {os.path.dirname(path) for kind in kinds for _, path, _ in catalog.of_kind(kind)}
    beside = {folder: shelf for folder in folders if (shelf := _shelf_of(Path(folder), shelves))}
    for shelf, file in _files(shelves, beside, frozenset().union(*(FOLDERS[kind] for kind in kinds))):
        if file not in known and os.path.splitext(file)[1].lower() in MODEL_SUFFIXES:
            with suppress(BottegaError, OSError):
                entry = read_entry(Path(file), stamp_of(Path(file)), shelf, recognisers)
                if entry.kind in kinds:
                    catalog.put([entry])


def _shelf_of(path: Path, shelves: Sequence[Path]) -> Path | None:
    return next((shelf for shelf in shelves if path.is_relative_to(shelf)), None)


def _files(shelves: Sequence[Path], beside: Mapping[str, Path], names: frozenset[str]) -> Iterator[tuple[Path, str]]:
    """The files that are looked at, each with its shelf; those of the folder for a kind at any depth."""
    for shelf in shelves:
        for place in shelf_places(shelf):
            for entry in _entries(place):
                if entry.name.lower() in names and entry.is_dir():
                    yield from ((shelf, os.path.join(at, name)) for at, _, files in os.walk(entry) for name in files)
                elif entry.is_file() and (place.name.lower() in names or place == shelf):
                    yield shelf, entry.path
    for folder, shelf in beside.items():
        yield from ((shelf, entry.path) for entry in _entries(folder) if entry.is_file())


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return []
