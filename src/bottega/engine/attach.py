"""What is attached to a loaded model, and how that becomes what the next recipe asks for, without loading it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bottega.engine.adapters import Ready
from bottega.errors import FileError
from bottega.library.disk import stamp_of
from bottega.recipe import Use
from bottega.spec import Emit


class Attached:
    """The adapters of one loaded model by their kinds, those of a kind in the order of the recipe that asked for them.

    No kind minds what of another is attached before it or after.
    """

    def __init__(self) -> None:
        self._held: dict[str, list[tuple[Use, Callable[[], None]]]] = {}

    def become(self, pipe: Any, wanted: Sequence[Ready], emit: Emit) -> None:
        """Have just these adapters attached: those that are not wanted, or come in another order, go first.

        If anything fails, nothing is attached. Raises FileError for an adapter that is no longer the one that was
        hashed, and what attaching raises.
        """
        from bottega.runtime.guard import guarded

        asked: dict[str, list[Ready]] = {kind: [] for kind in self._held}
        for ready in wanted:
            asked.setdefault(ready.what.use.kind, []).append(ready)
        same = {kind: self._alike(kind, those) for kind, those in asked.items()}
        if all(same[kind] == len(self._held.get(kind, ())) == len(those) for kind, those in asked.items()):
            return
        missing = [ready for kind, those in asked.items() for ready in those[same[kind] :]]
        try:
            for kind, count in same.items():
                self._keep(kind, count)
            with guarded():
                for ready in missing:
                    assert ready.adapter.attach is not None  # or no recipe with it would have been resolved
                    _refuse_changed(ready)
                    use = ready.what.use
                    self._held.setdefault(use.kind, []).append((use, ready.adapter.attach(pipe, ready.what, emit)))
                pipe.settle()
            for ready in missing:
                _refuse_changed(ready)
        except BaseException:
            for kind in self._held:
                self._keep(kind, 0)
            pipe.settle()
            raise

    def _alike(self, kind: str, wanted: Sequence[Ready]) -> int:
        """How many of a kind, counted from the first, are attached as they are wanted."""
        same = 0
        for (held, _), ready in zip(self._held.get(kind, ()), wanted, strict=False):
            if held != ready.what.use:
                break
            same += 1
        return same

    def _keep(self, kind: str, count: int) -> None:
        """Take away all of a kind but the first so many, the last one first."""
        held = self._held.get(kind, [])
        while len(held) > count:
            _, take_away = held.pop()
            take_away()


def _refuse_changed(ready: Ready) -> None:
    if stamp_of(ready.entry.path) != ready.entry.stamp:
        raise FileError(ready.entry.path, "was changed while it was attached", "try again when it is complete")
