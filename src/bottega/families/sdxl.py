"""Stable Diffusion XL, base and refiner: sizes and pooled text join the time, and no attention at the first level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.families._stable_diffusion import recognise as recognition
from bottega.families._stable_diffusion.face import KNOBS, TASKS
from bottega.formats.header import Header
from bottega.spec import Family, Match

if TYPE_CHECKING:
    from bottega.families._stable_diffusion.load import Part, Pipe
    from bottega.runtime.place import Place

DESIGN = recognition.Design(
    id="sdxl",
    published={"Stable Diffusion XL": (320, 2048), "the refiner of Stable Diffusion XL": (384, 1280)},
    scale=0.13025,
    encoders=("text_encoder", "text_encoder_2"),
    activations=("quick_gelu", "gelu"),
    size=1024,
    size_of_v=1024,
    # unCLIP adds conditions too, but has attention at every level but the deepest, as SD 2 has.
    fits=lambda unet: unet.adm is not None and unet.linear and not any(unet.down[0]),
    signs=lambda unet: f"{unet.adm} added conditions (pooled text, sizes), no attention at the first level",
)


def recognise(header: Header) -> Match | None:
    """A Stable Diffusion XL model of any width and variant, or None."""
    return recognition.recognise(header, DESIGN)


def defaults(header: Header, match: Match) -> dict[str, Any]:
    """Size, prediction and clip skip where the user says nothing."""
    return recognition.defaults(header, match, DESIGN)


def load(header: Header, match: Match, place: Place, *, instead: Mapping[str, Part] | None = None) -> Pipe:
    """The model on a device; the parts `instead` replace or complete its own."""
    from bottega.families._stable_diffusion.load import load

    return load(header, match, place, family=DESIGN.id, needs=recognition.needs(DESIGN, match), instead=instead or {})


def toy(path: Path, **options: Any) -> Path:
    """Writes a tiny random model of this family as a single file: see `toy.write_single_file` for the options."""
    from bottega.families._stable_diffusion.toy import write_single_file

    return write_single_file(path, DESIGN.id, **options)


family = Family(
    id=DESIGN.id,
    title="Stable Diffusion XL",
    medium="image",
    recognise=recognise,
    load=load,
    tasks=TASKS,
    defaults=defaults,
    knobs=KNOBS,
    toy=toy,
)
