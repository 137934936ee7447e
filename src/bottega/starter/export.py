"""Write the three networks into one file, in the layout in which Stable Diffusion 1 checkpoints travel."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from bottega.families._stable_diffusion.keys import single_file
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.formats import safetensors
from bottega.runtime.weights import rows


def shapes(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel
) -> dict[str, UnetShape | VaeShape | TextShape]:
    """The dimensions of the networks, part by part, as their configs tell them."""
    u, v, t = unet.config, vae.config, text.config
    down = tuple((int(kind.startswith("Cross")),) * u.layers_per_block for kind in u.down_block_types)
    return {
        "unet": UnetShape(
            naming="diffusers",
            in_channels=u.in_channels,
            out_channels=u.out_channels,
            channels=tuple(u.block_out_channels),
            down=down,
            middle=1,
            up=tuple((blocks[0],) * (len(blocks) + 1) for blocks in reversed(down)),
            context=u.cross_attention_dim,
            linear=False,
            heads=(u.attention_head_dim,) * len(u.block_out_channels),
        ),
        "vae": VaeShape(
            "diffusers", 3, v.latent_channels, tuple(v.block_out_channels), v.layers_per_block, quantised=True
        ),
        "text_encoder": TextShape(
            "transformers",
            t.hidden_size,
            t.num_hidden_layers,
            t.num_attention_heads,
            t.intermediate_size,
            t.vocab_size,
            t.max_position_embeddings,
            t.hidden_act,
        ),
    }


def export(vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, path: Path) -> None:
    """Write the checkpoint in half precision."""
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
    networks = {"unet": unet, "vae": vae, "text_encoder": text}
    states = {
        part: {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("position_ids")}
        for part, network in networks.items()
    }
    tensors = single_file("sd1", shapes(vae, unet, text), states)
    safetensors.write(path, rows({name: tensor.to(torch.float16) for name, tensor in tensors.items()}), metadata)
