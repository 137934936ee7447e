"""Find the model that a reference means: a path, a name, a name as A1111 writes it, or the beginning of a hash."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath

from bottega.errors import BottegaError, FileError, UnknownModel
from bottega.formats import read_header
from bottega.formats.folder import adapter_weights
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import MODEL_SUFFIXES, model_name, stamp_of
from bottega.library.hashes import hashes_of, sha256_of
from bottega.library.moves import by_stamp
from bottega.library.reading import autov1_of, read_entry, signature
from bottega.library.scan import Told, scan
from bottega.settings import comes_along
from bottega.spec import Recogniser

_TITLE = re.compile(r"(?P<name>.*?)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]")
_HASH = re.compile(r"[0-9a-fA-F]{8,64}")
_AUTOV1, _AUTOV2, _AUTOV3 = 8, 10, 12  # digits of these hashes, as they are written


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
            real = " and ".join(_short_hash(entry, len(wanted)) for entry in called)
            what = f"the hash of {name} is {real}, not {wanted}"
            remedy = f"put the right one on a shelf, or make a picture with this one: the model {name!r}"
        else:
            what = f"no model has the hash {wanted}" + (f", and none is called {name!r}" if name else "")
            remedy = "put it on a shelf and scan the shelves"
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
    hashing: Told | None = None,
) -> Entry:
    """The one model that the reference means; models of `kind` go before others of the same name, and the user's own
    before those that come along with Bottega.

    A hash may be a SHA-256 or the beginning of one (AutoV2), an AutoV1, AutoV3, CRC32 or BLAKE3. One that is not on
    record is looked for in models (of that kind) that were not hashed yet, the smallest first, if there is a `hashing`
    to tell of it: (bytes done, in all). That reads them, once and for all.

    A path to a file that no scan has seen is identified on the spot and recorded; a changed file is identified anew.
    When nothing on record has this name the shelves are looked through once more: a file that was put there a moment
    ago is found. Raises UnknownModel with the nearest names, FileError for a model that is known and gone,
    AmbiguousModel, or what is wrong with the file itself.
    """
    candidates = _candidates(catalog, reference, recognisers, kind)
    if not candidates and shelves:
        scan(catalog, shelves, recognisers)
        candidates = _candidates(catalog, reference, recognisers, kind)
    if not candidates and hashing and (digits := _digits(reference)):
        found = _preferred(_hashed_now(catalog, digits, kind, hashing), kind)
        candidates = [identify_path(catalog, entry.path, recognisers) for entry in found]
    if not candidates:
        check_gone(catalog, reference)
        nearest = _nearest(reference, catalog, kind)
        if title := _TITLE.fullmatch(reference.strip()):
            raise UnknownTitle(title, _preferred(_named(catalog, title["name"]), kind), nearest)
        raise UnknownModel(reference, nearest)
    return _only(candidates, reference)


def on_record(catalog: Catalog, reference: str, *, kind: str | None = None) -> Entry:
    """The one model on record that a name or a known hash means, for those who may name no paths.

    Nothing is looked for on disk. Raises UnknownModel with the nearest names, AmbiguousModel.
    """
    found = _preferred(_on_record(catalog, reference, kind), kind)
    if not found:
        raise UnknownModel(reference, _nearest(reference, catalog, kind))
    return _only(found, reference)


def _only(found: Sequence[Entry], reference: str) -> Entry:
    """The first of several copies of one model. Raises AmbiguousModel for different ones.

    To a hash of a LoRA's tensors alone, files that differ in what they say of themselves are copies.
    """
    digits = _digits(reference).lower()
    distinct = {
        entry.autov3 if entry.kind == "lora" and digits and (entry.autov3 or "").startswith(digits) else _own(entry)
        for entry in found
    }
    if len(distinct) > 1:
        raise AmbiguousModel(reference, [entry.path for entry in found])
    return found[0]


def check_gone(catalog: Catalog, reference: str) -> None:
    """Raise FileError where a reference that means nothing any more is the name, or the end of the path, of a model
    that was here."""
    wanted = reference.casefold()
    for gone in catalog.gone():
        path = gone.path.as_posix().casefold()
        if wanted in (gone.name.casefold(), str(gone.path).casefold()) or path.endswith(f"/{wanted}"):
            remedy = "put it back, or connect the disk that it is on"
            raise FileError(gone.path, f"the model {gone.name} was here at an earlier scan, and is gone", remedy)


def _own(entry: Entry) -> str | Path:
    """What only copies have in common, as far as that is known."""
    return entry.sha256 or entry.path


def name_of(catalog: Catalog, entry: Entry) -> str:
    """What to call a model so that `find` finds it: its name, or where it lies if others are called so, too."""
    return entry.name if _means(catalog, entry.name, entry) else place_of(entry)


def shortest_of(catalog: Catalog, entry: Entry) -> str:
    """What to type for a model so that `find` takes it for no other: its name, the end of its path, or all of it."""
    place = PurePosixPath(place_of(entry))
    said = (entry.name, place.with_name(model_name(entry.path)).as_posix(), place.as_posix())
    return next((each for each in said if _means(catalog, each, entry)), str(entry.path))


def _means(catalog: Catalog, reference: str, entry: Entry) -> bool:
    """Whether a name means this model, or copies of it, and nothing else on record."""
    found = _preferred(_on_record(catalog, reference, entry.kind), entry.kind)
    return {_own(each) for each in found} <= {_own(entry)}


def place_of(entry: Entry) -> str:
    """The path on its shelf by which a model is told from others of its name, with at least one folder in it: a bare
    file name means all files that are called so."""
    above = entry.path.parent
    if entry.shelf and above != entry.shelf and above.is_relative_to(entry.shelf):
        return entry.path.relative_to(entry.shelf).as_posix()
    return f"{above.name}/{entry.path.name}"


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
    if known is None or known.stamp != stamp:
        catalog.follow(by_stamp(catalog.known(stamp), {str(path): stamp}))
        known = catalog.entry(path)
    shelf, called, beside = (known.shelf, known.called, known.beside) if known else (None, "", 0)
    entry = read_entry(path, stamp, shelf, recognisers, called=called, beside=beside)
    catalog.put([entry])
    if known is None:
        catalog.reunite({path})  # before anything is said of it
    return catalog.entry(path) or entry


def _candidates(catalog: Catalog, reference: str, recognisers: Sequence[Recogniser], kind: str | None) -> list[Entry]:
    """What the reference may mean: all that the first sense in which it means anything gives, as the files are now."""
    if not reference.strip():
        return []
    path = _whole(Path(os.path.expanduser(reference)))
    there = os.path.exists(path)
    if there and looks_like_a_path(reference):
        return [identify_path(catalog, path, recognisers)]

    chosen = _preferred(_on_record(catalog, reference, kind), kind)
    if not chosen and there:
        return [identify_path(catalog, path, recognisers)]
    return [identify_path(catalog, entry.path, recognisers) for entry in chosen if os.path.exists(entry.path)]


def _whole(path: Path) -> Path:
    """The folder of an adapter, where a path is that of its weights: how strong it is stands in the config beside."""
    if path.suffix.lower() not in MODEL_SUFFIXES or not os.path.isfile(path.with_name("adapter_config.json")):
        return path
    return path.parent if path.name == adapter_weights(os.listdir(path.parent)) else path


def looks_like_a_path(reference: str) -> bool:
    """Whether a reference, where there is something at that path, means what is there, whatever else has the name."""
    return os.path.isabs(reference) or len(Path(reference).parts) > 1 or reference.startswith((".", "~"))


def is_of_one(catalog: Catalog, reference: str) -> bool:
    """Whether just one model on record has this name or known hash, whether its file is there or not."""
    return len(_on_record(catalog, reference)) == 1


def _on_record(catalog: Catalog, reference: str, kind: str | None = None) -> list[Entry]:
    named = _named(catalog, reference)
    # Prompts of A1111's call a LoRA as its trainer did, unless a file is called so.
    is_alias = kind == "lora" and not any(entry.kind == kind for entry in named)
    if is_alias and (meant := catalog.with_alias(reference)):
        return meant
    if named:
        return named
    if title := _TITLE.fullmatch(reference.strip()):
        # The same bytes under another name will do as well.
        return _with_hash(catalog, _named(catalog, title["name"]), title["hash"]) or _hashed(catalog, title["hash"])
    return _hashed(catalog, reference) if _HASH.fullmatch(reference) else []


def _hashed(catalog: Catalog, digits: str) -> list[Entry]:
    """The models with a known hash; else the LoRAs that say so of themselves."""
    found = catalog.with_hash(digits)
    return found or (catalog.with_told_hash(digits) if len(digits) >= _AUTOV3 else [])


def titled(reference: str) -> str | None:
    """The name in a reference of the form `name [hash]`; None for another one, and where there is no name in it."""
    title = _TITLE.fullmatch(reference.strip())
    return (title["name"] or None) if title else None


def _digits(reference: str) -> str:
    """The digits of the hash that a reference is or has, if any."""
    if title := _TITLE.fullmatch(reference.strip()):
        return title["hash"]
    return reference if _HASH.fullmatch(reference) else ""


def _hashed_now(catalog: Catalog, digits: str, kind: str | None, hashing: Told) -> list[Entry]:
    """The models with this hash among those that were not hashed yet; they are, until one has it."""
    if len(digits) == _AUTOV1:
        for entry in catalog.without_hash("autov1", kind):
            with suppress(OSError):  # a folder has none, and a file may be gone
                catalog.keep(entry, {"autov1": autov1_of(entry.path)})
        return catalog.with_hash(digits)
    # A beginning of ten digits is a SHA-256's, which alone takes a third of the time of all together.
    name, hash_it = ("sha256", sha256_of) if len(digits) == _AUTOV2 else ("blake3", hashes_of)
    unknown = catalog.without_hash(name, kind)
    total, done = sum(entry.size for entry in unknown), 0
    for entry in unknown:
        with suppress(FileError, OSError):  # it changed since the scan, or is gone
            hash_it(catalog, entry, partial(_from, hashing, done, total))
            if found := catalog.with_hash(digits):
                return found
        done += entry.size
    return []


def _from(told: Told, before: int, total: int, done: int, _: int) -> None:
    told(before + done, total)


def _named(catalog: Catalog, name: str) -> list[Entry]:
    """The models of this name, exactly if there are such, else whatever the case and the composition of its letters.

    A name may be a path on the shelf, or the end of one (`sub/folder/name`), with the file's ending or without.
    """
    wanted = name.replace(os.sep, "/")
    last = wanted.rpartition("/")[2]
    entries = catalog.named((wanted, last, model_name(Path(last))))
    for same in (str, _folded):
        names = [(entry, [same(path) for path in _path_names(entry)]) for entry in entries]
        exact = [entry for entry, paths in names if same(wanted) in paths]
        ending = [entry for entry, paths in names if any(path.endswith(same(f"/{wanted}")) for path in paths)]
        # A bare name means every model that is called so, wherever it lies; a path goes before the ends of others.
        if found := (exact or ending) if "/" in wanted else [*exact, *(each for each in ending if each not in exact)]:
            return found
    return []


def _path_names(entry: Entry) -> Iterable[str]:
    """The path of a model and its path on its shelf, both with and without the ending; its own names, if it has any."""
    names = [entry.called]
    if entry.path.parent.name == "blobs":
        names += entry.about.extra.get("names", "").split(", ")  # all that ollama has for it
    for name in filter(None, names):
        yield name
        if name.endswith(":latest"):  # the tag that ollama takes an absent one for
            yield name.removesuffix(":latest")
    paths = [entry.path]
    if entry.shelf and entry.path.is_relative_to(entry.shelf):
        paths.append(entry.path.relative_to(entry.shelf))
    for path in paths:
        yield path.as_posix()
        yield path.with_name(model_name(path)).as_posix()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _with_hash(catalog: Catalog, entries: Iterable[Entry], digits: str) -> list[Entry]:
    """Those of one name whose bytes have this hash; it is computed where it is not known, as the name alone may lie."""
    there = [entry for entry in entries if os.path.exists(entry.path) and not entry.error]
    for entry in there:
        _know(catalog, entry, len(digits))
    paths = {entry.path for entry in there}
    return [entry for entry in catalog.with_hash(digits) if entry.path in paths]


def _know(catalog: Catalog, entry: Entry, digits: int) -> None:
    """Compute what a hash of so many digits may be compared with, unless that is known."""
    sha256_of(catalog, entry)
    if digits == _AUTOV1 and entry.autov1 is None and not entry.path.is_dir():
        catalog.keep(entry, {"autov1": autov1_of(entry.path)})
    elif digits > _AUTOV2:
        hashes_of(catalog, entry)


def _preferred(entries: Sequence[Entry], kind: str | None) -> list[Entry]:
    """Those of the kind that is asked for, of them those that can be read, of them those that came not with Bottega, as
    far as there are such."""
    chosen = list(entries)
    for wished in (
        lambda entry: entry.kind == kind,
        lambda entry: not entry.error,
        lambda entry: not comes_along(entry.path),
    ):
        chosen = [entry for entry in chosen if wished(entry)] or chosen
    return chosen


def _nearest(reference: str, catalog: Catalog, kind: str | None) -> list[str]:
    names = {
        _folded(name): shown
        for shown, file, its_kind in catalog.names()
        if kind in (None, its_kind)
        for name in (shown, file)
    }
    wanted = Path(_TITLE.sub(r"\g<name>", reference)).name
    near = get_close_matches(_folded(wanted), names, n=5, cutoff=0.5)
    return list(dict.fromkeys(names[name] for name in near))[:3]


def _short_hash(entry: Entry, digits: int) -> str:
    """The entry's own hash of the sort that has so many digits."""
    known = entry.autov1 if digits == _AUTOV1 else entry.autov3 if digits == _AUTOV3 else None
    return known[:digits] if known else (entry.sha256 or "unknown")[:_AUTOV2]


def _listed(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(str, paths[:4]))
    return shown if len(paths) <= 4 else f"{shown} and {len(paths) - 4} more"
