"""What a database answered, kept until something is written to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

MOST = 16  # lists of 100,000 numbers take a megabyte each

Answer = TypeVar("Answer")


class Answers:
    """The latest answers to questions about one database; safe to share between threads."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._known: dict[Hashable, tuple[Hashable, Any]] = {}  # what was asked for last stands at the end

    def of(self, version: Hashable, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """What `ask` answers, which is only asked where it did not answer for this version of the database before.

        The version None is that of a database which is being written: nothing is kept of it.
        """
        with self._changing:
            known = self._known.pop(question, None)
        if version is None or known is None or known[0] != version:
            known = version, ask()
        if version is not None:
            with self._changing:
                self._known[question] = known
                while len(self._known) > MOST:
                    del self._known[next(iter(self._known))]
        answer: Answer = known[1]
        return answer
