"""Stable Diffusion 2: a UNet with linear projections that hears OpenCLIP's last but one layer."""

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
    id="sd2",
    published={"Stable Diffusion 2": (320, 1024)},
    scale=0.18215,
    encoders=("text_encoder",),
    activations=("gelu",),
    size=512,
    size_of_v=768,
    fits=lambda unet: unet.adm is None and unet.linear,
    signs=lambda unet: f"linear layers around attention at {sum(map(any, unet.down))} levels, no added conditions",
)


def recognise(header: Header) -> Match | None:
    """A Stable Diffusion 2 model of any width and variant, or None."""
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
    title="Stable Diffusion 2",
    medium="image",
    recognise=recognise,
    load=load,
    tasks=TASKS,
    defaults=defaults,
    knobs=KNOBS,
    toy=toy,
)
