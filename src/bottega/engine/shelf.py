"""The models of one home as recipes mean them: found by name, pinned by hash, and read; adapters and their models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bottega.adapters import all_adapters
from bottega.adapters.vae import is_tiny_decoder
from bottega.engine.adapters import Base, Ready, problems_of_fit, ready
from bottega.engine.automatic import tiny_for
from bottega.engine.uses import Asked
from bottega.errors import Different, FileError, FormatError, UnknownModel, UnsupportedModel
from bottega.families import family
from bottega.formats import read_header
from bottega.library import Catalog, Entry, open_catalog
from bottega.library.disk import Stamp, stamp_of
from bottega.library.find import find, is_of_one, looks_like_a_path, name_of, on_record
from bottega.library.hashes import hashes_of, sha256_of
from bottega.library.newcomers import Looked, notice
from bottega.recipe import Ref, Use
from bottega.recognisers import all_recognisers
from bottega.settings import Settings, comes_along

if TYPE_CHECKING:
    from bottega.formats import Header
    from bottega.spec import Adapter, Match

REMEMBERED = 16  # models whose headers are kept read, and answers of the catalog

Told = TypeVar("Told")


@dataclass(frozen=True)
class Opened:
    """What a model's header says: what its family finds in it, and the bytes of its parts by precision."""

    header: Header
    match: Match
    weights: dict[str, Mapping[str, int]] = field(default_factory=dict)


