"""Stable Diffusion XL, base and refiner: sizes and pooled text join the time, and no attention at the first level."""

from __future__ import annotations

from bottega.families._stable_diffusion.face import family_of
from bottega.families._stable_diffusion.recognise import Design

family = family_of(
    Design(
        id="sdxl",
        published={"Stable Diffusion XL": (320, 2048), "the refiner of Stable Diffusion XL": (384, 1280)},
        scale=0.13025,
        encoders=("text_encoder", "text_encoder_2"),
        activations=("quick_gelu", "gelu"),
        size=1024,
        size_of_v=1024,
        # unCLIP adds conditions too, but has attention at every level but the deepest, as SD 2 has.
        fits=lambda unet: unet.adm is not None and unet.linear and not any(unet.down[0]),
        signs=lambda unet: f"{unet.adm} added conditions (pooled text, sizes), no attention at the first level",
        distilled={
            (((0, 0), (2, 2), (4, 4)), 0): ("ssd-1b", "2 and 4 transformers deep, none in the middle: SSD-1B"),
            (((0, 0), (1, 1), (2, 2)), 0): ("vega", "1 and 2 transformers deep, none in the middle: Segmind Vega"),
            (((0,), (2,), (5,)), 0): ("koala", "one block a level, 2 and 5 transformers deep: KOALA-700M"),
            (((0,), (2,), (6,)), 6): ("koala", "one block a level, 2 and 6 transformers deep: KOALA-1B"),
        },
    ),
    title="Stable Diffusion XL",
)
