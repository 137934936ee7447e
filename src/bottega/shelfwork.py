"""Work on the shelves, as a request of plain data asks for it: scan, get, convert, merge, hash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from bottega.errors import BottegaError, FileError, Interrupted
from bottega.events import Event, Note, Step
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.disk import stamp_of
from bottega.library.hashes import blake3_file, hash_model, hashes_of, keep_hash
from bottega.settings import Settings, within

if TYPE_CHECKING:
    from bottega.library.merge_recipe import Parent

Tell = Callable[[Event], None]

LARGE = 1 << 30  # bytes of a file from which on a SHA-256 takes so long that a merge had to wait for it


class BadRequest(BottegaError):
    """A request that says nothing that can be done."""

    exit_code = 2


def work(
    kind: str, request: Mapping[str, Any], settings: Settings, tell: Tell, stop: threading.Event
) -> dict[str, Any] | list[Any]:
    """Do what a request asks for; the result is plain data.

    `tell` hears how it goes. Setting `stop` ends it with Interrupted the next time that there is something to tell;
    what has arrived or is known by then is kept. Raises BadRequest for what can't be meant, and any BottegaError.
    """
    if kind not in KINDS:
        raise BadRequest(f"there is no work called {kind!r}", f"there are {', '.join(KINDS)}")
    do, known = KINDS[kind]
    for name in request:
        if name not in known:
            raise BadRequest(f"{kind} has no use for {name!r}", f"it takes {', '.join(known)}")
    with open_catalog(settings.catalog) as catalog:
        result: dict[str, Any] | list[Any] = do(_Desk(settings, catalog, tell, stop), request)
        return result


class _Desk(NamedTuple):
    """What every kind of work needs."""

    settings: Settings
    catalog: Catalog
    tell: Tell
    stop: threading.Event

    @property
    def shelves(self) -> list[Path]:
        """The shelves of the settings and those that were named in earlier scans, each once."""
        return list(dict.fromkeys(path.absolute() for path in (*self.settings.all_shelves, *self.catalog.shelves())))

    def progress(self, phase: str) -> Callable[[int, int], None]:
        """What is to be told how far a phase is; it raises Interrupted once the work is to stop."""

        def told(done: int, total: int) -> None:
            if self.stop.is_set():
                raise Interrupted("stopped")
            self.tell(Step(phase, done, total))

        return told

    def phases(self, phase: str, done: int, total: int) -> None:
        """The same for work that tells its phases itself."""
        self.progress(phase)(done, total)

    def place(self, name: str) -> Path:
        """Where something that is named so is written, on the home's shelf; FileError for what leads out of it."""
        path = within(self.settings.models, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, path: Path) -> None:
        """Put what was written on record, so that it is found by its name."""
        from bottega.library.find import find
        from bottega.recognisers import all_recognisers

        find(self.catalog, str(path), all_recognisers())


def _scan(desk: _Desk, request: Mapping[str, Any]) -> dict[str, Any]:
    from bottega.inspector import COMMAND
    from bottega.library.scan import scan
    from bottega.recognisers import all_recognisers

    folders = [_folder(name) for name in request.get("folders", ())]
    for folder in folders:
        if not any(folder.is_relative_to(shelf) for shelf in desk.shelves):
            desk.catalog.add_shelf(folder)
    looked = folders or desk.shelves
    headers = desk.progress("headers")
    report = scan(
        desk.catalog,
        looked,
        all_recognisers(),
        headers,
        inspector=COMMAND,
        hashing=desk.progress("hash"),
    )
    forgotten = 0
    if request.get("forget_missing"):
        there = [shelf for shelf in looked if shelf.is_dir()]
        gone = [entry.path for entry in desk.catalog.gone() if any(_is_on(entry, shelf) for shelf in there)]
        desk.catalog.forget(gone)
        forgotten = len(gone)
    return {
        "models": report.sorts.total(),
        "headers_read": report.headers_read,
        "new": report.new,
        "changed": report.changed,
        "moved": len(report.moved),
        "gone": len(report.gone),
        "forgotten": forgotten,
        "unusual": [entry.name for entry in report.unusual],
        "refused": [{"name": entry.name, "error": entry.error} for entry in report.refused],
        "seconds": round(report.seconds, 3),
    }


