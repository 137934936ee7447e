"""The torch-free face that the Stable Diffusion families share: their tasks and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bottega.families._stable_diffusion.knobs import KNOBS
from bottega.spec import Emit, Task

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.recipe import Recipe

__all__ = ["KNOBS", "TASKS"]


def _make(pipe: Any, batch: Sequence[Recipe], inputs: Mapping[str, Image], emit: Emit) -> list[Image]:
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
