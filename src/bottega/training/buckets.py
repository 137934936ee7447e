"""Aspect-ratio buckets: sizes of about one area, and how a picture is brought to the one that suits its shape."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

STEP = 64  # pixels between two sizes, where the resolution is large enough for it
LONGEST = 2.0  # how many times its short side a picture's long side may be


@cache
def buckets(resolution: int) -> tuple[tuple[int, int], ...]:
    """All (width, height) whose area is at most the square of `resolution`, and nearly that; the square among them."""
    step = STEP if resolution >= 512 else max(8, resolution // 8 // 8 * 8)
    found = {(resolution, resolution)}
    width = step
    while width <= resolution * LONGEST:
        height = resolution * resolution // width // step * step
        if height and max(width, height) <= LONGEST * min(width, height):
            found |= {(width, height), (height, width)}
        width += step
    return tuple(sorted(found))


def bucket_of(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """The bucket whose shape is nearest to that of a picture."""
    ratio = size[0] / size[1]

    def distance(bucket: tuple[int, int]) -> tuple[float, int]:
        other = bucket[0] / bucket[1]
        return max(ratio / other, other / ratio), -bucket[0] * bucket[1]

    return min(buckets(resolution), key=distance)


def fitted(picture: Image, bucket: tuple[int, int]) -> tuple[Image, tuple[int, int]]:
    """The picture scaled to cover a bucket and cropped around its middle, and where that crop began (left, top)."""
    from PIL import Image as images

    scale = max(bucket[0] / picture.width, bucket[1] / picture.height)
    size = max(bucket[0], round(picture.width * scale)), max(bucket[1], round(picture.height * scale))
    if size != picture.size:
        picture = picture.resize(size, images.Resampling.LANCZOS)
    left, top = (size[0] - bucket[0]) // 2, (size[1] - bucket[1]) // 2
    return picture.crop((left, top, left + bucket[0], top + bucket[1])), (left, top)