def _is_on(entry: Entry, shelf: Path) -> bool:
    return entry.shelf == shelf or entry.path.is_relative_to(shelf)


def _folder(name: str) -> Path:
    folder = Path(name).expanduser().absolute()
    if not folder.is_dir():
        raise FileError(folder, "there is no such folder", "check the path")
    return folder.resolve()


def _get(desk: _Desk, request: Mapping[str, Any]) -> list[Any]:
    from bottega.library.sources.client import client_for
    from bottega.library.sources.fetch import Stop, get
    from bottega.library.sources.install import Shelf, Target
    from bottega.library.sources.offers import Choice
    from bottega.library.sources.references import look_up, shown_reference
    from bottega.recognisers import all_recognisers

    references = list(dict.fromkeys(request.get("references", ())))
    if not references:
        raise BadRequest("no model is named", "name civitai:ID, hf:ORG/NAME or an https:// address")
    if len(references) > 1 and (request.get("sha256") or request.get("name")):
        raise BadRequest("sha256 and name are for one model", "get the models one by one")

    class Stopping(Stop):
        """Stops the threads when the job is to stop."""

        def check(self) -> None:
            self.asked = self.asked or desk.stop.is_set()
            super().check()

    stop = Stopping()
    client = client_for(desk.settings, stop.pause)
    choice = Choice(request.get("file", ""), request.get("variant", ""), request.get("sha256", "").strip().lower())
    folder = desk.place(request["to"]) if request.get("to") else None
    target = Target(folder, request.get("name", ""), bool(request.get("allow_unusual")))
    shelf = Shelf(desk.settings.models.absolute(), desk.catalog, all_recognisers())
    outcomes: dict[str, Any] = {}
    offers = {}
    for reference in references:
        try:
            offers[reference] = look_up(client, desk.settings, reference, choice)
        except Interrupted:
            raise
        except BottegaError as error:
            outcomes[reference] = error
    progress = desk.progress("get")
    wanted = list(offers.values())
    told = get(client, stop, desk.settings, shelf, wanted, target, lambda what, done, total: progress(done, total))
    outcomes |= dict(zip(offers, told, strict=True))
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, BottegaError)]
    if len(failed) == len(outcomes):
        raise failed[0]
    return [
        {"reference": shown_reference(reference), "status": "failed", "error": str(outcome)}
        if isinstance(outcome, BottegaError)
        else _pathless(outcome.to_json())
        for reference, outcome in outcomes.items()
    ]


def _convert(desk: _Desk, request: Mapping[str, Any]) -> dict[str, Any]:
    from bottega.library.convert import Wish, convert

    (source,) = parents_of([_named(request, "source")], desk.shelves, desk.catalog)
    wish = Wish(
        request.get("dtype", "keep"),
        request.get("layout"),
        bool(request.get("prune")),
        bool(request.get("ema")),
        bool(request.get("force")),
    )
    parent = source.parent
    match = parent.match if parent.recogniser else None
    place = desk.place(_named(request, "destination"))
    converted = convert(parent.header, place, wish, match, parent.anatomy, desk.phases)
    desk.record(converted.path)
    return _pathless(asdict(converted))


