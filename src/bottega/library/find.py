"""Find the model that a reference means: a path, a name, a name as A1111 writes it, or the beginning of a hash."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bottega.errors import BottegaError, UnknownModel
from bottega.formats import read_header
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import stamp_of
from bottega.library.hashes import sha256_of
from bottega.library.scan import read_entry, scan, signature
from bottega.spec import Recogniser

_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]")
_HASH = re.compile(r"[0-9a-fA-F]{8,64}")


class AmbiguousModel(BottegaError):
    """A reference that means several models; `candidates` are their paths."""

    exit_code = 2

    def __init__(self, reference: str, candidates: Sequence[Path]) -> None:
        super().__init__(f"{reference!r} is the name of {len(candidates)} models", f"say which: {_listed(candidates)}")
        self.candidates = tuple(candidates)


class UnknownTitle(UnknownModel):
    """A title as A1111 writes it, `name [hash]`, that means no model here: it says which of the two matches none."""

    def __init__(self, title: re.Match[str], called: Sequence[Entry], nearest: Sequence[str]) -> None:
        name, wanted = title["name"], title["hash"]
        if called:
            real = " and ".join((entry.sha256 or "unknown")[:10] for entry in called)
            old = " (8 digits are A1111's old kind of hash, which is not compared)" if len(wanted) == 8 else ""
            what = f"the hash of {name} is {real}, not {wanted}{old}"
            remedy = f"put the right one on a shelf, or make a picture with this one: --model {name!r}"
        else:
            what = f"no model has the hash {wanted}" + (f", and none is called {name!r}" if name else "")
            remedy = "put it on a shelf and run `bottega models scan`"
            remedy = f"did you mean {' or '.join(nearest)}? Else {remedy}" if nearest else remedy
        BottegaError.__init__(self, what, remedy)
        self.name, self.nearest = title[0], tuple(nearest)


def find(
    catalog: Catalog,
    reference: str,
    recognisers: Sequence[Recogniser],
    shelves: Sequence[Path] = (),
    *,
    kind: str | None = None,
) -> Entry:
    """The one model that the reference means; models of `kind` go before others of the same name.

    A path to a file that no scan has seen is identified on the spot and recorded; a changed file is identified anew.
    When nothing on record has this name the shelves are looked through once more: a file that was put there a moment
    ago is found. Raises UnknownModel with the nearest names, AmbiguousModel, or what is wrong with the file itself.
    """
    candidates = _candidates(catalog, reference, recognisers, kind)
    if not candidates and shelves:
        scan(catalog, shelves, recognisers)
        candidates = _candidates(catalog, reference, recognisers, kind)
    if not candidates:
        nearest = _nearest(reference, catalog.entries(), kind)
        if title := _TITLE.fullmatch(reference.strip()):
            raise UnknownTitle(title, _preferred(_named(catalog.entries(), title["name"]), kind), nearest)
        raise UnknownModel(reference, nearest)
    distinct = {entry.sha256 or entry.path for entry in candidates}
    if len(distinct) > 1:
        raise AmbiguousModel(reference, [entry.path for entry in candidates])
    return candidates[0]


def identify_path(catalog: Catalog, path: Path, recognisers: Sequence[Recogniser]) -> Entry:
    """What is at this path as it is now, from the catalog where that is still true. Raises BottegaError or OSError."""
    path = Path(os.path.abspath(path))
    if path.is_dir():
        read_header(path)  # refuses a folder that is no model before everything in it is looked at
    stamp = stamp_of(path)
    known = catalog.entry(path)
    if (
        known
        and known.stamp == stamp
        and known.read_by == signature(recognisers)
        and not (known.error or known.missing)
    ):
        return known
    entry = read_entry(path, stamp, known.shelf if known else None, recognisers)
    if known and known.stamp == stamp:
        entry = replace(entry, sha256=known.sha256, hashed_at=known.hashed_at)
    catalog.put([entry])
    return entry


def _candidates(catalog: Catalog, reference: str, recognisers: Sequence[Recogniser], kind: str | None) -> list[Entry]:
    """What the reference may mean: all that the first sense in which it means anything gives, as the files are now."""
    if not reference.strip():
        return []
    path = Path(os.path.expanduser(reference))
    there = os.path.exists(path)
    if there and (path.is_absolute() or len(path.parts) > 1 or reference.startswith((".", "~"))):
        return [identify_path(catalog, path, recognisers)]

    chosen = _preferred(_on_record(catalog, reference), kind)
    if not chosen and there:
        return [identify_path(catalog, path, recognisers)]
    return [identify_path(catalog, entry.path, recognisers) for entry in chosen if os.path.exists(entry.path)]


def _on_record(catalog: Catalog, reference: str) -> list[Entry]:
    entries = catalog.entries()
    if named := _named(entries, reference):
        return named
    if title := _TITLE.fullmatch(reference.strip()):
        # The same bytes under another name will do as well.
        return _with_hash(catalog, _named(entries, title["name"]), title["hash"]) or catalog.with_sha256(title["hash"])
    if _HASH.fullmatch(reference):
        return catalog.with_sha256(reference)
    return []


def _named(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The models of this name, exactly if there are such, else whatever the case and the composition of its letters.

    A name may be a path on the shelf, or the end of one (`sub/folder/name`), with the file's ending or without.
    """
    wanted = name.replace(os.sep, "/")
    for same in (str, _folded):
        names = [(entry, [same(path) for path in _path_names(entry)]) for entry in entries]
        exact = [entry for entry, paths in names if same(wanted) in paths]
        ending = [entry for entry, paths in names if any(path.endswith(same(f"/{wanted}")) for path in paths)]
        if found := exact or ending:
            return found
    return []


def _path_names(entry: Entry) -> Iterable[str]:
    """The path of a model and its path on its shelf, both with and without the ending."""
    paths = [entry.path]
    if entry.shelf and entry.path.is_relative_to(entry.shelf):
        paths.append(entry.path.relative_to(entry.shelf))
    for path in paths:
        yield path.as_posix()
        yield path.with_name(entry.name).as_posix()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _with_hash(catalog: Catalog, entries: Iterable[Entry], prefix: str) -> list[Entry]:
    """Those of one name whose bytes have this hash; it is computed where it is not known, as the name alone may lie."""
    hashed = (sha256_of(catalog, entry) for entry in entries if os.path.exists(entry.path) and not entry.error)
    return [entry for entry in hashed if entry.sha256 and entry.sha256.startswith(prefix.lower())]


def _preferred(entries: Sequence[Entry], kind: str | None) -> list[Entry]:
    """Those of the kind that is asked for, and of them those that can be read, as far as there are such."""
    chosen = list(entries)
    if of_kind := [entry for entry in chosen if entry.kind == kind]:
        chosen = of_kind
    return [entry for entry in chosen if not entry.error] or chosen


def _nearest(reference: str, entries: Sequence[Entry], kind: str | None) -> list[str]:
    names = {
        _folded(name): entry.name
        for entry in entries
        if not entry.error and kind in (None, entry.kind)
        for name in (entry.name, entry.path.name)
    }
    wanted = Path(_TITLE.sub(r"\g<name>", reference)).name
    near = get_close_matches(_folded(wanted), names, n=5, cutoff=0.5)
    return list(dict.fromkeys(names[name] for name in near))[:3]


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:4]))
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
