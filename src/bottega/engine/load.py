"""Loaded models, kept between runs as far as memory allows, those that are worth least going first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bottega.engine.adapters import Ready
from bottega.engine.attach import Attached
from bottega.errors import FileError
from bottega.events import Note, Step
from bottega.formats import Header, read_header
from bottega.formats.garbage import uncollected
from bottega.library import Entry
from bottega.library.disk import Stamp, stamp_of
from bottega.spec import Emit, Family, Match

Key = tuple[str, str]  # a model's SHA-256, and the precision that it is loaded in


@dataclass
class Loaded:
    """A model in memory: its pipe, how many bytes it holds, how long it took to load and what it is worth to keep.

    `bytes` are with what is `attached`; `waiting` are those of them that are in main memory while nothing runs, because
    the parts `away` are there. `previewer` is the file of what its previews are made with.
    """

    name: str
    pipe: Any
    bytes: int
    seconds: float
    attached: Attached = field(default_factory=Attached)
    waiting: int = 0
    away: frozenset[str] = frozenset()
    previewer: tuple[Path, Stamp] | None = None
    uses: int = 0
    value: float = 0.0

    @property
    def staying(self) -> int:
        """The bytes that it holds of its device between runs."""
        return self.bytes - self.waiting

    def told(self) -> dict[str, int]:
        """The bytes that it holds of its device now, and those of it that are in main memory."""
        moved = self.pipe.moved if self.waiting else 0
        return {"bytes": self.staying + moved, "waiting": self.waiting}


class Keeping:
    """What is kept within a budget of bytes, by GreedyDual-Size with frequency (Cherkasova 1998).

    A model is worth the seconds that loading it again would take, for each byte and as often as it was used, on top of
    what the last one that went was worth: so what nobody uses any more goes in time, however dear it was.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.loaded: dict[Key, Loaded] = {}
        self._floor = 0.0

    @property
    def bytes(self) -> int:
        """What all that is kept holds."""
        return sum(each.bytes for each in self.loaded.values())

    def use(self, key: Key) -> Any:
        """The pipe that is kept under a key, worth more from now on; None if there is none."""
        found = self.loaded.get(key)
        if found is None:
            return None
        found.uses += 1
        found.value = self._floor + found.uses * max(found.seconds, 1e-3) / max(found.bytes, 1)
        return found.pipe

    def put(self, key: Key, loaded: Loaded) -> None:
        """Keep a model; there has to be room for it."""
        self.loaded[key] = loaded
        self.use(key)

    def make_room(self, bytes: int, spare: Key | None = None) -> bool:
        """Let go of what is worth least until so many bytes are within the budget; whether anything went.

        The model `spare` stays whatever it is worth.
        """
        gone = False
        while self.bytes + bytes > self.budget and (others := [key for key in self.loaded if key != spare]):
            least = min(others, key=lambda key: self.loaded[key].value)
            self._floor = max(self._floor, self.loaded.pop(least).value)
            gone = True
        return gone


