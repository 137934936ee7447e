"""What SwarmUI's metadata says of how a picture was made, in the words of A1111's text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from bottega.formats.infotext import Infotext, plain

_PARAMETERS = "sui_image_params"


def is_metadata(told: Mapping[str, Any]) -> bool:
    """Whether SwarmUI wrote this."""
    return isinstance(told.get(_PARAMETERS), Mapping)


def describe(metadata: Mapping[str, Any]) -> Infotext:
    """The prompts and settings; samplers, schedules and models keep SwarmUI's names, which are mostly ComfyUI's."""
    told = metadata[_PARAMETERS]
    skipped = told.get("clipstopatlayer")
    fields = {
        "Steps": told.get("steps"),
        "Sampler": told.get("sampler") or told.get("comfyuisampler"),
        "Schedule type": told.get("scheduler") or told.get("comfyuischeduler"),
        "CFG scale": told.get("cfgscale"),
        "Distilled CFG Scale": told.get("fluxguidancescale"),
        "Seed": told.get("seed"),
        "Size": f"{told['width']}x{told['height']}" if told.get("width") and told.get("height") else None,
        "Model hash": _hash(metadata.get("sui_models")),
        "Model": told.get("model"),
        "VAE": told.get("vae"),
        "Variation seed": told.get("variationseed"),
        "Variation seed strength": told.get("variationseedstrength"),
        "Clip skip": -skipped if isinstance(skipped, int) and skipped < 0 else None,  # -1 is the last layer
        "Denoising strength": told.get("initimagecreativity"),
        "Refiner": told.get("refinermodel"),
        "LoRA": ", ".join(_loras(told.get("loras"), told.get("loraweights"))),
        "Version": f"SwarmUI {plain(told.get('swarm_version'))}".strip(),
    }
    return Infotext(
        plain(told.get("prompt")),
        plain(told.get("negativeprompt")),
        {name: text for name, value in fields.items() if (text := plain(value))},
    )


def _hash(models: object) -> str:
    """The first digits of the base model's hash, which is that of its tensors: what Civitai calls AutoV3."""
    used = models if isinstance(models, list) else []
    ours = (each for each in used if isinstance(each, Mapping) and each.get("param") == "model")
    return plain(next(ours, {}).get("hash")).lower().removeprefix("0x")[:12]


def _loras(names: object, weights: object) -> Iterator[str]:
    """Its newer versions write lists, its older ones texts with commas."""
    told = [each.split(",") if isinstance(each, str) else each for each in (names, weights)]
    loras, theirs = (each if isinstance(each, list) else [] for each in told)
    for name, weight in zip_longest(loras, theirs[: len(loras)], fillvalue="1"):
        yield f"{plain(name).strip()}:{plain(weight).strip()}"
