"""Stable Diffusion 1: a UNet with convolutional projections that hears one CLIP text encoder."""

from __future__ import annotations

from bottega.families._stable_diffusion.face import family_of
from bottega.families._stable_diffusion.recognise import Design

family = family_of(
    Design(
        id="sd1",
        published={"Stable Diffusion 1": (320, 768)},
        scale=0.18215,
        encoders=("text_encoder",),
        activations=("quick_gelu",),
        size=512,
        size_of_v=512,
        fits=lambda unet: unet.adm is None and not unet.linear,
        signs=lambda unet: f"convolutions around attention at {sum(map(any, unet.down))} levels, no added conditions",
    ),
    title="Stable Diffusion 1",
)
