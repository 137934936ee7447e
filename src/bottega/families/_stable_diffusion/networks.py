"""Builds the networks of a Stable Diffusion model from their dimensions, on the meta device: shapes without memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import nn

from bottega.families._stable_diffusion.configs import text_config, unet_config, vae_config
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

META = torch.device("meta")


def prepare_libraries() -> None:
    """To be called before diffusers or transformers are imported, which is when they read these.

    They never reach for the network, and keep their log lines off the terminal: what matters is said by events.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def unet(shape: UnetShape) -> UNet2DConditionModel:
    """A UNet of this shape, without its weights."""
    prepare_libraries()
    # The module itself, not the package's front door: importing is most of a cold start.
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with META:
        return UNet2DConditionModel(**unet_config(shape))


def vae(shape: VaeShape, scale_factor: float) -> AutoencoderKL:
    """An autoencoder of this shape, without its weights."""
    prepare_libraries()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with META:
        return AutoencoderKL(**vae_config(shape, scale_factor))


def tiny_half(half: str, latent_channels: int) -> nn.Module:
    """The `encoder` or the `decoder` of TAESD at its published size, without its weights."""
    prepare_libraries()
    from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny

    widths = (64, 64, 64, 64)
    with META:
        if half == "encoder":
            return EncoderTiny(3, latent_channels, (1, 3, 3, 3), widths, "relu")
        return DecoderTiny(latent_channels, 3, (3, 3, 3, 1), widths, 2, "relu", "nearest")


def text_encoder(shape: TextShape) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text encoder of this shape, without its weights; with a projection if the shape has one."""
    prepare_libraries()
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**text_config(shape))
    with META:
        model = (CLIPTextModelWithProjection if shape.projection else CLIPTextModel)(config)
    # The one tensor that is in no file.
    inner = getattr(model, "text_model", model)
    inner.embeddings.position_ids = torch.arange(shape.positions).expand(1, -1)
    return model
