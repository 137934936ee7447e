"""Which adapters a recipe uses: found by name, pinned by hash, and checked against the model before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bottega.adapters._fits import serves
from bottega.engine.uses import TAG_OF_KIND, Asked, normal, ordered, problems_of
from bottega.errors import BottegaError, FieldProblem
from bottega.formats import Header
from bottega.library import Entry
from bottega.library.find import titled
from bottega.recipe import Ref, Use
from bottega.spec import CHECKPOINT_OF_FAMILY, Adapter, Attachment, Family, Match


@dataclass(frozen=True)
class Base:
    """The model that adapters are to change: its name, what its header says, and its family."""

    name: str
    header: Header
    match: Match
    family: Family


@dataclass(frozen=True)
class Ready:
    """An adapter that can be attached: its file as it was when it was hashed, its kind, and how it is used."""

    entry: Entry
    adapter: Adapter
    what: Attachment


Find = Callable[[Asked], Entry]  # the adapter that is meant, hashed; raises BottegaError
Read = Callable[[Entry], tuple[Adapter, Header, Match]]
Call = Callable[[Entry], str]  # a name by which the adapter is found again


def pinned(
    asked: Sequence[Asked], base: Base, find: Find, read: Read, call: Call
) -> tuple[tuple[Use, ...], list[FieldProblem]]:
    """The uses that change anything, each pinned by its adapter's hash; and all that is wrong with any of them."""
    uses: list[Use] = []
    problems: list[FieldProblem] = []
    for each in asked:
        if each.use.is_idle:
            continue
        found = list(_problems_of_numbers(each, base))
        try:
            entry = find(each)
            found += problems_of_fit(each, entry, base, read)
        except BottegaError as error:
            found.append(each.problem(error.what, error.remedy))
            problems += found
            continue
        problems += found
        use = normal(each.use.model_copy(update={"ref": Ref(name=_name(each.use, entry, call), sha256=entry.sha256)}))
        alike = [other.ref.name for other in uses if other.kind == use.kind]
        if use.kind == "vae" and alike:
            problems.append(each.problem(f"{use.ref.name} is a second VAE", "name one"))
        elif use.kind == "embedding" and use.ref.name in alike:
            problems.append(each.problem(f"{use.ref.name} is the second of that name", "name one"))
        else:
            uses.append(use)
    return ordered(uses), problems


def _name(use: Use, entry: Entry, call: Call) -> str:
    """What a recipe calls an adapter: what it called it when it was pinned, whatever its file is called by now; else
    as its file is called, or so that a tag finds it, but for the word by which a prompt names an embedding.

    A name that is no valid Unicode could be written into no picture; it is the hash that finds it again.
    """
    if use.ref.sha256 and not os.path.isabs(use.ref.name):
        return use.ref.name
    if use.kind == "embedding" and (word := titled(use.ref.name)):
        return word
    if use.kind == "vae":
        name = entry.path.name  # other programs know VAEs by their files
    else:
        name = call(entry) if use.kind in TAG_OF_KIND else entry.name
    return name.encode(errors="replace").decode()


def _problems_of_numbers(asked: Asked, base: Base) -> Iterator[FieldProblem]:
    anatomy = base.family.anatomy
    blocks = anatomy.blocks(base.match) if anatomy is not None and asked.use.blocks else ()
    for field, what, remedy in problems_of(asked.use, blocks):
        yield asked.problem(what, remedy, within=field)


def problems_of_fit(asked: Asked, entry: Entry, base: Base, read: Read) -> Iterator[FieldProblem]:
    """What is wrong with an adapter for that model, as far as headers tell."""
    use, name = asked.use, entry.name
    if entry.error:
        yield asked.problem(f"{name} can't be read: {entry.error}", "get the file again")
    elif entry.kind != use.kind:
        kind = "of no known kind" if entry.kind == "unknown" else entry.a_kind
        yield asked.problem(f"{name} is {kind}, and no {use.kind}", f"name a {use.kind}")
    else:
        adapter, header, match = read(entry)
        family = match.family if match.family is not None else adapter.id
        if adapter.attach is None:
            yield asked.problem(f"{name}: this version attaches no {adapter.title}", "leave it out")
            return
        what = Attachment(use, header, match, base.header, base.match, base.family)
        same = not family or serves(use.kind, family, base.family.id)
        words = adapter.unfit(what) if same or match.guess else "another family"
        if words and not same:
            made_for = CHECKPOINT_OF_FAMILY.get(family, f"a model of the family {family}")
            said = f"{name} is made for {made_for}, and {base.name} is {base.family.title}"
            yield asked.problem(said, "use one that fits, or another model")
        elif words:
            yield asked.problem(f"{name} does not fit {base.name}: {words}", "use one that fits, or another model")


def ready(uses: Sequence[Use], base: Base, find: Find, read: Read) -> tuple[Ready, ...]:
    """The adapters of a resolved recipe, to be attached in this order. Raises what `find` raises."""
    made = []
    for use in uses:
        entry = find(Asked(use, "adapters"))
        adapter, header, match = read(entry)
        made.append(Ready(entry, adapter, Attachment(use, header, match, base.header, base.match, base.family)))
    return tuple(made)
