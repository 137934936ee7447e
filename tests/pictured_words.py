"""Embeddings in pictures, for tests: as stable-diffusion-webui writes them, told byte by byte."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin


def told(vectors: Sequence[Sequence[float]], name: str = "word") -> bytes:
    """The JSON of an embedding."""
    rows = [list(row) for row in vectors]
    content: dict[str, Any] = {"string_to_token": {"*": 265}, "string_to_param": {"*": {"TORCHTENSOR": rows}}}
    return json.dumps({**content, "name": name, "step": 500, "sd_checkpoint": None}).encode()


def in_text(path: Path, content: bytes, picture: Image.Image | None = None) -> Path:
    """A PNG that has it in a text."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("sd-ti-embedding", base64.b64encode(content).decode())
    (picture or Image.radial_gradient("L").convert("RGB")).save(path, "PNG", pnginfo=texts)
    return path


def in_pixels(content: bytes, picture: Image.Image | None = None) -> Image.Image:
    """A picture that has it in the columns at its sides."""
    middle = (picture or Image.linear_gradient("L").convert("RGB")).point(lambda value: max(value, 17))
    data, height = zlib.compress(content), middle.height
    width = -(-len(data) // (height * 3))
    data = (data * 2)[: width * height * 3].ljust(width * height * 3, b"\x55")
    sides = []
    for nibbles in ([byte & 15 for byte in data], [byte >> 4 for byte in data]):
        hidden = [nibble ^ (number & 15) for nibble, number in zip(nibbles, numbers(), strict=False)]
        # What is in the upper bits is decoration; without it a column could be black.
        sides.append(Image.frombytes("RGB", (width, height), bytes(each | 64 for each in hidden)))
    whole = Image.new("RGB", (2 * width + middle.width + 2, height))
    whole.paste(sides[0], (0, 0))
    whole.paste(middle, (width + 1, 0))
    whole.paste(sides[1], (width + middle.width + 2, 0))
    return whole


def numbers() -> Iterator[int]:
    """What the halves of bytes are XORed with."""
    seed = 0
    while True:
        seed = (1664525 * seed + 1013904223) % 2**32
        yield seed % 255
