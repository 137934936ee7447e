"""How many requests were answered, how, and how fast: what /metrics tells of them."""

from __future__ import annotations

from bisect import bisect_left

from bottega.api import doors

BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds


class Counts:
    """Requests by door and status, and their times; all from the one thread of the server's loop."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.buckets: dict[str, list[int]] = {}
        self.seconds: dict[str, float] = {}

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; 0 is the status of one that was never given."""
        door = doors.door(path)
        key = (door, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        buckets = self.buckets.setdefault(door, [0] * (len(BOUNDS) + 1))
        buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds[door] = self.seconds.get(door, 0.0) + seconds
