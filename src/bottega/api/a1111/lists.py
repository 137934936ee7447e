"""What A1111's clients list: models, samplers, schedules, and what a server without a craft says of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bottega.api.models import place
from bottega.diffusion.names import SAMPLERS, SCHEDULES, Sampler, split_old_name
from bottega.errors import BottegaError
from bottega.formats import read_header
from bottega.library.entry import Entry


def title(entry: Entry) -> str:
    """A model's title as A1111 writes it: its path on the shelf, and the hash where it is known."""
    path = place(entry)
    return f"{path} [{entry.autov2}]" if entry.autov2 else path


def models(entries: Iterable[Entry], names: Iterable[str]) -> list[dict[str, Any]]:
    """What sd-models tells of the models that run, with what to call them."""
    return [
        {
            "title": title(entry),
            "model_name": name,
            "hash": entry.autov2,
            "sha256": entry.sha256,
            "filename": place(entry),
            "config": None,
        }
        for entry, name in zip(entries, names, strict=True)
    ]


def samplers() -> list[dict[str, Any]]:
    """What samplers tells: every sampler, the names that old clients use among its aliases."""
    return [
        {"name": sampler.name, "aliases": [*sampler.aliases, *_old_names(sampler)], "options": _options(sampler)}
        for sampler in SAMPLERS
    ]


def _old_names(sampler: Sampler) -> list[str]:
    """The name with the schedule inside it that A1111 had before schedules were chosen apart."""
    old = f"{sampler.name} {sampler.schedule}"
    return [old] if sampler.schedule != "Uniform" and split_old_name(old) == (sampler.name, "Automatic") else []


def _options(sampler: Sampler) -> dict[str, str]:
    flags = {
        "scheduler": sampler.schedule.lower() if sampler.schedule != "Uniform" else "",
        "uses_ensd": "True" if sampler.uses_ensd else "",
        "second_order": "True" if sampler.second_order else "",
        "brownian_noise": "True" if sampler.brownian else "",
        "discard_next_to_last_sigma": "True" if sampler.discard_penultimate else "",
    }
    return {name: value for name, value in flags.items() if value}


def schedulers() -> list[dict[str, Any]]:
    """What schedulers tells."""
    return [
        {
            "name": schedule.id,
            "label": schedule.name,
            "aliases": list(schedule.aliases) or None,
            "default_rho": -1 if schedule.rho is None else schedule.rho,
            "need_inner_model": False,
        }
        for schedule in SCHEDULES
    ]


def upscalers() -> list[dict[str, Any]]:
    """What upscalers tells; "None" comes first, because clients put others in behind it."""
    return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]


def loras(entries: Iterable[Entry], names: Iterable[str], aliases: Iterable[str]) -> list[dict[str, Any]]:
    """What loras tells of the LoRAs that can be used, with what a tag calls them, and may call them."""
    return [
        {"name": name, "alias": alias, "path": place(entry), "metadata": _metadata(entry)}
        for entry, name, alias in zip(entries, names, aliases, strict=True)
    ]


def _metadata(entry: Entry) -> dict[str, Any]:
    """What a LoRA's file says of itself, objects among it parsed, as A1111 does; nothing where it can't be read."""
    if entry.format != "safetensors":
        return dict(entry.metadata)
    try:
        told = read_header(entry.path).metadata
    except (BottegaError, OSError):
        return dict(entry.metadata)
    return {name: _parsed(value) for name, value in told.items()}


def _parsed(value: str) -> Any:
    if not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def hypernetworks(entries: Iterable[Entry], names: Iterable[str]) -> list[dict[str, Any]]:
    """What hypernetworks tells of those that can be used, with what a tag calls them."""
    return [{"name": name, "path": place(entry)} for entry, name in zip(entries, names, strict=True)]


def vaes(entries: Iterable[Entry], names: Iterable[str]) -> list[dict[str, Any]]:
    """What sd-vae and Forge's sd-modules tell of the VAEs that can be used, with what to call them."""
    return [
        {"model_name": entry.path.name if name == entry.name else name, "filename": place(entry)}
        for entry, name in zip(entries, names, strict=True)
    ]


def embeddings(fitting: Iterable[Entry], others: Iterable[Entry]) -> dict[str, Any]:
    """What embeddings tells of those that fit the chosen model, and of those that don't."""
    return {
        "loaded": {each.name: _told(each) for each in fitting},
        "skipped": {each.name: _told(each) for each in others},
    }


def _told(embedding: Entry) -> dict[str, Any]:
    return {
        "step": None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        "shape": embedding.dimensions.get("width", 0),
        "vectors": embedding.dimensions.get("vectors", 0),
    }


def memory(total: int, free: int, devices: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What memory tells of main memory and of the first GPU, in bytes."""
    cuda: dict[str, Any] = {"error": "there is no CUDA device"}
    gpus = (each for each in devices if str(each.get("lane", "")).startswith("cuda") and each.get("memory"))
    if gpu := next(gpus, None):
        cuda = {"system": _memory(int(gpu["memory"]), int(gpu.get("free") or 0)), "events": {"retries": 0, "oom": 0}}
    return {"ram": _memory(total, free), "cuda": cuda}


def _memory(total: int, free: int) -> dict[str, int]:
    return {"free": free, "used": total - free, "total": total}


# A1111's command line, as far as clients look at it.
FLAGS: Mapping[str, Any] = {
    "api": True,
    "nowebui": False,
    "listen": False,
    "share": False,
    "no_half": False,
    "medvram": False,
    "lowvram": False,
    "ckpt": None,
    "vae_path": None,
}
SCRIPTS: Mapping[str, list[str]] = {"txt2img": [], "img2img": []}
CONTROL_SETTINGS: Mapping[str, Any] = {"control_net_unit_count": 0}
CONTROL_TYPES: Mapping[str, Any] = {
    "All": {"module_list": ["none"], "model_list": ["None"], "default_option": "none", "default_model": "None"}
}
