"""Tiny random models of every family and variant, written the way real ones are: for tests, and always the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bottega.families._stable_diffusion import networks
from bottega.families._stable_diffusion.keys import pack, single_file, source_of
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape, heads_of
from bottega.families._stable_diffusion.recognise import INPAINTING, PIX2PIX, REFINER, V_PREDICTION
from bottega.formats import safetensors
from bottega.runtime.weights import rows

Shape = UnetShape | VaeShape | TextShape
State = dict[str, torch.Tensor]

_SCALE = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
_CHANNELS = {INPAINTING: 9, PIX2PIX: 8}
_VOCABULARY = 49_408
_DOWN = {
    "sd1": ((1,), (1,), (0,)),
    "sd2": ((1,), (1,), (0,)),
    "sdxl": ((0,), (1,), (2,)),
    REFINER: ((0,), (1,), (1,), (0,)),
}
_PIPELINES = {"sd1": "StableDiffusionPipeline", "sd2": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


def shapes(family: str, variant: str = "base") -> dict[str, Shape]:
    """The dimensions of the toy of a family: a few million numbers, most of them CLIP's vocabulary."""
    narrow = TextShape("transformers", 32, 3, 1, 64, _VOCABULARY, 77, "gelu" if family == "sd2" else "quick_gelu")
    wide = TextShape("transformers", 64, 2, 1, 96, _VOCABULARY, 77, "gelu", projection=48)
    encoders = {"text_encoder": narrow}
    if family == "sdxl":
        encoders = {"text_encoder_2": wide} if variant == REFINER else {"text_encoder": narrow, "text_encoder_2": wide}
    down = _DOWN[REFINER if variant == REFINER else family]
    channels = (32, 64, 128, 128)[: len(down)]
    linear = family != "sd1"
    size_width = 8
    unet = UnetShape(
        naming="diffusers",
        in_channels=_CHANNELS.get(variant, 4),
        out_channels=4,
        channels=channels,
        down=down,
        middle=max(down[-1][0], 1),
        up=tuple((depths[0],) * (len(depths) + 1) for depths in reversed(down)),
        context=sum(text.width for text in encoders.values()),
        linear=linear,
        heads=tuple(heads_of(width, linear) for width in channels),
        adm=48 + size_width * (5 if variant == REFINER else 6) if family == "sdxl" else None,
        size_width=size_width if family == "sdxl" else None,
    )
    return {"unet": unet, "vae": VaeShape("diffusers", 3, 4, (32, 32, 64, 64), 1, quantised=True), **encoders}


def states(family: str, variant: str = "base", seed: int = 0) -> dict[str, State]:
    """Random weights of the toy's networks in float32, by part, under the networks' own names."""
    made: dict[str, State] = {}
    for index, (part, shape) in enumerate(shapes(family, variant).items()):
        made[part] = _random(_build(shape, family), seed + index)
    if variant == V_PREDICTION:  # so that what tells such models apart tells this one too
        last = max(
            name
            for name in made["unet"]
            if name.startswith("up_blocks") and name.endswith("norm1.bias") and "transformer" in name
        )
        made["unet"][last] *= 4
    return made


def _build(shape: Shape, family: str) -> nn.Module:
    if isinstance(shape, UnetShape):
        return networks.unet(shape)
    return networks.vae(shape, _SCALE[family]) if isinstance(shape, VaeShape) else networks.text_encoder(shape)


