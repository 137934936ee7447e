"""Making an output again from what it carries, and telling whether the result is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.engine.a1111 import draft_of
from bottega.errors import FileError
from bottega.formats import infotext, media
from bottega.recipe import Output, Recipe, read_recipe

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Source:
    """What to make a file again from: a resolved recipe of ours, or the draft that A1111's text means.

    `notes` say what the replay will do otherwise.
    """

    recipe: Recipe
    notes: tuple[str, ...] = ()


def read_source(path: Path) -> Source:
    """What a file says of how it was made; FileError if it says nothing."""
    carried = media.read(path)
    if carried.recipe is not None:
        recipe = read_recipe(carried.recipe)
        if recipe.model is None or recipe.model.sha256 is None or recipe.sampling.seed is None or recipe.size is None:
            # Filled with defaults and a new seed it would be some picture, and not this one.
            raise FileError(path, "carries a recipe with gaps", "make it with `bottega make` from what `show` tells")
        return Source(recipe)
    if carried.parameters is not None:
        output = Output.model_validate({"format": carried.format})
        draft = draft_of(infotext.parse(carried.parameters))
        told = {"model": draft.model, "seed": draft.sampling.seed, "size": draft.size}
        if gaps := [name for name, value in told.items() if value is None]:
            what = f"carries a text that does not say its {' and '.join(gaps)}"
            raise FileError(path, what, "make it with `bottega make` from what `show` tells")
        return Source(draft.changed(output=output))
    raise carried.without_recipe(path, "only Bottega's and stable-diffusion-webui's pictures can be made again")


@dataclass(frozen=True)
class Comparison:
    """How a picture and its replay differ: not at all in bytes, not at all in pixels, or by `psnr` decibels.

    `made_otherwise` says in what the ways that the two were made differ, and so what may be the cause.
    """

    same_bytes: bool
    same_pixels: bool
    psnr: float
    made_otherwise: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The difference in words."""
        if self.same_bytes:
            return "the same to the byte"
        what = f"different (PSNR {self.psnr:.1f} dB)"
        if self.same_pixels:
            what = "the same in every pixel (the files differ outside of them)"
        return f"{what}; it was made with {', '.join(self.made_otherwise)}" if self.made_otherwise else what


def compare(original: Path, made: Path) -> Comparison:
    """Compare two files by bytes, then by pixels, then by what they say of how they were made."""
    if original.read_bytes() == made.read_bytes():
        return Comparison(same_bytes=True, same_pixels=True, psnr=float("inf"))
    first, second = media.open_picture(original).convert("RGB"), media.open_picture(made).convert("RGB")
    psnr = psnr_of(first, second)
    return Comparison(
        same_bytes=False,
        same_pixels=psnr == float("inf"),
        psnr=psnr,
        made_otherwise=tuple(_made_otherwise(_made(original), _made(made))),
    )


def _made(path: Path) -> dict[str, str | int]:
    """By what a file was made, as far as it says it."""
    recipe = media.read(path).recipe
    made = read_recipe(recipe).made if recipe else None
    if made is None:
        return {}
    told = made.model_dump(exclude_none=True)
    return {**told.pop("versions"), **told}


def _made_otherwise(before: Mapping[str, str | int], now: Mapping[str, str | int]) -> Iterator[str]:
    for name, value in before.items():
        if name in now and value != now[name]:
            yield f"{name} {value} (now {now[name]})"


def psnr_of(first: Image, second: Image) -> float:
    """Peak signal-to-noise ratio in decibels of two pictures; infinite for equal ones, 0 for different sizes."""
    from math import inf, log10

    import numpy

    if first.size != second.size:
        return 0.0
    difference = numpy.asarray(first, dtype=numpy.float64) - numpy.asarray(second, dtype=numpy.float64)
    error = float((difference**2).mean())
    return 10 * log10(255**2 / error) if error else inf