def _merge(desk: _Desk, request: Mapping[str, Any]) -> dict[str, Any]:
    from bottega.library.merge import check_fit, merge
    from bottega.library.merge_recipe import HEAVIEST, Wish, method_of

    names = list(request.get("models", ()))
    if not 1 <= len(names) <= 3:
        raise BadRequest(f"{len(names)} models are named; a merge takes 1 to 3", "merge the result once more")
    loras = [(str(name), float(weight)) for name, weight in request.get("loras", ())]
    if len(names) == 1 and not (request.get("vae") or loras):
        raise BadRequest("one model alone is nothing to merge", "name another one, a LoRA or a VAE")
    weights = tuple(map(float, request.get("weights", ())))
    weight, density = request.get("weight"), float(request.get("density", 0.5))
    if not 0 < density <= 1:
        raise BadRequest(f"density {density:g} is not between 0 and 1", "0.5 keeps half of a difference")
    for told in (*weights, *(weight for _, weight in loras), weight or 0.0):
        if not abs(told) <= HEAVIEST:  # nor NaN
            raise BadRequest(f"{told:g} is no weight", f"write a number from -{HEAVIEST} to {HEAVIEST}, such as 0.5")
    method = method_of(request.get("method"), len(names))
    wish = Wish(
        method, weight, weights, density, int(request.get("seed", 0)), request.get("dtype", "keep"),
        bool(request.get("force")),
    )  # fmt: skip
    vaes = [str(request["vae"])] if request.get("vae") else []
    models = parents_of(names, desk.shelves, desk.catalog, kind="checkpoint")
    others = parents_of(vaes, desk.shelves, desk.catalog, kind="vae")
    added = parents_of([name for name, _ in loras], desk.shelves, desk.catalog, kind="lora")
    check_fit([model.parent for model in models], wish)
    strengths = [strength for _, strength in loras]
    with hashed([*models, *others, *added], desk.catalog, soonest_hash) as parents:
        merged = merge(
            parents[: len(models)],
            desk.place(_named(request, "out")),
            wish,
            vae=parents[len(models)] if others else None,
            loras=list(zip(parents[len(parents) - len(added) :], strengths, strict=True)),
            told=desk.phases,
        )
    desk.record(merged.path)
    return _pathless(asdict(merged))


def _hash(desk: _Desk, request: Mapping[str, Any]) -> list[Any]:
    from bottega.library.find import find
    from bottega.recognisers import all_recognisers

    if request.get("all"):
        entries = [entry for entry in desk.catalog.entries() if not entry.error]
    else:
        entries = [find(desk.catalog, name, all_recognisers(), desk.shelves) for name in request.get("models", ())]
    if not entries:
        raise BadRequest("no model is named", "name some, or ask for all")
    total, before = sum(entry.size for entry in entries), 0
    progress = desk.progress("hash")
    known = []
    for entry in entries:
        try:
            known.append(hashes_of(desk.catalog, entry, partial(_from, progress, before, total)))
        except (FileError, OSError) as error:
            if len(entries) == 1:
                raise
            desk.tell(Note(str(error)))
        before += entry.size
    return [
        {
            "name": entry.name,
            "size": entry.size,
            "sha256": entry.sha256,
            "autov1": entry.autov1 or None,
            "autov2": entry.autov2,
            "autov3": entry.autov3,
            "crc32": entry.crc32 or None,
            "blake3": entry.blake3 or None,
        }
        for entry in known
    ]


