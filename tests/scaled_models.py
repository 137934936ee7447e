"""Models of scaled float8, as ComfyUI has them: a weight's numbers mean nothing without the scale beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bottega.families._stable_diffusion import toy


def scaled_file(path: Path) -> Path:
    """A model of one file, scaled."""
    return scaled(toy.write_single_file(path, "sd1"))


def scaled_folder(path: Path) -> Path:
    """A model in diffusers' layout of which the UNet is scaled."""
    toy.write_folder(path, "sd1")
    scaled(next((path / "unet").glob("*.safetensors")))
    return path


def scaled(path: Path) -> Path:
    """The file, in which the first matrix is float8 with a scale from now on."""
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.ndim == 2)
    scale = tensors[name].abs().max().float() / 448
    tensors[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
    tensors[name.removesuffix("weight") + "scale_weight"] = scale
    save_file(tensors, path)
    return path
