"""The layouts of Stable Diffusion's published files, and of their strangers, from the original repositories' rules.

This counts blocks the way LDM's own constructors do and shares nothing with the code that it tests; the numbers of
parameters, which are published, prove it right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bottega.formats.header import BYTES_OF_DTYPE, Header, TensorInfo

Shapes = dict[str, tuple[int, ...]]


def header(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16", **fields: Any) -> Header:
    """A header of these tensors, as of a file that holds none of them."""
    file = Path(os.devnull)
    tensors: dict[str, TensorInfo] = {}
    at = 0
    for name, shape in shapes.items():
        info = TensorInfo(dtype, shape, file, 0, 0)
        end = at + round(info.elements * BYTES_OF_DTYPE[dtype])
        tensors[name] = TensorInfo(dtype, shape, info.file, at, end)
        at = end
    return Header(file, "safetensors", tensors, **fields)


def under(prefix: str, shapes: Shapes) -> Shapes:
    """The same tensors under a prefix."""
    return {prefix + name: shape for name, shape in shapes.items()}


def _linear(name: str, out: int, into: int, *, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _conv(name: str, out: int, into: int, kernel: int = 3) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into, kernel, kernel)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _residual(name: str, into: int, out: int, time: int) -> Shapes:
    shapes: Shapes = {}
    shapes.update(_norm(f"{name}.in_layers.0", into))
    shapes.update(_conv(f"{name}.in_layers.2", out, into))
    shapes.update(_linear(f"{name}.emb_layers.1", out, time))
    shapes.update(_norm(f"{name}.out_layers.0", out))
    shapes.update(_conv(f"{name}.out_layers.3", out, out))
    if into != out:
        shapes.update(_conv(f"{name}.skip_connection", out, into, 1))
    return shapes


def _transformer(name: str, width: int, depth: int, context: int, linear: bool) -> Shapes:
    shapes: Shapes = dict(_norm(f"{name}.norm", width))
    for end in ("proj_in", "proj_out"):
        shapes.update(_linear(f"{name}.{end}", width, width) if linear else _conv(f"{name}.{end}", width, width, 1))
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for norm in (1, 2, 3):
            shapes.update(_norm(f"{block}.norm{norm}", width))
        for attention, heard in (("attn1", width), ("attn2", context)):
            shapes.update(_linear(f"{block}.{attention}.to_q", width, width, bias=False))
            shapes.update(_linear(f"{block}.{attention}.to_k", width, heard, bias=False))
            shapes.update(_linear(f"{block}.{attention}.to_v", width, heard, bias=False))
            shapes.update(_linear(f"{block}.{attention}.to_out.0", width, width))
        shapes.update(_linear(f"{block}.ff.net.0.proj", 8 * width, width))
        shapes.update(_linear(f"{block}.ff.net.2", width, 4 * width))
    return shapes


def unet(
    channels: tuple[int, ...],
    depths: tuple[int, ...],
    context: int,
    *,
    into: int = 4,
    middle: int | None = 1,
    linear: bool = False,
    adm: int | None = None,
    layers: int = 2,
    up: tuple[int, ...] = (),
) -> Shapes:
    """LDM's UNet; `depths` of the transformers by level, 0 for none, and `up` by block where they differ on the way up.

    A `middle` of 0 has one residual block and no transformer; None is a UNet without a middle.
    """
    time = 4 * channels[0]
    shapes: Shapes = {}
    shapes.update(_linear("time_embed.0", time, channels[0]))
    shapes.update(_linear("time_embed.2", time, time))
    if adm:
        shapes.update(_linear("label_emb.0.0", time, adm))
        shapes.update(_linear("label_emb.0.2", time, time))
    shapes.update(_conv("input_blocks.0.0", channels[0], into))
    skips, width, block = [channels[0]], channels[0], 1
    for level, (out, depth) in enumerate(zip(channels, depths, strict=True)):
        for _ in range(layers):
            shapes |= _residual(f"input_blocks.{block}.0", width, out, time)
            width = out
            if depth:
                shapes |= _transformer(f"input_blocks.{block}.1", width, depth, context, linear)
            skips.append(width)
            block += 1
        if level != len(channels) - 1:
            shapes.update(_conv(f"input_blocks.{block}.0.op", width, width))
            skips.append(width)
            block += 1
    if middle is not None:
        shapes |= _residual("middle_block.0", width, width, time)
    if middle:
        shapes |= _transformer("middle_block.1", width, middle, context, linear)
        shapes |= _residual("middle_block.2", width, width, time)
    up = up or tuple(depth for depth in reversed(depths) for _ in range(layers + 1))
    block = 0
    for level, out in reversed(list(enumerate(channels))):
        for layer in range(layers + 1):
            shapes |= _residual(f"output_blocks.{block}.0", width + skips.pop(), out, time)
            width, place = out, 1
            if up[block]:
                shapes |= _transformer(f"output_blocks.{block}.1", width, up[block], context, linear)
                place = 2
            if level and layer == layers:
                shapes.update(_conv(f"output_blocks.{block}.{place}.conv", width, width))
            block += 1
    shapes.update(_norm("out.0", width))
    shapes.update(_conv("out.2", 4, width))
    return shapes


def vae(channels: tuple[int, ...] = (128, 256, 512, 512), layers: int = 2, latent: int = 4) -> Shapes:
    """LDM's autoencoder."""
    shapes: Shapes = {}

    def residual(name: str, into: int, out: int) -> None:
        shapes.update(_norm(f"{name}.norm1", into))
        shapes.update(_conv(f"{name}.conv1", out, into))
        shapes.update(_norm(f"{name}.norm2", out))
        shapes.update(_conv(f"{name}.conv2", out, out))
        if into != out:
            shapes.update(_conv(f"{name}.nin_shortcut", out, into, 1))

    def middle(side: str, width: int) -> None:
        residual(f"{side}.mid.block_1", width, width)
        shapes.update(_norm(f"{side}.mid.attn_1.norm", width))
        for name in ("q", "k", "v", "proj_out"):
            shapes.update(_conv(f"{side}.mid.attn_1.{name}", width, width, 1))
        residual(f"{side}.mid.block_2", width, width)

    deepest = len(channels) - 1
    shapes.update(_conv("encoder.conv_in", channels[0], 3))
    width = channels[0]
    for level, out in enumerate(channels):
        for layer in range(layers):
            residual(f"encoder.down.{level}.block.{layer}", width, out)
            width = out
        if level != deepest:
            shapes.update(_conv(f"encoder.down.{level}.downsample.conv", width, width))
    middle("encoder", width)
    shapes.update(_norm("encoder.norm_out", width))
    shapes.update(_conv("encoder.conv_out", 2 * latent, width))
    shapes.update(_conv("decoder.conv_in", width, latent))
    middle("decoder", width)
    for level, out in reversed(list(enumerate(channels))):
        for layer in range(layers + 1):
            residual(f"decoder.up.{level}.block.{layer}", width, out)
            width = out
        if level:
            shapes.update(_conv(f"decoder.up.{level}.upsample.conv", width, width))
    shapes.update(_norm("decoder.norm_out", width))
    shapes.update(_conv("decoder.conv_out", 3, width))
    shapes.update(_conv("quant_conv", 2 * latent, 2 * latent, 1))
    shapes.update(_conv("post_quant_conv", latent, latent, 1))
    return shapes


