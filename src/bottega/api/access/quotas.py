"""How much each user may ask for: jobs that wait, jobs a minute, pixels a day. The owner may ask for anything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bottega.api.access.accounts import Accounts
from bottega.api.access.refusal import TooMuch

if TYPE_CHECKING:
    from bottega.recipe import Recipe

MINUTE = 60.0
DAY = 86400.0


class Quotas:
    """Counts what users ask for; safe to use from several threads."""

    def __init__(
        self,
        accounts: Accounts,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._accounts, self._clock, self._wall = accounts, clock, wall
        self._lock = threading.Lock()
        self._asked: dict[str, deque[float]] = {}

    def waiting(self, owner: str) -> int | None:
        """How many jobs of a user may wait at once; None if as many as there is room for."""
        return self._accounts.quota(owner).waiting

    @contextmanager
    def allow(self, owner: str, recipe: Recipe) -> Iterator[None]:
        """Count a job that a user asks for, if the block that puts it into the queue does not fail.

        Raises TooMuch where it is more than they may have.
        """
        counted = self._counted(owner)
        try:
            pixels = self._spent(owner, recipe)
        except TooMuch:
            counted()
            raise
        try:
            yield
        except BaseException:
            counted()
            if pixels:
                self._accounts.spend_pixels(owner, -pixels)
            raise

    def _spent(self, owner: str, recipe: Recipe) -> int:
        """Take the pixels of a recipe from those of today; how many, 0 where they are not counted."""
        quota = self._accounts.quota(owner)
        if quota.pixels_per_day is not None:
            size = recipe.size
            pixels = recipe.count * (size.width * size.height if size else 0)
            spent = self._accounts.pixels_today(owner)
            if spent + pixels > quota.pixels_per_day:
                left = max(0, quota.pixels_per_day - spent)
                raise TooMuch(
                    f"this takes {pixels:,} pixels, and {left:,} are left of those of {owner} for today",
                    "ask for less, or wait until midnight (UTC)",
                    DAY - self._wall() % DAY,
                )
            self._accounts.spend_pixels(owner, pixels)
            return pixels
        return 0

    def _counted(self, owner: str) -> Callable[[], None]:
        """Count a job of this minute; what is answered takes that back."""
        most, now = self._accounts.quota(owner).per_minute, self._clock()
        if most is None:
            return lambda: None
        with self._lock:
            asked = self._asked.setdefault(owner, deque())
            while asked and asked[0] <= now - MINUTE:
                asked.popleft()
            if len(asked) >= most:
                raise TooMuch(f"{owner} may send {most:,} jobs a minute", "wait a little", asked[0] + MINUTE - now)
            asked.append(now)
        return lambda: self._uncount(asked, now)

    def _uncount(self, asked: deque[float], at: float) -> None:
        with self._lock, suppress(ValueError):  # it may be more than a minute ago by now
            asked.remove(at)