class Loader:
    """Loads models onto one device and keeps them; no model is ever there twice in the same precision.

    `budget` is how many bytes they may hold between runs. While one is loaded that is larger, it is alone.
    """

    def __init__(self, device: str, budget: int = 0) -> None:
        self.device = device
        self.kept = Keeping(budget)

    def holds(self, entry: Entry, precision: str) -> bool:
        """Whether this model is loaded in this precision."""
        return (entry.sha256, precision) in self.kept.loaded

    def held(self, entry: Entry, precision: str) -> int:
        """How many bytes of the device this model holds in this precision now."""
        loaded = self.kept.loaded.get((str(entry.sha256), precision))
        return loaded.staying if loaded else 0

    def away(self, entry: Entry, precision: str) -> tuple[frozenset[str], int]:
        """Which parts of this model wait in main memory, if it is loaded in this precision, and how many bytes."""
        loaded = self.kept.loaded.get((str(entry.sha256), precision))
        return (loaded.away, loaded.waiting) if loaded else (frozenset(), 0)

    def told(self) -> list[dict[str, Any]]:
        """What is kept, as plain data, that which goes first at the beginning."""
        kept = list(self.kept.loaded.items())  # another thread may load one while this one tells
        return [
            {"name": each.name, "sha256": sha256, "precision": precision, **each.told(), "value": each.value}
            for (sha256, precision), each in sorted(kept, key=lambda item: item[1].value)
        ]

    def free(self, entry: Entry, precision: str) -> bool:
        """Let go of every model but one, and of all memory that can be had again; whether any model went."""
        from bottega.runtime.place import give_back

        gone = self.kept.make_room(self.kept.budget, (str(entry.sha256), precision))
        give_back()
        return gone

    def let_go(self) -> None:
        """Let go of every model, and of all memory that can be had again."""
        from bottega.runtime.place import give_back

        self.kept.loaded.clear()
        give_back()

    def load(
        self,
        entry: Entry,
        family: Family,
        precision: str,
        emit: Emit,
        bytes: int = 0,
        vae: tuple[Header, Match] | None = None,
        away: frozenset[str] = frozenset(),
    ) -> Any:
        """The pipe of this model in this precision, which will hold so many bytes; `vae` is for a model without one.

        The parts `away` wait in main memory while they don't run; a model that has others there is loaded again.

        Raises FileError if the file is no longer the one that was hashed, so that no recipe names bytes that it was
        not made with; what `emit` raises between two parts stops the loading.
        """
        from bottega.runtime.guard import guarded
        from bottega.runtime.place import choose, give_back, keep_memory, keep_precision

        assert entry.sha256 is not None
        key = (entry.sha256, precision)
        if key in self.kept.loaded and self.kept.loaded[key].away != away:
            del self.kept.loaded[key]
            give_back()
        if (pipe := self.kept.use(key)) is not None:
            return pipe
        began = time.monotonic()
        if self.kept.make_room(bytes):
            give_back()
        keep_memory()
        keep_precision()
        place = replace(choose(self.device, precision), away=away)
        with guarded(), uncollected():
            header = read_header(entry.path)
            match = family.recognise(header)
            _refuse_changed(entry)
            assert match is not None
            completed = {} if vae is None else {"vae": vae}
            pipe = family.load(header, match, place, _told(emit), **completed)
        _refuse_changed(entry)
        for note in pipe.notes:
            emit(Note(note))
        self.kept.put(key, Loaded(entry.name, pipe, bytes, time.monotonic() - began, away=away))
        return pipe

    def attach(
        self, entry: Entry, precision: str, wanted: Sequence[Ready], emit: Emit, bytes: int, waiting: int
    ) -> None:
        """Have just these adapters attached to a loaded model, which then holds so many bytes, some of them waiting."""
        loaded = self.kept.loaded[str(entry.sha256), precision]
        loaded.bytes, loaded.waiting = bytes, waiting
        self.kept.make_room(0, (str(entry.sha256), precision))
        loaded.attached.become(loaded.pipe, wanted, emit)

    def preview_with(self, entry: Entry, precision: str, tiny: Ready | None, emit: Emit) -> None:
        """Have a loaded model's previews made with a tiny autoencoder, or without one; none is worth a job."""
        loaded = self.kept.loaded[str(entry.sha256), precision]
        stamp = (tiny.entry.path, tiny.entry.stamp) if tiny else None
        if loaded.previewer == stamp:
            return
        loaded.pipe.previewer, loaded.previewer = None, stamp
        if tiny is None or tiny.what.family.autoencoder is None:
            return
        try:
            loaded.pipe.previewer = tiny.what.family.autoencoder(loaded.pipe, tiny.what.header, tiny.what.match)
        except FileError as error:
            emit(Note(f"previews without {tiny.entry.name}: {error.what}"))


def _told(emit: Emit) -> Callable[[int, int], None]:
    return lambda done, total: emit(Step("load", done, total))


def _refuse_changed(entry: Entry) -> None:
    if stamp_of(entry.path) != entry.stamp:
        raise FileError(entry.path, "was changed while it was loaded", "try again when it is complete")
