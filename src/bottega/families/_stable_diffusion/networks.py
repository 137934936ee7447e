"""Builds the networks of a Stable Diffusion model from their dimensions, on the meta device: shapes without memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

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

    conditioned = shape.adm is not None
    with META:
        return UNet2DConditionModel(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if any(level) else "DownBlock2D" for level in shape.down),
            mid_block_type=_MIDDLES.get(shape.middle, "UNetMidBlock2DCrossAttn"),
            up_block_types=tuple("CrossAttnUpBlock2D" if any(level) else "UpBlock2D" for level in shape.up),
            block_out_channels=shape.channels,
            layers_per_block=tuple(len(level) for level in shape.down),
            norm_num_groups=shape.groups,
            cross_attention_dim=shape.context,
            transformer_layers_per_block=_depths(shape),
            reverse_transformer_layers_per_block=shape.up,
            attention_head_dim=shape.heads,  # diffusers' name for the number of heads
            use_linear_projection=shape.linear,
            addition_embed_type="text_time" if conditioned else None,
            addition_time_embed_dim=shape.size_width if conditioned else None,
            projection_class_embeddings_input_dim=shape.adm,
            time_cond_proj_dim=shape.guidance_width,
        )


# Distilled models leave the attention in the middle out, or the whole middle.
_MIDDLES = {-1: None, 0: "UNetMidBlock2D"}


def _depths(shape: UnetShape) -> tuple[tuple[int, ...], ...]:
    """Transformer depths by level; the last of them is the middle's too, and often only that."""
    last = shape.down[-1] if any(shape.down[-1]) else (max(shape.middle, 0),)
    return (*shape.down[:-1], last)


def vae(shape: VaeShape, scale_factor: float) -> AutoencoderKL:
    """An autoencoder of this shape, without its weights."""
    prepare_libraries()
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(shape.channels)
    with META:
        return AutoencoderKL(
            in_channels=shape.in_channels,
            out_channels=shape.in_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=shape.channels,
            layers_per_block=shape.layers,
            latent_channels=shape.latent_channels,
            norm_num_groups=shape.groups,
            scaling_factor=scale_factor,
            force_upcast=shape.force_upcast,
            use_quant_conv=shape.quantised,
            use_post_quant_conv=shape.quantised,
        )


def text_encoder(shape: TextShape) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text encoder of this shape, without its weights; with a projection if the shape has one."""
    prepare_libraries()
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_act=shape.activation,
        projection_dim=shape.projection or shape.width,
        # CLIP's vocabulary ends with these two.
        bos_token_id=shape.vocabulary - 2,
        eos_token_id=shape.vocabulary - 1 if shape.eos is None else shape.eos,
    )
    with META:
        model = (CLIPTextModelWithProjection if shape.projection else CLIPTextModel)(config)
    # The one tensor that is in no file.
    inner = getattr(model, "text_model", model)
    inner.embeddings.position_ids = torch.arange(shape.positions).expand(1, -1)
    return model
