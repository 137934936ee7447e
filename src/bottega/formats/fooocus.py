"""What Fooocus' metadata says of how a picture was made, in the words of A1111's text.

It is the JSON of its own scheme, which it calls `fooocus`; its other one is A1111's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bottega.formats.infotext import Infotext, plain

_SIDES = re.compile(r"\D*(\d+)\D+(\d+)\D*")  # "(1152, 896)"
_AS_USUAL = ("", "None", "Default (model)")


def is_metadata(told: Mapping[str, Any]) -> bool:
    """Whether this is Fooocus' own scheme."""
    return told.get("metadata_scheme") == "fooocus" or str(told.get("version", "")).startswith("Fooocus")


def describe(metadata: Mapping[str, Any]) -> Infotext:
    """The prompts as they were typed, without what styles make of them, and the settings; samplers, schedules and
    models keep Fooocus' names."""
    sides = _SIDES.fullmatch(plain(metadata.get("resolution")))
    fields = {
        "Steps": metadata.get("steps"),
        "Sampler": metadata.get("sampler"),
        "Schedule type": metadata.get("scheduler"),
        "CFG scale": metadata.get("guidance_scale"),
        "Seed": metadata.get("seed"),
        "Size": f"{sides[1]}x{sides[2]}" if sides else None,
        "Model hash": metadata.get("base_model_hash"),
        "Model": metadata.get("base_model"),
        "VAE": metadata.get("vae"),
        "Clip skip": metadata.get("clip_skip"),
        "Refiner": metadata.get("refiner_model"),
        "Styles": metadata.get("styles"),
        "Performance": metadata.get("performance"),
        "Sharpness": metadata.get("sharpness"),
        "LoRA": _loras(metadata.get("loras")),
        "Version": metadata.get("version"),
    }
    return Infotext(
        plain(metadata.get("prompt")),
        plain(metadata.get("negative_prompt")),
        {name: text for name, value in fields.items() if (text := plain(value)) not in _AS_USUAL},
    )


def _loras(loras: object) -> str:
    """Fooocus writes a list of (name, weight, hash)."""
    used = [each for each in loras if isinstance(each, list) and len(each) > 1] if isinstance(loras, list) else []
    return ", ".join(f"{plain(name)}:{plain(weight)}" for name, weight, *_ in used)
