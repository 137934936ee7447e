"""Files of adapters for tests: tiny autoencoders in every layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from bottega.families._stable_diffusion import networks
from bottega.formats import safetensors
from bottega.runtime.weights import rows


def taesd(seed: int = 4) -> nn.Module:
    """TAESD as diffusers has it, with random weights that keep signals at their size."""
    networks.prepare_libraries()
    from diffusers import AutoencoderTiny

    generator = torch.Generator().manual_seed(seed)
    model = AutoencoderTiny().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.7 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else noise * 0.05)
    return model


def write_taesd(path: Path, layout: str, model: nn.Module) -> Path:
    state = model.state_dict()
    tensors = {}
    for name, tensor in state.items():
        half, _, number, rest = name.split(".", 3)
        moved = int(number) + (half == "decoder")  # the original's decoder begins with a clamp
        match layout:
            case "diffusers":
                tensors[name] = tensor
            case "comfyui":
                tensors[f"taesd_{half}.{moved}.{rest}"] = tensor
            case _ if layout == half:
                tensors[f"{moved}.{rest}"] = tensor
    if layout == "comfyui":
        tensors["vae_scale"] = torch.ones(1)
    safetensors.write(path, rows(tensors))
    return path
