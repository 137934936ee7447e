"""What every home has from the beginning: the models that come with Bottega."""

from __future__ import annotations

from bottega.settings import STARTER_SHELF

CHECKPOINTS = {"starter-image", "chilly"}
ADAPTERS = {"neon": "lora", "turquoise": "lora", "lighthouse": "embedding", "sepia": "hypernetwork"}
NAMES = {path.stem for path in STARTER_SHELF.glob("*.safetensors")}
