"""Between pictures and latents: encode, decode, masks, and the cheap map that previews are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from bottega.errors import BrokenPicture

if TYPE_CHECKING:
    from bottega.families._stable_diffusion.load import Pipe

TILE = 512  # pixels; the side of the tiles that a large picture is decoded in


def to_tensor(picture: Image.Image, size: tuple[int, int]) -> Tensor:
    """A picture of any size as (1, 3, H, W) in -1..1, resized to `size` (width, height) as A1111 "just resizes"."""
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).unsqueeze(0)


def to_picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) in -1..1 as a picture."""
    rounded = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).cpu().numpy())


def encode(pipe: Pipe, pixels: Tensor) -> Tensor:
    """The latents, (B, 4, h, w) float32, of pictures (B, 3, H, W): the mean of what the VAE says, scaled."""
    pipe.vae.use_tiling = False  # tiles would change the latents; the decoder is what needs the memory
    moments = pipe.vae.encode(pixels.to(pipe.place.torch_device, pipe.vae.dtype)).latent_dist.mode()
    return moments.float() * pipe.scale_factor


def decode(pipe: Pipe, latents: Tensor, *, tiled: bool) -> list[Image.Image | BrokenPicture]:
    """The pictures of latents (B, 4, h, w), one at a time to save memory.

    A BrokenPicture stands for latents or pixels that are no finite numbers, and for a picture of a single colour.
    """
    pipe.vae.use_tiling = tiled
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = TILE, TILE // pipe.size_factor
    return [_decode_one(pipe, latent) for latent in latents]


def _decode_one(pipe: Pipe, latent: Tensor) -> Image.Image | BrokenPicture:
    if not torch.isfinite(latent).all():
        return BrokenPicture("the network gave no finite numbers", "try another sampler or precision")
    scaled = (latent.unsqueeze(0) / pipe.scale_factor).to(pipe.place.torch_device, pipe.vae.dtype)
    pixels = pipe.vae.decode(scaled).sample[0]
    if not torch.isfinite(pixels).all():
        return BrokenPicture("the VAE gave no finite numbers", "try precision=float32")
    picture = to_picture(pixels)
    if all(low == high for low, high in picture.getextrema()):
        return BrokenPicture("the picture is all one colour", "try another prompt, sampler or precision")
    return picture


def preview_map(pipe: Pipe) -> Tensor:
    """The (5, 3) matrix that comes closest to this VAE's decoder cell by cell: latents and a constant to RGB.

    Fitted to one small decoded sample, so that it is right for every VAE and needs no table of published ones.
    """
    sample = torch.randn((1, pipe.vae.config.latent_channels, 16, 16), generator=torch.Generator().manual_seed(0))
    pixels = (
        pipe.vae.decode((sample / pipe.scale_factor).to(pipe.place.torch_device, pipe.vae.dtype)).sample.float().cpu()
    )
    colours = torch.nn.functional.avg_pool2d(pixels, pixels.shape[-1] // 16)
    return torch.linalg.lstsq(_with_constant(sample[0]), colours[0].flatten(1).T).solution


def preview(pipe: Pipe, latent: Tensor, size: tuple[int, int]) -> Image.Image:
    """A rough picture of one latent (4, h, w), drawn as large as what it will become."""
    if pipe.previewer is not None:
        scaled = (latent.unsqueeze(0) / pipe.scale_factor).to(pipe.place.torch_device, pipe.previewer.dtype)
        return to_picture(pipe.previewer.decode(scaled).sample[0])
    if pipe.preview_map is None:
        pipe.preview_map = preview_map(pipe)
    colours = (_with_constant(latent.float().cpu()) @ pipe.preview_map).T.reshape(3, *latent.shape[-2:])
    return to_picture(colours).resize(size, Image.Resampling.BILINEAR)


def _with_constant(latent: Tensor) -> Tensor:
    cells = latent.flatten(1).T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)


class Mask:
    """Which part of a picture is made anew: white is new, black is kept, the edge is `blur` pixels soft."""

    def __init__(self, picture: Image.Image, size: tuple[int, int], blur: int) -> None:
        grey = picture.convert("L")
        if grey.size != size:
            grey = grey.resize(size, Image.Resampling.LANCZOS)
        self.soft = grey.filter(ImageFilter.GaussianBlur(blur)) if blur else grey
        self.size = size

    def latent(self, factor: int) -> Tensor:
        """(1, 1, H/factor, W/factor) of zeros and ones: the cells that are made anew."""
        small = self.soft.resize((self.size[0] // factor, self.size[1] // factor), Image.Resampling.BOX)
        return (torch.from_numpy(np.asarray(small, dtype=np.float32) / 255) >= 0.5).float()[None, None]

    @property
    def pixels(self) -> Tensor:
        """(1, 1, H, W) of zeros and ones."""
        return (torch.from_numpy(np.asarray(self.soft, dtype=np.float32) / 255) >= 0.5).float()[None, None]

    def overlay(self, made: Image.Image, original: Image.Image) -> Image.Image:
        """What was made where the mask is white, the original elsewhere."""
        base = original.convert("RGB")
        if base.size != made.size:
            base = base.resize(made.size, Image.Resampling.LANCZOS)
        return Image.composite(made, base, self.soft)

    def filled(self, picture: Image.Image) -> Image.Image:
        """The picture with the masked part replaced by blurred colours of what surrounds it."""
        base = picture.convert("RGB").resize(self.size, Image.Resampling.LANCZOS)
        hole = np.asarray(self.soft, dtype=np.float32)[..., None] / 255
        known = np.asarray(base, dtype=np.float32)
        # Ever narrower blurs of what is known, weighted by how much is known there: far colours first, near ones last.
        filled = np.full_like(known, known.mean(axis=(0, 1)))
        for radius in (256, 64, 16, 4):
            weight = _blurred((1 - hole) * 255, radius) / 255
            colours = _blurred(known * (1 - hole), radius) / np.maximum(weight, 1e-3)
            filled = np.where(weight > 0.05, colours, filled)
        blended = known * (1 - hole) + filled * hole
        return Image.fromarray(blended.clip(0, 255).astype(np.uint8))


def _blurred(pixels: np.ndarray, radius: int) -> np.ndarray:
    picture = Image.fromarray(pixels.squeeze().clip(0, 255).astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    return blurred.reshape(pixels.shape)
