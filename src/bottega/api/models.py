"""The models that a server's clients can choose, and which of them a name means: never a path that a client made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from bottega.adapters._fits import serves
from bottega.errors import UnknownModel
from bottega.families import all_families, known
from bottega.library import Catalog
from bottega.library.browse import Wish, browse
from bottega.library.entry import Entry
from bottega.library.find import find, on_record, place_of
from bottega.library.fits import Mates
from bottega.recipe import Ref
from bottega.recognisers import all_recognisers
from bottega.workshop import Workshop

MOST = 10_000
LOOK_WITHIN = 60.0  # seconds that a list of models waits for the first look through the shelves
PICTURES = ("checkpoint", "diffusion_model")  # the kinds of models that make pictures by themselves


def running(workshop: Workshop, *kinds: str) -> list[Entry]:
    """The models of these kinds that run here, by name; all of them, also while a new home is looked through."""
    workshop.first_look.join(LOOK_WITHIN)
    found = _running(workshop, kinds)
    if not found and "checkpoint" in kinds:
        usual(workshop)
        found = _running(workshop, kinds)
    return found


def attachable(workshop: Workshop, kind: str, base: Entry | None = None) -> list[Entry]:
    """The adapters of a kind that can be used here with some model, or with this one, by name."""
    workshop.first_look.join(LOOK_WITHIN)
    wish = Wish(kind=kind, families=["", *(face.id for face in all_families())])  # small ones may not tell their family
    if base is not None:
        wish = Wish(kind=kind, mates=mates(base))
    return [entry for entry in browse(workshop.catalog, wish, "name", MOST).entries if _is_text(str(entry.path))]


def mates(entry: Entry) -> Mates:
    """What goes together with a model: with one that makes pictures its adapters and VAEs, with those the models."""
    families = {face.id for face in (*known(), *all_families())}
    return Mates(entry, sorted(family for family in families if serves("vae", family, entry.family)))


def _running(workshop: Workshop, kinds: Sequence[str]) -> list[Entry]:
    pages = [browse(workshop.catalog, Wish(kind=kind, runs=True), "name", MOST) for kind in kinds]
    return [entry for page in pages for entry in page.entries if _is_text(str(entry.path))]


def _is_text(name: str) -> bool:
    """Whether a recipe can hold a name: what is no valid Unicode on the disk it can't."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def usual(workshop: Workshop) -> Entry:
    """The model that is used where a request names none; raises UnknownModel and what is wrong with it."""
    name, catalog = workshop.settings.model, workshop.catalog
    with suppress(UnknownModel):
        return on_record(catalog, name, kind="checkpoint")
    shelves = (*workshop.settings.all_shelves, *catalog.shelves())
    return find(catalog, name, all_recognisers(), shelves, kind="checkpoint")


def place(entry: Entry) -> str:
    """A model's path on its shelf, which tells it from another of the same name."""
    if entry.shelf and entry.path.is_relative_to(entry.shelf):
        return entry.path.relative_to(entry.shelf).as_posix()
    return entry.path.name


def names(catalog: Catalog, entries: Sequence[Entry]) -> list[str]:
    """What to call each of these models: its name, or where it lies if others of these kinds are called so, too."""
    kinds = {entry.kind for entry in entries}
    called = Counter(name for name, _, kind in catalog.names() if kind in kinds)
    return [entry.name if called[entry.name] < 2 else place_of(entry) for entry in entries]


def aliases(catalog: Catalog, loras: Sequence[Entry], names: Sequence[str]) -> list[str]:
    """What their trainers called these LoRAs, where it means no other; else these names."""
    given = Counter(catalog.aliases())
    files = {name.casefold() for name, _, kind in catalog.names() if kind == "lora"}
    told = [lora.metadata.get("alias", "") for lora in loras]
    return [
        alias if given[alias] == 1 and alias.casefold() not in files else name
        for alias, name in zip(told, names, strict=True)
    ]


def ids(catalog: Catalog, entries: Sequence[Entry]) -> dict[str, Entry]:
    """The models by what to call them."""
    return dict(zip(names(catalog, entries), entries, strict=True))


def chosen(workshop: Workshop, kind: str, name: str) -> Entry:
    """The model of a kind on record that a client's name means: a title, a name, a place on a shelf or a hash.

    Raises UnknownModel with the nearest names, AmbiguousModel, or what is wrong with the file.
    """
    workshop.first_look.join(LOOK_WITHIN)
    return on_record(workshop.catalog, name, kind=kind)


def reference(entry: Entry) -> Ref:
    """How a draft names a model that was chosen."""
    return Ref(name=str(entry.path))