def clip(width: int = 768, layers: int = 12, inner: str = "text_model.") -> Shapes:
    """A CLIP text encoder under transformers' names."""
    shapes: Shapes = {"embeddings.token_embedding.weight": (49408, width)}
    shapes["embeddings.position_embedding.weight"] = (77, width)
    for index in range(layers):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.update(_linear(f"{layer}.self_attn.{name}", width, width))
        shapes.update(_norm(f"{layer}.layer_norm1", width))
        shapes.update(_norm(f"{layer}.layer_norm2", width))
        shapes.update(_linear(f"{layer}.mlp.fc1", 4 * width, width))
        shapes.update(_linear(f"{layer}.mlp.fc2", width, 4 * width))
    shapes.update(_norm("final_layer_norm", width))
    return under(inner, shapes)


def openclip(width: int, layers: int) -> Shapes:
    """An OpenCLIP text encoder under its own names."""
    shapes: Shapes = {
        "token_embedding.weight": (49408, width),
        "positional_embedding": (77, width),
        "text_projection": (width, width),
        "logit_scale": (),
    }
    for index in range(layers):
        block = f"transformer.resblocks.{index}"
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes.update(_linear(f"{block}.attn.out_proj", width, width))
        shapes.update(_norm(f"{block}.ln_1", width))
        shapes.update(_norm(f"{block}.ln_2", width))
        shapes.update(_linear(f"{block}.mlp.c_fc", 4 * width, width))
        shapes.update(_linear(f"{block}.mlp.c_proj", width, 4 * width))
    shapes.update(_norm("ln_final", width))
    return shapes


