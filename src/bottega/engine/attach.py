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
    """The adapters of one loaded model, in the order of the recipe that they were attached for."""

    def __init__(self) -> None:
        self._held: list[tuple[Use, Callable[[], None]]] = []

    def become(self, pipe: Any, wanted: Sequence[Ready], emit: Emit) -> None:
        """Have just these adapters attached: those that are not wanted, or come in another order, go first.

        If anything fails, nothing is attached. Raises FileError for an adapter that is no longer the one that was
        hashed, and what attaching raises.
        """
        from bottega.runtime.guard import guarded

        same = 0
        for (held, _), ready in zip(self._held, wanted, strict=False):
            if held != ready.what.use:
                break
            same += 1
        if same == len(self._held) == len(wanted):
            return
        try:
            self._keep(same)
            with guarded():
                for ready in wanted[same:]:
                    assert ready.adapter.attach is not None  # or no recipe with it would have been resolved
                    _refuse_changed(ready)
                    self._held.append((ready.what.use, ready.adapter.attach(pipe, ready.what, emit)))
                pipe.settle()
            for ready in wanted[same:]:
                _refuse_changed(ready)
        except BaseException:
            self._keep(0)
            pipe.settle()
            raise

    def _keep(self, count: int) -> None:
        """Take away all but the first so many, the last one first."""
        while len(self._held) > count:
            _, take_away = self._held.pop()
            take_away()


def _refuse_changed(ready: Ready) -> None:
    if stamp_of(ready.entry.path) != ready.entry.stamp:
        raise FileError(ready.entry.path, "was changed while it was attached", "try again when it is complete")
