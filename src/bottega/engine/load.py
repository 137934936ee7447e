"""Loaded models, kept between runs."""

from __future__ import annotations

from typing import Any

from bottega.errors import FileError
from bottega.events import Note, Step
from bottega.formats import read_header
from bottega.formats.garbage import uncollected
from bottega.library import Entry
from bottega.library.disk import stamp_of
from bottega.spec import Emit, Family


class Loader:
    """Loads models onto one device and keeps the last one: only a change of model or precision loads again."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._key: tuple[str, str] | None = None
        self._pipe: Any = None

    def holds(self, entry: Entry, precision: str) -> bool:
        """Whether this model is loaded in this precision."""
        return self._key == (entry.sha256, precision)

    def load(self, entry: Entry, family: Family, precision: str, emit: Emit) -> Any:
        """The pipe of this model in this precision.

        Raises FileError if the file is no longer the one that was hashed, so that no recipe names bytes that it was
        not made with; what `emit` raises between two parts stops the loading.
        """
        from bottega.runtime.guard import guarded
        from bottega.runtime.place import choose, keep_memory, keep_precision

        assert entry.sha256 is not None
        if self.holds(entry, precision):
            return self._pipe
        self._key = self._pipe = None
        keep_memory()
        keep_precision()
        place = choose(self.device, precision)
        with guarded(), uncollected():
            header = read_header(entry.path)
            match = family.recognise(header)
            _refuse_changed(entry)
            assert match is not None
            pipe = family.load(header, match, place, lambda done, total: emit(Step("load", done, total)))
        _refuse_changed(entry)
        for note in pipe.notes:
            emit(Note(note))
        self._key, self._pipe = (entry.sha256, precision), pipe
        return pipe


def _refuse_changed(entry: Entry) -> None:
    if stamp_of(entry.path) != entry.stamp:
        raise FileError(entry.path, "was changed while it was loaded", "try again when it is complete")