FIRST = (320, 640, 1280, 1280)


def sd1_unet(into: int = 4) -> Shapes:
    return unet(FIRST, (1, 1, 1, 0), 768, into=into)


def sd2_unet(into: int = 4, adm: int | None = None) -> Shapes:
    return unet(FIRST, (1, 1, 1, 0), 1024, into=into, linear=True, adm=adm)


def sdxl_unet(into: int = 4) -> Shapes:
    return unet((320, 640, 1280), (0, 2, 10), 2048, into=into, linear=True, adm=2816, middle=10)


def ssd_1b_unet() -> Shapes:
    up = (4, 4, 10, 2, 1, 1, 0, 0, 0)
    return unet((320, 640, 1280), (0, 2, 4), 2048, linear=True, adm=2816, middle=0, up=up)


def vega_unet() -> Shapes:
    return unet((320, 640, 1280), (0, 1, 2), 2048, linear=True, adm=2816, middle=0)


def koala_700m_unet() -> Shapes:
    return unet((320, 640, 1280), (0, 2, 5), 2048, linear=True, adm=2816, middle=None, layers=1)


def koala_1b_unet() -> Shapes:
    return unet((320, 640, 1280), (0, 2, 6), 2048, linear=True, adm=2816, middle=6, layers=1)


def refiner_unet() -> Shapes:
    return unet((384, 768, 1536, 1536), (0, 4, 4, 0), 1280, linear=True, adm=2560, middle=4)


def whole(network: Shapes, encoders: Mapping[str, Shapes]) -> Shapes:
    """A checkpoint: UNet, autoencoder and text encoders."""
    shapes = under("model.diffusion_model.", network) | under("first_stage_model.", vae())
    for prefix, encoder in encoders.items():
        shapes |= under(prefix, encoder)
    return shapes


_LARGE = {"cond_stage_model.transformer.": clip()}
_OPEN = {"cond_stage_model.model.": openclip(1024, 24)}
_BOTH = {"conditioner.embedders.0.transformer.": clip(), "conditioner.embedders.1.model.": openclip(1280, 32)}
_BIG = {"conditioner.embedders.0.model.": openclip(1280, 32)}
_RESTS = {f"lora_unet_mid_block_attentions_0_proj_in.lora_{end}.weight": (4, 4, 1, 1) for end in ("up", "down")}
_GUIDANCE = {"time_embedding.cond_proj.weight": (320, 256)}  # diffusers' name: nobody publishes it under another

