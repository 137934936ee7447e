"""Make starter-image from nothing: `python -m bottega.starter.train [--minutes N] [--device auto|cpu|cuda] [--out DIR]`.

Draws scenes, teaches the VAE, encodes scenes, teaches the UNet with the text encoder, and writes
`starter-image.safetensors` into the folder. Progress goes to standard error. Killed at any time, the same command goes
on where it was: the states of the stages stand beside the result, as `vae.pt` and `unet.pt`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from bottega.starter import learn_unet, learn_vae, networks
from bottega.starter.export import export
from bottega.starter.judge import report
from bottega.starter.progress import load, save, say

VAE_SHARE = 0.20
"""How much of the time the VAE gets; the rest is the UNet's."""
WEIGHTS = "starter-image.safetensors"


def settled_vae(folder: Path, minutes: float, device: torch.device) -> AutoencoderKL:
    """The finished VAE: trained, and its latents brought to the usual scale."""
    checkpoint = folder / "vae-settled.pt"
    if checkpoint.exists():
        model = networks.vae()
        model.load_state_dict(load(checkpoint))
        return model.requires_grad_(False).eval().to(device)
    model = learn_vae.settle(learn_vae.train(folder, minutes, device), device)
    save(model.state_dict(), checkpoint)
    return model


def train(folder: Path, minutes: float, device: torch.device) -> None:
    """All stages; the checkpoint is written at every look and at the end."""
    started = time.monotonic()
    vae = settled_vae(folder, minutes * VAE_SHARE, device)

    def look(unet: UNet2DConditionModel, text: CLIPTextModel, step: int) -> None:
        export(vae, unet, text, folder / WEIGHTS)
        say(f"step {step}: {report(vae, unet, text, folder / f'look-{step:05d}.png')}")

    unet, text = learn_unet.train(vae, folder, minutes * (1 - VAE_SHARE), device, look)
    export(vae, unet, text, folder / WEIGHTS)
    say(f"done after {(time.monotonic() - started) / 60:.1f} minutes: {folder / WEIGHTS}")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train starter-image from nothing.")
    parser.add_argument("--minutes", type=float, default=110, help="time for everything (default: 110)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("build/starter"), help="folder for weights and states")
    chosen = parser.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if chosen.device == "auto" else chosen.device
    chosen.out.mkdir(parents=True, exist_ok=True)
    train(chosen.out, chosen.minutes, torch.device(device))


if __name__ == "__main__":
    main()
