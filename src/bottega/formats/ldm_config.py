"""The original implementation's config, which people keep beside a checkpoint: `model.yaml` by `model.safetensors`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bottega.formats.sniff import open_regular

MAX_CONFIG = 1 << 20  # bytes; real ones have two thousand

_PARAMETERIZATION = re.compile(r"^[ \t]{0,40}parameterization:[ \t]{0,9}[\"']?(\w{1,40})", re.MULTILINE)
_LATENT_DIFFUSION = re.compile(r"^[ \t]{0,40}target:[ \t]{0,9}ldm\.models\.diffusion\.", re.MULTILINE)


def parameterization(config: bytes) -> str:
    """What the UNet predicts, in the config's word: `eps`, as where it says nothing, or `v`; empty if it is none."""
    text = config[:MAX_CONFIG].decode("utf-8-sig", "replace")
    if match := _PARAMETERIZATION.search(text):
        return match[1]
    return "eps" if _LATENT_DIFFUSION.search(text) else ""


def beside(model: Path) -> bytes:
    """The config that lies beside a model under its name; empty if there is none that can be read."""
    try:
        with open_regular(Path(f"{os.path.splitext(model)[0]}.yaml")) as file:
            config = file.read(MAX_CONFIG + 1)
    except (OSError, ValueError):
        return b""
    return config if len(config) <= MAX_CONFIG else b""