PUBLISHED: dict[str, tuple[str, str, Shapes]] = {
    "sd1": ("sd1", "base", whole(sd1_unet(), _LARGE)),
    "sd1-inpainting": ("sd1", "inpainting", whole(sd1_unet(9), _LARGE)),
    "sd1-instruct-pix2pix": ("sd1", "instruct-pix2pix", whole(sd1_unet(8), _LARGE)),
    "sd1-old-names": ("sd1", "base", whole(sd1_unet(), {"cond_stage_model.transformer.": clip(inner="")})),
    "sd1-with-rests-of-a-lora": ("sd1", "base", whole(sd1_unet(), _LARGE) | _RESTS),
    "sd1-unet": ("sd1", "base", sd1_unet()),
    "sd1-unet-prefixed": ("sd1", "base", under("model.diffusion_model.", sd1_unet())),
    "sd2": ("sd2", "base", whole(sd2_unet(), _OPEN)),
    "sd2-inpainting": ("sd2", "inpainting", whole(sd2_unet(9), _OPEN)),
    "sd2-unet": ("sd2", "base", sd2_unet()),
    "sdxl": ("sdxl", "base", whole(sdxl_unet(), _BOTH)),
    "sdxl-inpainting": ("sdxl", "inpainting", whole(sdxl_unet(9), _BOTH)),
    "sdxl-instruct-pix2pix": ("sdxl", "instruct-pix2pix", whole(sdxl_unet(8), _BOTH)),
    "sdxl-refiner": ("sdxl", "refiner", whole(refiner_unet(), _BIG)),
    "sdxl-unet": ("sdxl", "base", sdxl_unet()),
    "refiner-unet": ("sdxl", "refiner", refiner_unet()),
    "ssd-1b": ("sdxl", "ssd-1b", whole(ssd_1b_unet(), _BOTH)),
    "vega": ("sdxl", "vega", whole(vega_unet(), _BOTH)),
    "vega-unet": ("sdxl", "vega", vega_unet()),
    "koala-700m": ("sdxl", "koala", whole(koala_700m_unet(), _BOTH)),
    "koala-1b": ("sdxl", "koala", whole(koala_1b_unet(), _BOTH)),
    "sd1-lcm": ("sd1", "lcm", sd1_unet() | _GUIDANCE),
    "sdxl-lcm": ("sdxl", "lcm", sdxl_unet() | _GUIDANCE),
    "sdxl-of-other-depths": (
        "sdxl",
        "base",
        whole(unet((320, 640, 1280), (0, 1, 2), 2048, linear=True, adm=2816, middle=2), _BOTH),
    ),
}

_CONTROLNET = {name: shape for name, shape in sd1_unet().items() if not name.startswith(("output", "out."))} | {
    "zero_convs.0.0.weight": (320, 320, 1, 1),
    "input_hint_block.0.weight": (16, 3, 3, 3),
}
_UNCLIP = {"embedder.model.ln_final.weight": (1024,), "noise_augmentor.betas": (1000,)}
_VIDEO = {"model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight": (320, 320)}
_UPSCALER = unet((256, 512, 512, 1024), (0, 1, 1, 1), 1024, into=7, linear=True) | {"label_emb.weight": (1000, 1024)}
_MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"

STRANGERS: dict[str, Shapes] = {
    "depth2img": whole(sd2_unet(5), _OPEN) | {"depth_model.model.pretrained.cls_token": (1, 1, 768)},
    "x4-upscaler": whole(_UPSCALER, _OPEN),
    "unclip": whole(sd2_unet(adm=2048), _OPEN) | _UNCLIP,
    "unclip-unet": sd2_unet(adm=2048),
    "svd": whole(sd2_unet(8, adm=768), {}) | _VIDEO,
    "zero123": whole(sd1_unet(8), _LARGE) | {"cc_projection.weight": (768, 772)},
    "altdiffusion": whole(sd1_unet(), {})
    | {"cond_stage_model.roberta.embeddings.word_embeddings.weight": (250002, 1024)},
    "controlnet": under("control_model.", _CONTROLNET),
    "controlnet-bare": _CONTROLNET,
    "controlnet-whole": whole(sd1_unet(), _LARGE) | under("control_model.", _CONTROLNET),
    "controlnet-diffusers": {
        "conv_in.weight": (320, 4, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
        "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
    },
    "animatediff": {_MOTION: (1, 24, 320)},
    "animatediff-merged": whole(sd1_unet(), _LARGE) | under("model.diffusion_model.", {_MOTION: (1, 24, 320)}),
    "vae": vae(),
    "vae-prefixed": under("first_stage_model.", vae()),
    "text-encoder": clip(),
    "lora": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320, 1, 1)},
    "playground-2.5": whole(sdxl_unet(), _BOTH) | {"edm_mean": (4,), "edm_std": (4,)},
    "nothing": {},
}
