"""The torch-free face that the Stable Diffusion families share: their tasks, and a `Family` from each design."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.families._stable_diffusion import recognise as recognition
from bottega.families._stable_diffusion.anatomy import anatomy_of
from bottega.families._stable_diffusion.knobs import KNOBS, problems
from bottega.families._stable_diffusion.lesson import lesson_of
from bottega.families._stable_diffusion.recognise import Design
from bottega.formats.header import Header
from bottega.spec import Emit, Family, Match, Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.errors import BrokenPicture
    from bottega.families._stable_diffusion.load import Part, Pipe
    from bottega.recipe import Recipe
    from bottega.runtime.place import Place


def _make(pipe: Any, batch: Sequence[Recipe], inputs: Mapping[str, Image], emit: Emit) -> list[Image | BrokenPicture]:
    from bottega.families._stable_diffusion.tasks import make

    return make(pipe, batch, inputs, emit)


TASKS = {
    task.id: task
    for task in (
        Task("text-to-image", _make),
        Task("image-to-image", _make, needs=("init",)),
        Task("inpaint", _make, needs=("init", "mask")),
    )
}


def family_of(design: Design, title: str) -> Family:
    """The family of one design, with everything that the three have in common."""

    def recognise(header: Header) -> Match | None:
        return recognition.recognise(header, design)

    def defaults(header: Header, match: Match) -> dict[str, Any]:
        return recognition.defaults(header, match, design)

    def limits(match: Match) -> dict[str, int]:
        text = match.dimensions.get("text_encoder") if design.id == "sd1" else None  # the others obey no clip skip
        return {"clip_skip": text["layers"]} if text else {}

    def load(
        header: Header,
        match: Match,
        place: Place,
        told: Callable[[int, int], None] = lambda done, total: None,
        *,
        instead: Mapping[str, Part] | None = None,
        vae: tuple[Header, Match] | None = None,
    ) -> Pipe:
        """The parts `instead` replace or complete the model's own; `vae` is for a model that has none."""
        from bottega.families._stable_diffusion.autoencoders import part_of
        from bottega.families._stable_diffusion.load import load

        needs, parts = recognition.needs(design, match), dict(instead or {})
        if vae is not None and "vae" not in match.parts:
            parts.setdefault("vae", part_of(*vae, match.dimensions["scale_factor"]))
        return load(header, match, place, told, family=design.id, needs=needs, instead=parts)

    def autoencoder(pipe: Pipe, header: Header, match: Match) -> Any:
        from bottega.families._stable_diffusion.autoencoders import autoencoder

        return autoencoder(header, match, pipe)

    def toy(path: Path, **options: Any) -> Path:
        """A tiny random model as a single file: see `toy.write_single_file` for the options."""
        from bottega.families._stable_diffusion.toy import write_single_file

        return write_single_file(path, design.id, **options)

    return Family(
        design.id,
        title,
        "image",
        recognise,
        load,
        TASKS,
        defaults,
        KNOBS,
        toy,
        limits=limits,
        problems=problems,
        varied=recognition.varied,
        anatomy=anatomy_of(design),
        train=lesson_of(design),
        autoencoder=autoencoder,
    )
