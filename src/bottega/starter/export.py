"""Write the three networks into one file, in the layout in which Stable Diffusion 1 checkpoints travel."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel

Tensors = dict[str, torch.Tensor]

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_PARTS = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}


def unet_name(name: str, layers: int, with_attention: frozenset[int]) -> str:
    """diffusers' name of a UNet weight in LDM's words.

    LDM counts the blocks of all levels in one row; a level has `layers` of them going down and one more going up.
    `with_attention` are the levels on the way up whose blocks attend to the text.
    """
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(ours + "."):
            rest = name[len(ours) :]
            return theirs + (rest if "attentions" in ours else _swap(rest, _UNET_RESNET))
    way, level, part, index, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name).groups()
    first, block, below = int(level) * (layers + 1), int(index), int(part == "attentions")
    if part == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if int(level) in with_attention else 1}.{rest}"
    row = f"input_blocks.{first + block + 1}" if way == "down" else f"output_blocks.{first + block}"
    return f"{row}.{below}.{rest if below else _swap(rest, _UNET_RESNET)}"


def vae_name(name: str, levels: int) -> str:
    """diffusers' name of a VAE weight in LDM's words; LDM counts the decoder's levels from the finest."""
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return _swap(name, _VAE_PARTS).replace("resnets.", "block.")


def _swap(name: str, words: Mapping[str, str]) -> str:
    for ours, theirs in words.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\g<1>{theirs}.", name)
    return name


def single_file(vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel) -> Tensors:
    """All weights of the three networks under their LDM names, in half precision."""
    layers = unet.config.layers_per_block
    with_attention = frozenset(i for i, kind in enumerate(unet.config.up_block_types) if kind.startswith("Cross"))
    levels = len(vae.config.block_out_channels)
    rows: list[tuple[str, Iterable[tuple[str, torch.Tensor]]]] = [
        ("model.diffusion_model.", ((unet_name(k, layers, with_attention), v) for k, v in unet.state_dict().items())),
        ("first_stage_model.", ((vae_name(k, levels), v) for k, v in vae.state_dict().items())),
        ("cond_stage_model.transformer.text_model.", _text(text)),
    ]
    tensors = {prefix + name: value for prefix, items in rows for name, value in items}
    for name, value in tensors.items():
        if re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$", name):
            value = value[:, :, None, None]  # LDM writes these matrices as 1x1 convolutions
        tensors[name] = value.detach().to("cpu", torch.float16).contiguous()
    return tensors


def _text(text: CLIPTextModel) -> Iterable[tuple[str, torch.Tensor]]:
    for name, value in text.state_dict().items():
        if not name.endswith("position_ids"):
            yield name.removeprefix("text_model."), value


def export(vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, path: Path) -> None:
    """Write the checkpoint under a temporary name and rename it when it is whole."""
    metadata = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": "starter-image",
        "modelspec.author": "Bottega",
        "modelspec.license": "CC0-1.0",
        "modelspec.description": "Small painted landscapes, learned from pictures that a program drew.",
        "modelspec.date": time.strftime("%Y-%m-%d"),
        "modelspec.resolution": "128x128",
        "modelspec.prediction_type": "epsilon",
    }
    partial = path.with_name(path.name + ".partial")
    save_file(single_file(vae, unet, text), partial, metadata)
    os.replace(partial, path)
