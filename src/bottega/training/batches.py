"""Which pictures a step looks at: every choice follows from seed and step, so that nothing needs remembering."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from bottega.training.buckets import bucket_of
from bottega.training.data import Picture


@dataclass(frozen=True, eq=False)
class Batches:
    """Pictures in batches of one bucket each; an epoch shows every picture as often as it repeats."""

    pictures: tuple[Picture, ...]
    size: int
    seed: int
    resolution: int
    square: bool

    def bucket(self, picture: Picture) -> tuple[int, int]:
        """The size that a picture is brought to."""
        return (self.resolution, self.resolution) if self.square else bucket_of(picture.size, self.resolution)

    @property
    def epoch_length(self) -> int:
        """Batches in one epoch."""
        return len(self._epoch(0))

    def at(self, number: int) -> list[int]:
        """The pictures, by their place in `pictures`, of a batch counted from the beginning of the training."""
        epoch, index = divmod(number, self.epoch_length)
        return self._epoch(epoch)[index]

    @lru_cache(maxsize=2)  # noqa: B019  # as old as the training itself
    def _epoch(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed} epoch {epoch}")
        by_bucket: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(self.pictures):
            by_bucket.setdefault(self.bucket(picture), []).extend([index] * picture.repeats)
        batches = []
        for _, members in sorted(by_bucket.items()):
            rng.shuffle(members)
            batches += [members[at : at + self.size] for at in range(0, len(members), self.size)]
        rng.shuffle(batches)
        return batches


def balanced(pictures: Sequence[Picture], regular: Sequence[Picture]) -> list[Picture]:
    """Pictures and regular ones, the latter repeated until an epoch shows as many of them as of the others."""
    if not regular:
        return list(pictures)
    wanted = sum(each.repeats for each in pictures)
    whole, more = divmod(wanted, len(regular))
    repeats = [whole + (index < more) for index in range(len(regular))]
    counted = [replace(each, repeats=count) for each, count in zip(regular, repeats, strict=True) if count]
    return [*pictures, *counted]


def held_out(pictures: Sequence[Picture], share: float, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Pictures to learn from, and those that are held out to judge by: at least one of each if there is a share."""
    ours = [each for each in pictures if not each.regular]
    if not share or len(ours) < 2:
        return list(pictures), []
    count = min(max(round(len(ours) * share), 1), len(ours) - 1)
    judged = set(random.Random(f"{seed} held out").sample(range(len(ours)), count))
    kept = [each for index, each in enumerate(ours) if index not in judged]
    return [*kept, *(each for each in pictures if each.regular)], [ours[index] for index in sorted(judged)]


def spoken(caption: str, rng: random.Random, *, dropout: float, shuffle: bool, keep: int) -> str:
    """A caption as it is said this time: left out now and then, or its parts in another order but for the first few."""
    if rng.random() < dropout:
        return ""
    if not shuffle:
        return caption
    parts = [part.strip() for part in caption.split(",")]
    first, rest = parts[:keep], parts[keep:]
    rng.shuffle(rest)
    return ", ".join([*first, *rest])
