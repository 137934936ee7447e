"""What is to be merged and how, and how a merged file tells of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottega.formats.header import Header
from bottega.library.convert import STALE, metadata_of
from bottega.spec import Anatomy, Match
from bottega.version import __version__

METHODS = ("weighted", "add-difference", "slerp", "ties", "dare")
TAKES_C = ("add-difference", "ties", "dare")
NEEDS_C = ("add-difference",)
HEAVIEST = 100  # the largest weight, as in the API: far beyond what is of use
_UNKNOWN_HASH = "0" * 64
_OPTIONS = {"ties": ("density",), "dare": ("density", "seed")}
_A1111 = {"weighted": "Weighted sum", "add-difference": "Add difference"}
# What of A's metadata would not be true of a merge.
_OWN = ("title", "description", "date", "thumbnail", "author", "trigger_phrase", "usage_hint", "merged_from")
_OF_ITSELF = frozenset((*STALE, *(f"modelspec.{name}" for name in _OWN)))


@dataclass(frozen=True)
class Parent:
    """A model that goes into a merge: what it is, and by whom it was recognised.

    `digits` gives the hash of its file, of the kind `hashed_by` ("sha256", "blake3"); it is asked for when all else is
    done, so that it can be computed meanwhile.
    """

    header: Header
    match: Match
    recogniser: str
    family: str
    anatomy: Anatomy | None
    name: str
    digits: Callable[[], str] = lambda: _UNKNOWN_HASH
    hashed_by: str = "sha256"


@dataclass(frozen=True)
class Wish:
    """How models are to be merged.

    `weight` is B's share, or by how much the difference is added; `weights` are those of the blocks, with that of BASE
    before them or without it. `density` is how much of a difference TIES and DARE keep, `seed` decides what DARE keeps.
    """

    method: str = "weighted"
    weight: float | None = None
    weights: tuple[float, ...] = ()
    density: float = 0.5
    seed: int = 0
    dtype: str = "keep"
    force: bool = False


def method_of(method: str | None, models: int) -> str:
    """The method that is wished for; else what most people mean with so many models."""
    return method or ("add-difference" if models == 3 else "weighted")


def weight_of(wish: Wish, models: int) -> float:
    """The weight that is wished for; else half of each, or a difference as it is."""
    if wish.weight is not None:
        return wish.weight
    return 1.0 if wish.method == "add-difference" or (wish.method in TAKES_C and models < 3) else 0.5


def wrong_count(method: str, models: int) -> tuple[str, str] | None:
    """What is wrong with merging so many models by a method, and what to do; None if nothing is."""
    if models == 1 and method != "weighted":
        return f"{method} needs another model", "name it after the first"
    if method in NEEDS_C and models < 3:
        return f"{method} needs three models", "name a third one, which is taken away"
    if models > 2 and method not in TAKES_C:
        return f"{method} is a merge of two", f"use {' or '.join(TAKES_C)}"
    return None


def wrong_weights(weights: int, blocks: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with so many weights for blocks of which the first is BASE, and what to do; None if nothing is."""
    if weights in (len(blocks) - 1, len(blocks)):
        return None
    what = f"its family has {len(blocks) - 1} blocks, and {weights} weights are given"
    return what, f"give one for each of {', '.join(blocks)} (the first may be left out)"


def incoming(model: Parent) -> int | None:
    """How many channels its UNet takes, if that is known."""
    unet = model.match.dimensions.get("unet")
    channels = unet.get("in_channels") if isinstance(unet, Mapping) else None
    return channels if isinstance(channels, int) else None


def recipe_metadata(
    models: Sequence[Parent],
    destination: Path,
    wish: Wish,
    weight: float,
    vae: Parent | None,
    loras: Sequence[tuple[Parent, float]],
    hash_of: Callable[[Parent], str],
) -> dict[str, str]:
    """A's metadata as far as it is true of the merge, and the recipe: A1111's, which other programs show, and ours.

    `weight` is the one that was computed with; `hash_of` gives the hash of each model. A1111's names
    models by their SHA-256, and others not at all.
    """
    first = models[0]
    told = metadata_of(first.header)
    kept = {name: text for name, text in told.items() if name not in _OF_ITSELF and not name.startswith("bottega.")}
    if any(name.startswith("modelspec.") for name in kept):
        kept["modelspec.title"] = destination.stem
        kept["modelspec.merged_from"] = ", ".join(model.name for model in models)
    hashes = [hash_of(model) if model.hashed_by == "sha256" else None for model in models] + [None] * (3 - len(models))
    webui = {
        "type": "bottega",
        **dict(zip(("primary_model_hash", "secondary_model_hash", "tertiary_model_hash"), hashes, strict=True)),
        "interp_method": _A1111.get(wish.method, wish.method) if len(models) > 1 else "No interpolation",
        "multiplier": weight,
        "save_as_half": wish.dtype == "fp16",
        "custom_name": destination.stem,
        "bake_in_vae": vae.name if vae else "None",
        "discard_weights": "",
        "is_inpainting": incoming(first) == 9,
        "is_instruct_pix2pix": incoming(first) == 8,
    }
    ours: dict[str, Any] = {
        "app": f"bottega {__version__}",
        "models": [_told(model, hash_of) for model in models],
        "dtype": wish.dtype,
    }
    if len(models) > 1:
        ours |= {"method": wish.method, "weight": weight}
        ours |= {name: getattr(wish, name) for name in _OPTIONS.get(wish.method, ())}
    if wish.weights and first.anatomy:
        blocks = first.anatomy.blocks(first.match)[-len(wish.weights) :]
        ours["weights"] = dict(zip(blocks, wish.weights, strict=True))
    if vae:
        ours["vae"] = _told(vae, hash_of)
    if loras:
        ours["loras"] = [{**_told(lora, hash_of), "weight": strength} for lora, strength in loras]
    return {
        **kept,
        "format": "pt",
        "sd_merge_recipe": json.dumps(webui),
        "sd_merge_models": json.dumps(_ancestors(models, hash_of)),
        "bottega.merge": json.dumps(ours),
    }


def _told(parent: Parent, hash_of: Callable[[Parent], str]) -> dict[str, str]:
    return {"name": parent.name, parent.hashed_by: hash_of(parent)}


def _ancestors(models: Sequence[Parent], hash_of: Callable[[Parent], str]) -> dict[str, Any]:
    """The models by their SHA-256, with those that they were merged from themselves, as A1111 tells it; by another hash
    with its kind before it."""
    told: dict[str, Any] = {}
    for model in models:
        metadata = metadata_of(model.header)
        told |= _parsed(metadata.get("sd_merge_models"))
        told[hash_of(model) if model.hashed_by == "sha256" else f"{model.hashed_by}:{hash_of(model)}"] = {
            "name": model.name,
            "legacy_hash": None,
            "sd_merge_recipe": _parsed(metadata.get("sd_merge_recipe")) or None,
        }
    return told


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
