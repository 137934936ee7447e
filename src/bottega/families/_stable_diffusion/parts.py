"""The networks of a recognised Stable Diffusion model, by the file and the prefix that they are under: no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bottega.errors import UnsupportedModel
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.formats.header import Header
from bottega.spec import Match

ENCODERS = ("text_encoder", "text_encoder_2")

# What training and other programs leave in a checkpoint, and what no network here has a place for.
IGNORED = re.compile(
    r"^(model_ema\.|loss\.|first_stage_model\.loss\.|denoiser\.|embedding_manager\.|safety_checker/|feature_extractor/)"
    r"|(^|\.)(alphas_cumprod\w*|betas|sqrt_\w+|log_one_minus\w+|posterior_\w+|lvlb_weights|logvar|scale_factor)$"
    r"|(^|\.)(position_ids|logit_scale|attn_mask|v_pred|ztsnr|global_step)$"
)


@dataclass(frozen=True)
class Part:
    """One network of a model: the file that it is in, under which prefix, and its dimensions."""

    header: Header
    prefix: str
    shape: UnetShape | VaeShape | TextShape
    scale_factor: float


_SHAPES: dict[str, type[UnetShape | VaeShape | TextShape]] = {
    "unet": UnetShape,
    "vae": VaeShape,
    "text_encoder": TextShape,
    "text_encoder_2": TextShape,
}


def _shape(name: str, dimensions: Mapping[str, Any]) -> UnetShape | VaeShape | TextShape:
    """The dimensions as they were read; they may have been through JSON, which has no tuples."""
    return _SHAPES[name](**{key: _frozen(value) for key, value in dimensions.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def parts_of(header: Header, match: Match) -> dict[str, Part]:
    """The networks that a recognised file holds; a dict, so that one model's can take the place of another's."""
    return {
        name: Part(header, prefix, _shape(name, match.dimensions[name]), match.dimensions["scale_factor"])
        for name, prefix in match.parts.items()
    }


def idle(part: Part) -> Iterator[str]:
    """Beginnings of names that are in an OpenCLIP file though nothing reads them: SD 2's last block and projection."""
    shape = part.shape
    if isinstance(shape, TextShape) and shape.naming == "openclip" and shape.projection is None:
        yield f"{part.prefix}transformer.resblocks.{shape.layers}."
        yield f"{part.prefix}text_projection"


def average_name(name: str) -> str:
    """What a training's running average of a tensor is called in the file."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def stored_name(header: Header, name: str) -> str | None:
    """The name under which a tensor is in the file; its running average's, if only that was kept."""
    if name in header.tensors:
        return name
    average = average_name(name)
    return average if average in header.tensors else None


def incomplete(header: Header, part: str, missing: list[str]) -> UnsupportedModel:
    """The error of a part that lacks tensors."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    what = f"its {part} lacks {', '.join(missing[:3])}{more}"
    return UnsupportedModel(header.path, what, "the file is cut short, or not the model it seems to be")
