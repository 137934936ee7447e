"""Makes shelves full of model files that are real to whoever reads headers and take almost no room: their tensors are
holes in the files. Published layouts of Stable Diffusion: nine LoRA to one checkpoint, a tenth of them pickles, some
broken."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bottega.bench.full_size import SHAPES
from bottega.families._stable_diffusion.layout import TextShape, UnetShape

Shapes = dict[str, tuple[int, ...]]

# Of a thousand files: one in ten is a checkpoint. Each layout with its share of its kind.
CHECKPOINTS = {"sd1": 60, "sdxl": 30, "sd2": 10}
LORAS = {"sd1": 50, "sdxl": 40, "sd2": 10}
RANKS = (4, 8, 16, 32)
PICKLES = 10  # percent
BROKEN = 2  # percent
LINKS = 25  # names for each pickle: the many records of a zip archive leave holes no room, so they are hard links

_VAE = SHAPES["vae"]
_CLIP_L = SHAPES["text_encoder"]
_CLIP_G = TextShape("openclip", 1280, 32, 20, 5120, 49_408, 77, "gelu", projection=1280)
_CLIP_H = TextShape("openclip", 1024, 24, 16, 4096, 49_408, 77, "gelu", projection=1024)
_LEVELS = (320, 640, 1280, 1280)
PARTS: Mapping[str, Mapping[str, Any]] = {
    "sd1": SHAPES,
    "sd2": {
        "unet": UnetShape(
            "ldm", 4, 4, _LEVELS, ((1, 1), (1, 1), (1, 1), (0, 0)), 1,
            ((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)), 1024, True, (5, 10, 20, 20),
        ),
        "vae": _VAE,
        "text_encoder": _CLIP_H,
    },
    "sdxl": {
        "unet": UnetShape(
            "ldm", 4, 4, _LEVELS[:3], ((0, 0), (2, 2), (10, 10)), 10, ((10, 10, 10), (2, 2, 2), (0, 0, 0)),
            2048, True, (5, 10, 20), adm=2816, size_width=256,
        ),
        "vae": _VAE,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
    },
}  # fmt: skip

_ADAPTED = re.compile(
    r"(transformer_blocks\..*(to_[qkv]|to_out\.0|ff\.net\.0\.proj|ff\.net\.2)|proj_in|proj_out"
    r"|self_attn\.(q|k|v|out)_proj|mlp\.fc[12])\.weight"
)
_WORDS = (
    "anime", "ink", "portrait", "neon", "castle", "dragon", "watercolor", "film", "grain", "robot", "forest", "street",
    "samurai", "cat", "ocean", "vintage", "glow", "pixel", "clay", "lace", "marble", "desert", "fog", "comic", "shape",
    "dream", "real", "vision", "mix", "style", "水彩", "机甲", "風景", "пейзаж", "été", "flat", "line", "detail",
)  # fmt: skip


def make_models(count: int, folder: Path, seed: int = 0) -> int:
    """So many files in a folder, the same ones for the same seed; how many bytes of headers they have in all."""
    draw = random.Random(seed)
    headers = 0
    pickles: dict[str, list[Path]] = {}
    for index in range(count):
        checkpoint = index % 10 == 0
        family = draw.choices(*zip(*(CHECKPOINTS if checkpoint else LORAS).items(), strict=True))[0]
        layout = family if checkpoint else f"{family}-lora-{draw.choice(RANKS)}"
        words = draw.sample(_WORDS, 3)
        place = folder / ("Stable-diffusion" if checkpoint else "Lora") / words[0]
        place.mkdir(parents=True, exist_ok=True)
        name = f"{words[1]}{words[2].title()}_v{draw.randint(1, 9)}-{index:06}"
        sort = draw.randrange(100)
        if sort < BROKEN:
            _write_broken(place / f"{name}.safetensors", index)
        elif sort < BROKEN + PICKLES:
            # When SD XL came, nobody wrote pickles any more.
            layout = "sd1" if checkpoint else f"sd1-lora-{draw.choice(RANKS)}"
            _write_pickle(place / f"{name}.{'ckpt' if checkpoint else 'pt'}", layout, pickles.setdefault(layout, []))
        else:
            headers += _write_safetensors(place / f"{name}.safetensors", layout, _metadata(name, family, words, index))
    return headers


def _metadata(name: str, family: str, words: list[str], index: int) -> dict[str, str]:
    """What a trainer writes into such a file."""
    version = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[family]
    frequency = {f"10_{words[1]}": {f"{word} {number}": 40 - number for word in words for number in range(20)}}
    return {
        "ss_output_name": name,
        "ss_base_model_version": version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": "16",
        "ss_tag_frequency": json.dumps(frequency),
        "modelspec.title": " ".join(words),
        "modelspec.trigger_phrase": f"{words[1]}{index}, {words[2]} style",
        "modelspec.description": f"Pictures of {words[0]} and {words[1]} in the manner of {words[2]}.",
    }


@cache
def shapes(layout: str) -> Shapes:
    """The tensors of one layout, by its name: `sdxl` is a checkpoint, `sdxl-lora-16` a LoRA of rank 16."""
    family, _, rank = layout.partition("-lora-")
    return _lora(family, int(rank)) if rank else _checkpoint(family)


@cache
def _states(family: str) -> dict[str, Mapping[str, Any]]:
    """Names and shapes of a family's networks, by part, under their own names."""
    from bottega.families._stable_diffusion import networks

    build = {"unet": networks.unet, "vae": lambda shape: networks.vae(shape, 0.18215)}
    modules = {part: build.get(part, networks.text_encoder)(shape) for part, shape in PARTS[family].items()}
    return {part: module.state_dict() for part, module in modules.items()}


