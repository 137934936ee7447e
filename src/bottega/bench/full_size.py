"""Writes a Stable Diffusion 1.5 of full size with random weights: as large and as slow as a real one, and free."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.errors import SaveError
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.formats import safetensors

if TYPE_CHECKING:
    import torch

SHAPES: Mapping[str, UnetShape | VaeShape | TextShape] = {
    "unet": UnetShape(
        naming="ldm",
        in_channels=4,
        out_channels=4,
        channels=(320, 640, 1280, 1280),
        down=((1, 1), (1, 1), (1, 1), (0, 0)),
        middle=1,
        up=((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        context=768,
        linear=False,
        heads=(8, 8, 8, 8),
    ),
    "vae": VaeShape("ldm", 3, 4, (128, 256, 512, 512), layers=2, quantised=True),
    "text_encoder": TextShape("transformers", 768, 12, 12, 3072, 49_408, 77, "quick_gelu"),
}
BYTES = 2_133_000_000  # of the file that SHAPES make
_NOISE = 1 << 26  # random numbers that are drawn, more than any tensor has: drawing all would take ten times as long


def full_size_model(folder: Path, shapes: Mapping[str, UnetShape | VaeShape | TextShape] = SHAPES) -> Path:
    """The model of these shapes in a folder, written if it is not there yet: complete or not at all.

    Raises SaveError where there is no room for it.
    """
    path = folder / "sd15-random.safetensors"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < 2 * BYTES:
        raise SaveError(
            f"{folder}: {free / 1e9:.1f} GB are free, and the full-size model takes {BYTES / 1e9:.1f}",
            "free some space, or measure with --quick, which does without it",
        )
    safetensors.write(path, _rows(shapes))
    return path


def _rows(shapes: Mapping[str, UnetShape | VaeShape | TextShape]) -> Iterator[tuple[str, str, tuple[int, ...], Any]]:
    """The tensors of a single file in float16, as `safetensors.write` takes them."""
    import torch

    from bottega.families._stable_diffusion import networks
    from bottega.families._stable_diffusion.keys import single_file
    from bottega.runtime.weights import rows

    modules = {
        "unet": networks.unet(shapes["unet"]),
        "vae": networks.vae(shapes["vae"], 0.18215),
        "text_encoder": networks.text_encoder(shapes["text_encoder"]),
    }
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0)).half()
    states = {part: _random(module.state_dict(), noise) for part, module in modules.items()}
    yield from rows(single_file("sd1", shapes, states))


def _random(state: Mapping[str, torch.Tensor], noise: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights that keep signals at their size, so that no number overflows on its way through the network."""
    made: dict[str, torch.Tensor] = {}
    for index, (name, like) in enumerate(state.items()):
        start = index * 7919 % (_NOISE - like.numel())
        drawn = noise[start : start + like.numel()].view(like.shape).clone()
        if like.ndim > 1:
            made[name] = drawn.mul_(1 / math.sqrt(like[0].numel()))
        else:
            made[name] = drawn.mul_(0.05).add_(1 if name.endswith("weight") else 0)
    return made
