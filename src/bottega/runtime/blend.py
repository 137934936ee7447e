"""Ways to make one tensor of two or three: what merges compute, in float32, a block at a time.

Every way takes `blocks`, which gives the tensors of models A, B and, where there is one, C in equal pieces, as often as
it is asked to: SLERP and TIES look at all of a tensor before they change any of it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

Blocks = Callable[[], Iterator[tuple[torch.Tensor, ...]]]
Blended = Iterator[torch.Tensor]

PARALLEL = 0.9995  # the cosine beyond which two tensors point the same way, and SLERP is a weighted sum


@dataclass(frozen=True)
class Share:
    """How much of B, for one tensor: its weight, and for TIES and DARE how much of a difference is kept.

    `seed` and `name` decide which numbers DARE keeps.
    """

    weight: float
    density: float = 1.0
    seed: int = 0
    name: str = ""


def weighted(blocks: Blocks, share: Share) -> Blended:
    """A (1 - weight) + B weight."""
    for a, b, *_ in blocks():
        yield torch.lerp(a, b, share.weight)


def add_difference(blocks: Blocks, share: Share) -> Blended:
    """A + (B - C) weight."""
    for a, b, c in blocks():
        yield a.add(b - c, alpha=share.weight)


def slerp(blocks: Blocks, share: Share) -> Blended:
    """From A towards B on the arc between them; the angle is that of the whole tensors, their lengths are kept.

    With the angle t between A and B: (A sin((1 - weight) t) + B sin(weight t)) / sin t. Tensors that point the same
    way, or of which one is zero, have no such arc: they are added by weight. Shoemake 1985.
    """
    products = torch.zeros(3, dtype=torch.float64)
    for a, b, *_ in blocks():
        a, b = a.double(), b.double()
        products += torch.stack([torch.dot(a, b), torch.dot(a, a), torch.dot(b, b)])
    dot, aa, bb = products.tolist()
    lengths = math.sqrt(aa * bb)
    cosine = dot / lengths if lengths else 1.0
    if not abs(cosine) <= PARALLEL:
        yield from weighted(blocks, share)
        return
    angle = math.acos(cosine)
    of_a, of_b = (math.sin(part * angle) / math.sin(angle) for part in (1 - share.weight, share.weight))
    for a, b, *_ in blocks():
        yield a.mul(of_a).add_(b, alpha=of_b)


def ties(blocks: Blocks, share: Share) -> Blended:
    """TIES-Merging (Yadav et al. 2023): of each difference the largest numbers, where the differences agree on a sign.

    With C, the differences A - C and B - C, by 1 - weight and weight, are added to C as the weighted mean of those that
    have the sign which prevails; without it, the difference B - A, by weight, to A. The `density` share of a tensor's
    numbers is kept, the largest ones.
    """
    limits = _limits(blocks, share.density)
    for base, weights, differences in _differences(blocks, share):
        kept = [torch.where(it.abs() >= limit, it, 0) for it, limit in zip(differences, limits, strict=True)]
        if len(kept) == 1:
            yield base.add(kept[0], alpha=weights[0])
            continue
        total = sum(it * weight for it, weight in zip(kept, weights, strict=True))
        sign = torch.sign(total)
        agree = [(torch.sign(it) == sign) & (sign != 0) for it in kept]
        added = sum(torch.where(yes, it * weight, 0) for yes, it, weight in zip(agree, kept, weights, strict=True))
        voices = sum(yes * weight for yes, weight in zip(agree, weights, strict=True))
        yield base + torch.where(voices > 0, added / voices.clamp_min(torch.finfo(torch.float32).tiny), 0)


def dare(blocks: Blocks, share: Share) -> Blended:
    """DARE (Yu et al. 2023): of each difference a random `density` share of its numbers, by 1 / density.

    The differences are those of `ties`, and are added up by their weights.
    """
    drawn = [_generator(share, which) for which in (0, 1)]
    for base, weights, differences in _differences(blocks, share):
        for difference, weight, generator in zip(differences, weights, drawn, strict=False):
            kept = torch.rand(difference.shape, generator=generator) < share.density
            base = base + difference * kept * (weight / share.density)
        yield base


WAYS: dict[str, Callable[[Blocks, Share], Blended]] = {
    "weighted": weighted,
    "add-difference": add_difference,
    "slerp": slerp,
    "ties": ties,
    "dare": dare,
}


def _generator(share: Share, which: int) -> torch.Generator:
    """What decides on the numbers of one tensor: seed, name, and which of the two differences it is."""
    digest = hashlib.sha256(f"{share.seed}\0{share.name}\0{which}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


Difference = tuple[torch.Tensor, list[float], list[torch.Tensor]]


def _differences(blocks: Blocks, share: Share) -> Iterator[Difference]:
    """What is changed, by which weights, and the differences that change it."""
    for a, b, *rest in blocks():
        if rest:
            yield rest[0], [1 - share.weight, share.weight], [a - rest[0], b - rest[0]]
        else:
            yield a, [share.weight], [b - a]


def _limits(blocks: Blocks, density: float) -> list[float]:
    """The size of the smallest number that is kept of each difference, exactly, without holding or sorting any of them.

    The bits of a positive float32 order as the number does: the upper 16 are counted first, then the lower 16 of those
    numbers that have the upper ones which the limit has.
    """
    upper: list[torch.Tensor] = []
    for _, _, differences in _differences(blocks, Share(0.5)):
        upper = upper or [torch.zeros(1 << 16, dtype=torch.int64) for _ in differences]
        for counts, difference in zip(upper, differences, strict=True):
            counts += torch.bincount(_bits(difference) >> 16, minlength=1 << 16)
    found = [_from_top(counts, max(1, round(density * int(counts.sum())))) for counts in upper]
    lower = [torch.zeros(1 << 16, dtype=torch.int64) for _ in upper]
    for _, _, differences in _differences(blocks, Share(0.5)):
        for counts, difference, (place, _) in zip(lower, differences, found, strict=True):
            bits = _bits(difference)
            counts += torch.bincount(bits[bits >> 16 == place] & 0xFFFF, minlength=1 << 16)
    bits = [place << 16 | _from_top(counts, left)[0] for counts, (place, left) in zip(lower, found, strict=True)]
    return [torch.tensor(it, dtype=torch.int32).view(torch.float32).item() for it in bits]


def _bits(difference: torch.Tensor) -> torch.Tensor:
    return difference.abs().view(torch.int32)


def _from_top(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The place where the `wanted` highest begin, and how many of those at that place are among them."""
    above = counts.flip(0).cumsum(0)
    index = int(torch.searchsorted(above, wanted))
    index = min(index, len(counts) - 1)
    return len(counts) - 1 - index, wanted - int(above[index] - counts.flip(0)[index])
