"""What a picture of any program says of how it was made, in A1111's words and names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from bottega.diffusion.names import find_sampler, from_comfy
from bottega.engine.uses import tag_name
from bottega.formats import comfyui, fooocus, infotext, invokeai, strictjson, swarmui
from bottega.formats.infotext import Infotext
from bottega.formats.media import Carried
from bottega.library.disk import model_name

Named = tuple[str, str] | None  # a sampler and a schedule of ours

# InvokeAI's samplers under A1111's names, where the two are the same; `_k` behind one means Karras' schedule.
_INVOKEAI = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lms": "LMS",
    "kdpm_2": "DPM2",
    "kdpm_2_a": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "ddim": "DDIM",
    "pndm": "PLMS",
    "unipc": "UniPC",
    "lcm": "LCM",
    "deis": "DEIS",
}
_LORA = re.compile(r"(.+?)(?::([-+.\de]+))?", re.DOTALL)


def told_by(carried: Carried) -> Infotext | None:
    """What a picture says of how it was made, whichever program wrote it; None if it says nothing.

    Other programs' samplers and schedules get A1111's names, those that it lacks are left out; LoRA become tags in the
    prompt, and models lose folder and suffix, as A1111 writes them.
    """
    if carried.parameters is not None:
        return infotext.parse(carried.parameters)
    programs: tuple[tuple[str | None, Callable[[Mapping[str, Any]], Infotext], Callable[[str, str], Named]], ...] = (
        (carried.comfy_prompt, comfyui.describe, from_comfy),
        (carried.invokeai, invokeai.describe, _from_invokeai),
        (carried.fooocus, fooocus.describe, from_comfy),
        (carried.swarmui, swarmui.describe, from_comfy),
    )
    for text, describe, named in programs:
        metadata = strictjson.object_or_none(text) if text is not None else None
        told = describe(metadata) if metadata is not None else None
        if told and (told.prompt or told.fields):
            return _in_a1111s_names(told, named)
    return None


def _in_a1111s_names(told: Infotext, named: Callable[[str, str], Named]) -> Infotext:
    fields = dict(told.fields)
    names = named(fields.pop("Sampler", "").lower(), fields.pop("Schedule type", "normal").lower())
    if names:
        fields["Sampler"], fields["Schedule type"] = names
    fields.pop("Version", None)  # which is not one of A1111's
    for field in ("Model", "VAE"):
        if field in fields:
            fields[field] = _bare(fields[field])
    # They all draw their noise on the CPU unless they are told otherwise, and they tell nobody.
    fields["RNG"] = "CPU"
    tags = [_tag(lora) for lora in fields.pop("LoRA", "").split(", ") if lora]
    if size := re.fullmatch(r"(\d+)x(\d+)", fields.pop("Size", "")):
        fields["Size-1"], fields["Size-2"] = size.groups()
    hashes = {"model": fields["Model hash"]} if "Model hash" in fields else {}
    return Infotext(" ".join([told.prompt, *tags]), told.negative, fields, hashes=hashes)


def _from_invokeai(sampler: str, schedule: str) -> Named:
    bare = sampler.removesuffix("_k")
    found = find_sampler(_INVOKEAI.get(bare, ""))
    if found is None:
        return None
    schedule = "Uniform" if bare == sampler else "Karras"
    return found.name, "Automatic" if found.timesteps or found.schedule == schedule else schedule


def _bare(name: str) -> str:
    """A model's name without the folders before it, on any system, and without its suffix."""
    return model_name(PurePosixPath(name.replace("\\", "/")))


def _tag(lora: str) -> str:
    name, weight = _LORA.fullmatch(lora).groups()  # type: ignore[union-attr]  # it matches all that is not empty
    return f"<lora:{tag_name(_bare(name))}:{weight or 1}>"
