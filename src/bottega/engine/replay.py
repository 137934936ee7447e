"""Making an output again from what it carries, and telling whether the result is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.engine.a1111 import draft_of
from bottega.errors import FileError
from bottega.formats import infotext, media
from bottega.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from PIL.Image import Image


def read_source(path: Path) -> Recipe:
    """The resolved recipe in a file of ours, or the draft that A1111's text in it means; FileError without either."""
    carried = media.read(path)
    if carried.recipe is not None:
        return read_recipe(carried.recipe)
    if carried.parameters is not None:
        return draft_of(infotext.parse(carried.parameters))
    raise FileError(path, "carries no recipe", "only Bottega's and stable-diffusion-webui's pictures can be made again")


@dataclass(frozen=True)
class Comparison:
    """How a picture and its replay differ: not at all in bytes, not at all in pixels, or by `psnr` decibels."""

    same_bytes: bool
    same_pixels: bool
    psnr: float

    @property
    def verdict(self) -> str:
        """The difference in words."""
        if self.same_bytes:
            return "the same to the byte"
        if self.same_pixels:
            return "the same in every pixel (the files differ outside of them)"
        return f"different (PSNR {self.psnr:.1f} dB)"


def compare(original: Path, made: Path) -> Comparison:
    """Compare two files by bytes, then by pixels."""
    if original.read_bytes() == made.read_bytes():
        return Comparison(same_bytes=True, same_pixels=True, psnr=float("inf"))
    first, second = media.open_picture(original).convert("RGB"), media.open_picture(made).convert("RGB")
    psnr = psnr_of(first, second)
    return Comparison(same_bytes=False, same_pixels=psnr == float("inf"), psnr=psnr)


def psnr_of(first: Image, second: Image) -> float:
    """Peak signal-to-noise ratio in decibels of two pictures; infinite for equal ones, 0 for different sizes."""
    from math import inf, log10

    import numpy

    if first.size != second.size:
        return 0.0
    difference = numpy.asarray(first, dtype=numpy.float64) - numpy.asarray(second, dtype=numpy.float64)
    error = float((difference**2).mean())
    return 10 * log10(255**2 / error) if error else inf
