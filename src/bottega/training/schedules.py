"""How the learning rate goes over a training, as a factor for each step."""

from __future__ import annotations

import math


def factor(schedule: str, step: int, steps: int, *, warmup: int = 0, cycles: int = 1) -> float:
    """What the learning rate is multiplied by at a step counted from 0, from 0 to 1.

    It rises evenly over `warmup` steps; then `constant` stays, `linear` and `polynomial` (of power 2) fall to 0, and
    `cosine` does in half a wave, `cosine-restarts` in as many as `cycles`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    gone = (step - warmup) / max(steps - warmup, 1)
    if schedule == "linear":
        return 1.0 - gone
    if schedule == "polynomial":
        return (1.0 - gone) ** 2
    if schedule == "cosine-restarts":
        gone = gone * cycles % 1.0
    return 0.5 * (1.0 + math.cos(math.pi * gone))