@cache
def _checkpoint(family: str) -> Shapes:
    from bottega.families._stable_diffusion.keys import single_file

    return {name: tuple(like.shape) for name, like in single_file(family, PARTS[family], _states(family)).items()}


def _lora(family: str, rank: int) -> Shapes:
    """kohya's names: after the networks' own, but after LDM's for the UNet of SD XL."""
    made: Shapes = {}
    for prefix, names in _adapted(family).items():
        for name, shape in names.items():
            module = prefix + name.removesuffix(".weight").replace(".", "_")
            kernel = (1,) * (len(shape) - 2)
            made[f"{module}.alpha"] = ()
            made[f"{module}.lora_down.weight"] = (rank, shape[1], *kernel)
            made[f"{module}.lora_up.weight"] = (shape[0], rank, *kernel)
    return made


def _adapted(family: str) -> dict[str, Shapes]:
    """The weights that a LoRA changes, by the prefix of its names for them."""
    unet = {name: tuple(like.shape) for name, like in _states(family)["unet"].items()}
    if family == "sdxl":
        ldm = "model.diffusion_model."
        unet = {name.removeprefix(ldm): shape for name, shape in _checkpoint(family).items() if name.startswith(ldm)}
    prefixes = {"text_encoder": "lora_te1_" if family == "sdxl" else "lora_te_", "text_encoder_2": "lora_te2_"}
    parts = {"lora_unet_": unet}
    for part, prefix in prefixes.items():
        if state := _states(family).get(part):
            parts[prefix] = {
                name if name.startswith("text_model.") else f"text_model.{name}": tuple(like.shape)
                for name, like in state.items()
            }
    return {
        prefix: {name: shape for name, shape in names.items() if len(shape) > 1 and _ADAPTED.search(name)}
        for prefix, names in parts.items()
    }


# --- safetensors


def _write_safetensors(path: Path, layout: str, metadata: Mapping[str, str]) -> int:
    tensors, size = _tensors_text(layout)
    header = b'{"__metadata__":' + json.dumps(metadata, ensure_ascii=False).encode() + b"," + tensors
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return len(header)


@cache
def _tensors_text(layout: str) -> tuple[bytes, int]:
    """The part of a header that is the same in all files of a layout, and how many bytes the tensors take."""
    entries, at = {}, 0
    for name, shape in sorted(shapes(layout).items()):
        end = at + _bytes_of(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": (at, end)}
        at = end
    return json.dumps(entries, separators=(",", ":")).encode()[1:], at


def _bytes_of(shape: tuple[int, ...]) -> int:
    count = 2
    for size in shape:
        count *= size
    return count


def _write_broken(path: Path, index: int) -> None:
    """What downloads leave behind."""
    cut = (1 << 20).to_bytes(8, "little") + b'{"a.weight":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}'
    page = b"<!DOCTYPE html><html><head><title>Log in</title></head></html>"
    path.write_bytes((cut, page, b"", bytes(4096))[index % 4])


# --- pickles


def _write_pickle(path: Path, layout: str, written: list[Path]) -> None:
    """A pickle checkpoint; only every so many names are files of their own."""
    if len(written) % LINKS:
        try:
            os.link(written[-1], path)
        except OSError:  # a file system without hard links
            _save(path, layout)
    else:
        _save(path, layout)
    written.append(path)


def _save(path: Path, layout: str) -> None:
    """Have torch write the file, of tensors that have no bytes: where those would be it leaves holes."""
    import torch
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({name: torch.empty(shape, dtype=torch.float16) for name, shape in shapes(layout).items()}, path)
