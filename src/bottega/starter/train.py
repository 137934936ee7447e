"""Make starter-image from nothing: `python -m bottega.starter.train [--minutes N] [--device D] [--out FOLDER]`.

Four stages share the time: the VAE learns from freshly drawn scenes; the text encoder learns what captions mean; the
UNet learns to make the VAE's latents from what the text encoder says; the VAE's decoder is polished. Then
`starter-image.safetensors` is written. Progress goes to standard error, and a page of pictures and the judge's figures
appear in the folder while the UNet learns. Stopped at any time, the same command goes on where it was.

On a CPU the UNet and the decoder are trained by one process for each core; see `crew`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from bottega.starter import learn_text, learn_unet, learn_vae, networks
from bottega.starter.crew import Crew, together
from bottega.starter.export import export
from bottega.starter.judge import captions_for, held_out_scenes, tally
from bottega.starter.progress import load, save, say
from bottega.starter.sampling import sample, sheet

VAE_SHARE, TEXT_SHARE, UNET_SHARE, POLISH_SHARE = 0.22, 0.03, 0.58, 0.17
"""How the time is divided."""
LOOK_AT = 32
"""Pictures made at every look."""
WEIGHTS = "starter-image.safetensors"


def read_vae(path: Path, device: torch.device) -> AutoencoderKL:
    """A VAE that an earlier stage saved, ready for use."""
    model = networks.vae()
    model.load_state_dict(load(path))
    return model.requires_grad_(False).eval().to(device)


def read_text(path: Path, device: torch.device) -> CLIPTextModel:
    """A text encoder that an earlier stage saved, ready for use."""
    model = networks.text_encoder()
    model.load_state_dict(load(path))
    return model.requires_grad_(False).eval().to(device)


def look(vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, folder: Path, step: int) -> None:
    """Export what there is, and lay out and judge some pictures of captions that training never saw."""
    export(vae, unet, text, folder / WEIGHTS)
    scenes = held_out_scenes(LOOK_AT)
    pictures = sample(vae, unet, text, captions_for(scenes))
    sheet(pictures).save(folder / f"look-{step:05d}.png")
    figures = tally(zip(pictures, scenes, strict=True))
    say(f"step {step}: " + ", ".join(f"{name} {share:.0%}" for name, share in figures.items()))


def learn(crew: Crew, folder: Path, minutes: float, device: torch.device) -> None:
    """The UNet's stage, for one member of the crew; the leader leaves `folder`/unet-learned.safetensors."""
    vae = read_vae(folder / "vae-settled.safetensors", device)
    text = read_text(folder / "text-learned.safetensors", device)

    def see(unet: UNet2DConditionModel, step: int) -> None:
        look(vae, unet, text, folder, step)

    unet = learn_unet.train(vae, text, folder, minutes, device, crew, see)
    if crew.rank == 0:
        save(unet.state_dict(), folder / "unet-learned.safetensors")


def finish(folder: Path) -> Path:
    """Put the finished networks into one file."""
    cpu = torch.device("cpu")
    unet = networks.unet()
    unet.load_state_dict(load(folder / "unet-learned.safetensors"))
    text = read_text(folder / "text-learned.safetensors", cpu)
    export(read_vae(folder / "vae-polished.safetensors", cpu), unet, text, folder / WEIGHTS)
    return folder / WEIGHTS


def train(folder: Path, minutes: float, device: torch.device) -> None:
    """All stages that are not done yet."""
    started = time.monotonic()
    members = (os.cpu_count() or 1) if device.type == "cpu" else 1
    if not (folder / "vae-settled.safetensors").exists():
        vae = learn_vae.settle(learn_vae.train(folder, minutes * VAE_SHARE, device), device)
        save(vae.state_dict(), folder / "vae-settled.safetensors")
    if not (folder / "text-learned.safetensors").exists():
        text = learn_text.train(folder, minutes * TEXT_SHARE, device)
        save(text.state_dict(), folder / "text-learned.safetensors")
    if not (folder / "unet-learned.safetensors").exists():
        crew = Crew(members, learn_unet.ALL_SCENES, _count(networks.unet()))
        together(crew, learn, folder, minutes * UNET_SHARE, device)
    if not (folder / "vae-polished.safetensors").exists():
        together(Crew(members, 0, _count(networks.vae())), learn_vae.polish, folder, minutes * POLISH_SHARE, device)
    say(f"{finish(folder)} after {(time.monotonic() - started) / 60:.1f} minutes")


def _count(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train starter-image from nothing.")
    parser.add_argument("--minutes", type=float, default=150, help="time for everything (default: 150)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("build/starter"), help="folder for weights and states")
    chosen = parser.parse_args()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if chosen.device == "auto" else chosen.device
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        train(chosen.out, chosen.minutes, torch.device(device))
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        sys.exit(130)


if __name__ == "__main__":
    main()
