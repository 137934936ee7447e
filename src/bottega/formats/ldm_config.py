"""The original implementation's config, which people keep beside a checkpoint: `model.yaml` by `model.safetensors`."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

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
    path = f"{os.path.splitext(model)[0]}.yaml"
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_CONFIG:  # a pipe would have us wait for ever
            return b""
        with open(path, "rb") as file:
            return file.read(MAX_CONFIG)
    except (OSError, ValueError):
        return b""
