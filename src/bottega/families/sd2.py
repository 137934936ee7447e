"""Stable Diffusion 2: a UNet with linear projections that hears OpenCLIP's last but one layer."""

from __future__ import annotations

from bottega.families._stable_diffusion.face import family_of
from bottega.families._stable_diffusion.recognise import Design

family = family_of(
    Design(
        id="sd2",
        published={"Stable Diffusion 2": (320, 1024)},
        scale=0.18215,
        encoders=("text_encoder",),
        activations=("gelu",),
        size=512,
        size_of_v=768,
        fits=lambda unet: unet.adm is None and unet.linear,
        signs=lambda unet: f"linear layers around attention at {sum(map(any, unet.down))} levels, no added conditions",
    ),
    title="Stable Diffusion 2",
)