def _random(module: nn.Module, seed: int) -> State:
    """Weights that keep signals at their size, so that a toy's numbers stay finite in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    made: State = {}
    for name, like in module.state_dict().items():
        noise = torch.randn(like.shape, generator=generator)
        if like.ndim > 1:
            made[name] = noise / math.sqrt(like[0].numel())
        else:
            made[name] = 0.05 * noise + (1 if name.endswith("weight") else 0)
    return made


def write_single_file(
    path: Path,
    family: str,
    variant: str = "base",
    dtype: str = "float16",
    *,
    old_names: bool = False,
    ema: bool = False,
    without: tuple[str, ...] = (),
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """One `.safetensors` in the layout of the checkpoints that people exchange.

    `old_names` leaves `text_model.` out, `ema` adds the training's running averages and buffers, `without` leaves out
    parts.
    """
    dimensions = shapes(family, variant)
    made = states(family, variant, seed)
    if family == "sd2":  # whose files have one block more than is run
        dimensions["text_encoder"], made["text_encoder"] = _with_idle_block(
            dimensions["text_encoder"], made["text_encoder"]
        )
    kept = {part: state for part, state in made.items() if part not in without}
    tensors = single_file(family, dimensions, kept, refiner=variant == REFINER)
    if old_names:
        tensors = {name.replace(".text_model.", "."): tensor for name, tensor in tensors.items()}
    if ema:
        tensors |= _training_leftovers(tensors)
    safetensors.write(path, rows(_in(dtype, tensors)), metadata)
    return path


def _with_idle_block(shape: Shape, state: State) -> tuple[Shape, State]:
    assert isinstance(shape, TextShape)
    last, idle = f"encoder.layers.{shape.layers - 1}.", f"encoder.layers.{shape.layers}."
    block = {name.replace(last, idle): tensor.clone() for name, tensor in state.items() if last in name}
    return replace(shape, layers=shape.layers + 1), state | block


def _training_leftovers(tensors: State) -> State:
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor * 0.5
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7.0)}
    buffers = {"alphas_cumprod": torch.ones(1000), "betas": torch.ones(1000), "loss.logvar": torch.ones(1)}
    return averages | counters | buffers


def write_folder(
    path: Path,
    family: str,
    variant: str = "base",
    dtype: str = "float16",
    *,
    shards: int = 1,
    old_vae: bool = False,
    seed: int = 0,
) -> Path:
    """A diffusers folder, its weights in one file or several for each part; `old_vae` has the names of early ones."""
    made, dimensions = states(family, variant, seed), shapes(family, variant)
    for part, shape in dimensions.items():
        if isinstance(shape, VaeShape) and old_vae:
            shape = replace(shape, naming="diffusers-old")
        folder = path / part
        folder.mkdir(parents=True)
        config = _build(shape, family).config
        told = config.to_dict() if isinstance(shape, TextShape) else dict(config)
        _write_json(folder / "config.json", told)
        stem = "model" if isinstance(shape, TextShape) else "diffusion_pytorch_model"
        _write_shards(folder, stem, _in(dtype, pack(made[part], source_of(shape))), shards)
    predicted = "v_prediction" if variant == V_PREDICTION else "epsilon"
    scheduler = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": predicted,
    }
    (path / "scheduler").mkdir()
    _write_json(path / "scheduler" / "scheduler_config.json", scheduler)
    classes = {part: [_library(shape), type(_build(shape, family)).__name__] for part, shape in dimensions.items()}
    scheduler_class = ["diffusers", "EulerDiscreteScheduler"]
    _write_json(path / "model_index.json", {"_class_name": _PIPELINES[family], "scheduler": scheduler_class, **classes})
    return path


def _library(shape: Shape) -> str:
    return "transformers" if isinstance(shape, TextShape) else "diffusers"


def _write_shards(folder: Path, stem: str, tensors: State, shards: int) -> None:
    if shards == 1:
        safetensors.write(folder / f"{stem}.safetensors", rows(tensors))
        return
    names = sorted(tensors)
    places: dict[str, str] = {}
    for shard in range(shards):
        file = f"{stem}-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        safetensors.write(folder / file, rows({name: tensors[name] for name in mine}))
        places |= dict.fromkeys(mine, file)
    _write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {}, "weight_map": places})


def _in(dtype: str, tensors: State) -> State:
    return {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, default=str), encoding="utf-8")