class Shelf:
    """Finds, hashes and reads the models of one home; `hashing(done, total)` is told the bytes while one is hashed."""

    def __init__(self, settings: Settings, hashing: Callable[[int, int], None]) -> None:
        self._settings = settings
        self._hashing = hashing
        self._looked: Looked = {}
        self._found: dict[tuple[str, str], list[Any]] = {}  # what the catalog said when it had this version
        self._version: tuple[int, int] | None = None
        self._is_settled = False
        self._known: dict[tuple[Path, Stamp, int, str | None], Opened] = {}
        self._adapters: dict[tuple[Path, Stamp, str | None], tuple[Adapter, Header, Match]] = {}

    @cached_property
    def catalog(self) -> Catalog:
        """What is known of every model on the shelves."""
        return open_catalog(self._settings.catalog)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """While the block runs, what others write into the catalog is not looked for: a recipe is looked up at one
        moment, and what the one before it found is true for this one, too, if nothing was written in between."""
        self._notice_changes(self.catalog.version())
        self._is_settled = True
        try:
            yield
        finally:
            self._is_settled = False

    def _notice_changes(self, version: tuple[int, int]) -> None:
        if version != self._version:
            self._found.clear()
            self._version = version

    def _once(self, what: str, name: str, ask: Callable[[], Told]) -> Told:
        """What `ask` finds in the catalog, asked only once while that is settled and stays as it is."""
        if not self._is_settled:
            return ask()
        assert self._version is not None
        self._notice_changes((self._version[0], self.catalog.own_changes))
        known: list[Told] = self._found.get((what, name), [])
        if not known:
            if len(self._found) >= REMEMBERED:
                self._found.pop(next(iter(self._found)))
            known = self._found[what, name] = [ask()]
        return known[0]

    def of_kind(self, kind: str) -> list[tuple[str, Path, str]]:
        """Name, path and variant of every model of a kind that can be read, by path."""
        return self._once("kind", kind, lambda: self.catalog.of_kind(kind))

    def find(self, reference: str, kind: str = "checkpoint") -> Entry:
        """The model of that name, path or hash; raises UnknownModel with the nearest names.

        For a hash that is not on record, also in the `name [hash]` of A1111, models of the kind are hashed until one
        has it.
        """
        return find(self.catalog, reference, all_recognisers(), self._folders(), kind=kind, hashing=self._hashing)

    def checkpoint(self, ref: Ref) -> Entry:
        """The model a recipe means, hashed, and one that a family here can run."""
        if ref.sha256 or looks_like_a_path(ref.name):
            return self._checkpoint(ref)
        known = self._once("checkpoint", ref.name, lambda: self._only(ref))
        return known if known and _is_unchanged(known) else self._checkpoint(ref)

    def _only(self, ref: Ref) -> Entry | None:
        """The model that a name means; None where others are on record whose files may say something else by now."""
        entry = self._checkpoint(ref)
        return entry if is_of_one(self.catalog, ref.name) else None

    def _checkpoint(self, ref: Ref) -> Entry:
        entry = self._pinned(ref, ref.sha256) if ref.sha256 else self.find(ref.name)
        if entry.error:
            raise FormatError(entry.path, entry.error)
        if not entry.runs:
            raise UnsupportedModel(entry.path, *_why_not(entry))
        return sha256_of(self.catalog, entry, self._hashing)

    def _pinned(self, ref: Ref, sha256: str, kind: str = "checkpoint") -> Entry:
        for known in self.catalog.with_sha256(sha256):
            # A copy that was replaced or damaged since does not hide a good one.
            with suppress(UnknownModel, FormatError):
                entry = sha256_of(self.catalog, self.find(str(known.path), kind), self._hashing)
                if entry.sha256 == sha256:
                    return entry
        try:
            entry = sha256_of(self.catalog, self.find(ref.name, kind), self._hashing)
        except FormatError as error:
            raise Different(f"the model {ref.name} was changed since: {error.what}", "put the original back") from None
        except (UnknownModel, FileError) as gone:
            try:  # it may have another name by now
                return sha256_of(self.catalog, self.find(sha256, kind), self._hashing)
            except (UnknownModel, FileError):
                raise gone from None
        if entry.sha256 != sha256 and comes_along(entry.path):
            # The user's own of that name was meant, which may have another by now.
            with suppress(UnknownModel, FileError):
                return sha256_of(self.catalog, self.find(sha256, kind), self._hashing)
            what = f"the model {ref.name} with the SHA-256 {sha256[:10]}... is on no shelf, only another of that name"
            raise Different(what, "put it back")
        if entry.sha256 != sha256:
            now = str(entry.sha256)[:10]
            raise Different(
                f"the model {ref.name} was changed since: its SHA-256 is {now}..., the recipe says {sha256[:10]}...",
                f"put the original back, it is not {entry.path}",
            )
        return entry

    def meant(self, asked: Asked) -> Entry:
        """The adapter that is meant, hashed. A prompt, which may come from anywhere, names no paths."""
        ref, kind = asked.use.ref, asked.use.kind
        if ref.sha256:
            entry = self._pinned(ref, ref.sha256, kind)
        elif asked.tag:
            entry = self._named(ref.name, kind)
        else:
            entry = self.find(ref.name, kind)
        # The hash by which other programs know a LoRA is of its tensors alone.
        hash_it = hashes_of if kind == "lora" else sha256_of
        return hash_it(self.catalog, entry, self._hashing)

    def _named(self, name: str, kind: str) -> Entry:
        """The model that a name means, which is no path."""
        try:
            return self.find(str(on_record(self.catalog, name, kind=kind).path), kind)
        except UnknownModel:
            if os.path.exists(os.path.expanduser(name)):
                raise
            return self.find(name, kind)

    def name_of(self, entry: Entry) -> str:
        """What a recipe that is written now calls a model."""
        return name_of(self.catalog, entry)

    def read(self, entry: Entry) -> Opened:
        """The header of a model and what its family finds in it; its variant is the one that the user says."""
        variant = entry.corrected.get("variant")
        key = (entry.path, entry.stamp, entry.beside, variant)  # what lies beside it can say what it predicts
        if (known := self._known.get(key)) is not None:
            return known
        header = read_header(entry.path)
        face = family(entry.recogniser)
        match = face.recognise(header)
        assert match is not None  # or the catalog would not name the family
        opened = Opened(header, face.varied(match, variant) if variant else match)
        if _is_unchanged(entry):
            if len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = opened
        return opened

    def adapter(self, entry: Entry) -> tuple[Adapter, Header, Match]:
        """What kind of adapter a model is, its header, and what is found in it; UnsupportedModel if it is none."""
        key = (entry.path, entry.stamp, entry.corrected.get("family"))
        if (known := self._adapters.get(key)) is not None:
            return known
        face = next((each for each in all_adapters() if each.id == entry.recogniser), None)
        header = read_header(entry.path)
        match = face.recognise(header) if face else None
        if face is None or match is None:
            raise UnsupportedModel(entry.path, "is nothing that changes a model", "name an adapter")
        if "family" in entry.corrected:
            match = replace(match, family=entry.family, guess=False)
        if _is_unchanged(entry):
            if len(self._adapters) >= REMEMBERED:
                self._adapters.pop(next(iter(self._adapters)))
            self._adapters[key] = face, header, match
        return face, header, match

    def base(self, entry: Entry) -> Base:
        """A model as what adapters are to change."""
        model = self.read(entry)
        return Base(entry.name, model.header, model.match, family(entry.recogniser))

    def ready(self, entry: Entry, uses: Sequence[Use]) -> tuple[Ready, ...]:
        """The adapters of a resolved recipe for that model, to be attached."""
        base = self.base(entry)
        if base.family.autoencoder and not ("vae" in base.match.parts or any(use.kind == "vae" for use in uses)):
            # The one that it was completed with for another recipe may be loaded.
            raise UnsupportedModel(entry.path, "has no VAE", "name a VAE for it, or a model that has one")
        return ready(uses, base, self.meant, self.adapter)

    def fits(self, asked: Asked, base: Base) -> bool:
        """Whether an adapter at a path can be read and fits a model."""
        try:
            entry = self.find(asked.use.ref.name, asked.use.kind)
            return not any(problems_of_fit(asked, entry, base, self.adapter))
        except (FileError, UnknownModel):
            return False

    def previewer(self, base: Base) -> Ready | None:
        """A tiny autoencoder on the shelves that a model's previews can be decoded with."""
        for path in tiny_for(base.family.id, [(path, variant) for _, path, variant in self.of_kind("vae")]):
            asked = Asked(Use(kind="vae", ref=Ref(name=str(path))), "adapters")
            if self.fits(asked, base):
                (found,) = ready([asked.use], base, lambda each: self.find(each.use.ref.name, "vae"), self.adapter)
                if is_tiny_decoder(found.what.header, found.what.match):
                    return found
        return None

    def notice(self) -> None:
        """Take in the embeddings and VAEs that came since: those a recipe uses without naming them."""
        notice(self.catalog, self._folders(), all_recognisers(), ("embedding", "vae"), self._looked)

    def _folders(self) -> tuple[Path, ...]:
        return (*self._settings.all_shelves, *self._once("shelves", "", self.catalog.shelves))


def _is_unchanged(entry: Entry) -> bool:
    try:
        return stamp_of(entry.path) == entry.stamp
    except OSError:
        return False


def _why_not(entry: Entry) -> tuple[str, str]:
    """Why no picture can be made with a model that no family here runs, and what to do instead."""
    if entry.kind in ("checkpoint", "diffusion_model"):
        return f"is a model of the family {entry.family}, which Bottega knows and can't run yet", "choose another model"
    if entry.kind == "unknown":
        return f"is no model that Bottega knows ({'; '.join(entry.because)})", "choose another model"
    whose = f" of {entry.family}" if entry.family else ""
    return f"is no checkpoint but {entry.a_kind}{whose}: it makes no pictures by itself", "name a checkpoint"
