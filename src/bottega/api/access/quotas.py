"""How much each user may ask for: jobs that wait, jobs a minute, pixels a day. The owner may ask for anything."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
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

    def allow(self, owner: str, recipe: Recipe) -> None:
        """Count a job that a user asks for. Raises TooMuch where it is more than they may have."""
        quota = self._accounts.quota(owner)
        if quota.per_minute is not None:
            self._count(owner, quota.per_minute)
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

    def _count(self, owner: str, most: int) -> None:
        now = self._clock()
        with self._lock:
            asked = self._asked.setdefault(owner, deque())
            while asked and asked[0] <= now - MINUTE:
                asked.popleft()
            if len(asked) >= most:
                raise TooMuch(f"{owner} may send {most:,} jobs a minute", "wait a little", asked[0] + MINUTE - now)
            asked.append(now)
