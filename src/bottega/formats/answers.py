"""What a database answered, kept until something is written to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Answers:
    """The latest answers to questions about one database, `most` of them; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changing = threading.Lock()
        self._known: dict[Hashable, tuple[Hashable, Any]] = {}  # what was asked for last stands at the end

    def of(self, version: Hashable, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """What `ask` answers, which is only asked where it did not answer for this version of the database before.

        The version None is that of a database which is being written: nothing is kept of it. Who asks the same while
        the answer is looked for looks for it, too.
        """
        if version is None:
            return ask()
        with self._changing:
            known = self._known.get(question)
            if known is not None and known[0] == version:
                self._known[question] = self._known.pop(question)
                answer: Answer = known[1]
                return answer
        fresh = ask()
        with self._changing:
            self._known.pop(question, None)
            self._known[question] = version, fresh
            while len(self._known) > self._most:
                del self._known[next(iter(self._known))]
        return fresh
