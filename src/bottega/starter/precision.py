"""The numbers that the starter's networks learn in."""

from __future__ import annotations

import torch

from bottega.runtime.place import has_bfloat16


def mixed(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where the device is known to be faster at it, else in float32: a CPU without instructions
    for it takes ten times as long to imitate them."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(str(device)))
