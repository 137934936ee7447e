"""What InvokeAI's metadata says of how a picture was made, in the words of A1111's text.

From version 3 on it is flat (`invokeai_metadata`); version 2 kept it under `image` (`sd-metadata`), with what is not
wanted in brackets inside the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bottega.formats.infotext import Infotext, plain


def describe(metadata: Mapping[str, Any]) -> Infotext:
    """The prompts and settings; samplers and models keep InvokeAI's names."""
    old = metadata.get("image")
    told = old if isinstance(old, Mapping) else metadata
    skipped = told.get("clip_skip")
    fields = {
        "Steps": told.get("steps"),
        "Sampler": told.get("scheduler") or told.get("sampler"),
        "CFG scale": told.get("cfg_scale"),
        "Distilled CFG Scale": told.get("guidance"),
        "Seed": told.get("seed"),
        "Size": f"{told['width']}x{told['height']}" if told.get("width") and told.get("height") else None,
        "Model": metadata.get("model_weights") or _name(metadata.get("model")),
        "VAE": _name(metadata.get("vae")),
        "Clip skip": skipped + 1 if isinstance(skipped, int) and skipped else None,  # A1111 counts the layer in use
        "Denoising strength": told.get("strength"),
        "LoRA": _loras(metadata.get("loras")),
        "Version": f"InvokeAI {_text(metadata.get('app_version'))}".strip(),
    }
    return Infotext(
        _text(told.get("positive_prompt") or told.get("prompt")),
        _text(told.get("negative_prompt")),
        {name: text for name, value in fields.items() if (text := _text(value))},
    )


def _name(model: object) -> str:
    """A model's name, which versions 3 and 4 put under different keys."""
    return _text(model.get("name") or model.get("model_name")) if isinstance(model, Mapping) else _text(model)


def _loras(loras: object) -> str:
    used = [entry for entry in loras if isinstance(entry, Mapping)] if isinstance(loras, list) else []
    return ", ".join(f"{_name(entry.get('model') or entry.get('lora'))}:{_text(entry.get('weight'))}" for entry in used)


def _text(value: object) -> str:
    """A value as people read it; version 2 writes prompts as lists of parts with weights."""
    if isinstance(value, list):
        return " ".join(_text(part.get("prompt")) if isinstance(part, Mapping) else _text(part) for part in value)
    return plain(value)