def _from(progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


# What can be asked for: the function that does it, and what a request may say.
KINDS: Mapping[str, tuple[Callable[[_Desk, Mapping[str, Any]], Any], tuple[str, ...]]] = {
    "scan": (_scan, ("folders", "forget_missing")),
    "get": (_get, ("references", "sha256", "file", "variant", "to", "name", "allow_unusual")),
    "convert": (_convert, ("source", "destination", "dtype", "layout", "prune", "ema", "force")),
    "merge": (
        _merge,
        ("models", "out", "method", "weight", "weights", "density", "seed", "vae", "loras", "dtype", "force"),
    ),
    "hash": (_hash, ("models", "all")),
}


def _named(request: Mapping[str, Any], field: str) -> str:
    told = request.get(field)
    if not isinstance(told, str) or not told.strip():
        raise BadRequest(f"{field} is not said", f"say it in the field {field!r}")
    return told


def _pathless(told: dict[str, Any]) -> dict[str, Any]:
    """A result that may leave this machine: with the name of the file, and not with its place."""
    path = Path(told.pop("path"))
    return {"file": path.name, **told}


# --- models that go into new ones ------------------------------------------------------------------------------------


class Named(NamedTuple):
    """A model that was named: what it is, and its entry in the catalog."""

    parent: Parent
    entry: Entry


def parents_of(
    references: Sequence[str], shelves: Sequence[Path], catalog: Catalog, *, kind: str | None = None
) -> list[Named]:
    """The models that the references mean, those of `kind` first; unknown ones are looked for on the shelves."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.find import find
    from bottega.library.identify import identify
    from bottega.library.merge_recipe import Parent
    from bottega.recognisers import all_recognisers

    anatomies = {family.id: family.anatomy for family in all_families()}
    found = []
    for reference in references:
        entry = find(catalog, reference, all_recognisers(), shelves, kind=kind)
        header = read_header(entry.path)
        identity = identify(header, all_recognisers())
        anatomy = anatomies.get(identity.recogniser)
        match = replace(identity.match, guess=False) if "family" in entry.corrected else identity.match
        parent = Parent(header, match, identity.recogniser, entry.family, anatomy, entry.name)
        found.append(Named(parent, entry))
    return found


@contextmanager
def hashed(
    models: Sequence[Named], catalog: Catalog, kind_of: Callable[[Entry], str] = lambda entry: "sha256"
) -> Iterator[list[Parent]]:
    """The models with a hash of the kind that is wanted of each; what is not known is computed meanwhile.

    One thread does it for all of them: two would leave no core for the imports that the work begins with.
    """
    stopped = threading.Event()
    entries = {entry.path: entry for _, entry in models}
    hashes = {path: _Hash(entry, kind_of(entry), catalog, stopped) for path, entry in entries.items()}
    wanted = [hash for hash in hashes.values() if not hash.known]
    threading.Thread(target=_make, args=(wanted,), name="hash", daemon=True).start()
    try:
        made = [(parent, hashes[entry.path]) for parent, entry in models]
        yield [replace(parent, digits=hash.result, hashed_by=hash.kind) for parent, hash in made]
    finally:
        stopped.set()


def _make(hashes: Sequence[_Hash]) -> None:
    for hash in hashes:
        hash.make()


def soonest_hash(entry: Entry) -> str:
    """The kind of hash that names a model in a merge: SHA-256, as everywhere, but of a large file of which nobody knows
    it yet BLAKE3, as the SHA-256 would take longer than the merge. Sites and `models show` find a file by either."""
    if entry.size < LARGE or entry.path.is_dir() or (entry.sha256 and entry.stamp == stamp_of(entry.path)):
        return "sha256"
    return "blake3"


class _Hash:
    """A hash of one model, which another thread makes; the catalog is the affair of whoever asks for the result."""

    def __init__(self, entry: Entry, kind: str, catalog: Catalog, stopped: threading.Event) -> None:
        self.kind = kind
        self._entry, self._catalog, self._stopped = entry, catalog, stopped
        self._stamp = stamp_of(entry.path)
        self.known: str | None = getattr(entry, kind) if entry.stamp == self._stamp else None
        self._made: SimpleQueue[str | BaseException] = SimpleQueue()

    def result(self) -> str:
        """The hash, once it is known; the catalog keeps it."""
        if not self.known:
            made = self._made.get()
            if isinstance(made, BaseException):
                self._made.put(made)  # for whoever asks next
                raise made
            keep_hash(self._catalog, self._entry, self._stamp, self.kind, made)
            self.known = made
        return self.known

    def make(self) -> None:
        """Compute it for whoever waits for the result."""
        try:
            path = self._entry.path
            if self.kind == "blake3":
                self._made.put(blake3_file(path, lambda done: self._watch(done, self._stamp.size)))
            else:
                self._made.put(hash_model(path, self._stamp, self._watch))
        except BaseException as error:  # it is raised where the hash is asked for
            self._made.put(error)

    def _watch(self, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise Interrupted("the work ended before a hash was known")
