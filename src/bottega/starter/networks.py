"""The three networks of starter-image: Stable Diffusion 1's design, at small width."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

LATENT_SCALE = 0.18215
"""Latents times this have a standard deviation of one (folded into the VAE at the end of its training)."""

TOKENS = 77
START_TOKEN, END_TOKEN = 49406, 49407
TEXT_WIDTH = 128


def vae() -> AutoencoderKL:
    """Pictures (n, 3, 8h, 8w) in -1..1 to latents (n, 4, h, w) and back."""
    widths = (64, 64, 128, 128)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        sample_size=128,
        scaling_factor=LATENT_SCALE,
    )


def unet() -> UNet2DConditionModel:
    """Noisy latents (n, 4, h, w), times (n,) and text (n, 77, TEXT_WIDTH) to the noise in them."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,  # diffusers' name for the number of heads
    )


def text_encoder() -> CLIPTextModel:
    """Token ids (n, 77) to text (n, 77, TEXT_WIDTH)."""
    config = CLIPTextConfig(
        vocab_size=END_TOKEN + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=TEXT_WIDTH // 64,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=START_TOKEN,
        eos_token_id=END_TOKEN,
        pad_token_id=END_TOKEN,
        projection_dim=TEXT_WIDTH,
    )
    return CLIPTextModel(config)


def noise_levels() -> torch.Tensor:
    """Stable Diffusion 1's schedule: the share of picture (alpha bar) left at each of 1000 times."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float()
