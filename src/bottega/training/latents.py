"""What the network sees of the pictures: latents, encoded once and kept on disk beside the training's state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bottega.spec import Shown
from bottega.training import state
from bottega.training.batches import Batches
from bottega.training.buckets import fitted
from bottega.training.data import Picture, open_picture


@dataclass(frozen=True)
class Seen:
    """A picture as the network sees it: `latent` and, mirrored, `flipped` (C, h, w), and `mask` (1, h, w) of 0 to 1."""

    latent: Tensor
    flipped: Tensor | None
    mask: Tensor | None
    shown: Shown

    def latent_of(self, mirrored: bool) -> Tensor:
        """The latent, or that of the mirrored picture."""
        return self.flipped if mirrored and self.flipped is not None else self.latent

    def mask_of(self, mirrored: bool) -> Tensor | None:
        """The mask, or the mirrored one."""
        return self.mask.flip(-1) if mirrored and self.mask is not None else self.mask


def seen(
    pictures: Sequence[Picture],
    batches: Batches,
    encode: Callable[[Tensor], Tensor],
    folder: Path,
    flip: bool,
) -> Iterator[Seen]:
    """Each picture as the network sees it, in order, from `folder` where it was encoded before.

    `encode` makes latents (B, C, h, w) of pixels (B, 3, H, W) in -1..1; it is given one picture at a time, so that its
    answer does not depend on the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        bucket = batches.bucket(picture)
        mask = hashlib.sha256(picture.mask.read_bytes()).hexdigest() if picture.mask else ""
        key = hashlib.sha256(json.dumps([picture.sha256, mask, bucket, flip]).encode()).hexdigest()[:32]
        file = folder / f"{key}.safetensors"
        if not file.exists():
            state.save(_encoded(picture, bucket, encode, flip), file)
        kept = state.load(file)
        kept["shown"] = Shown(*(tuple(pair) for pair in kept["shown"]))
        yield Seen(**kept)


def _encoded(
    picture: Picture, bucket: tuple[int, int], encode: Callable[[Tensor], Tensor], flip: bool
) -> dict[str, object]:
    image = open_picture(picture.path)
    cut, (left, top) = fitted(image, bucket)
    pixels = torch.from_numpy(np.asarray(cut, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).unsqueeze(0)
    latent = encode(pixels)[0].cpu()
    mask = None
    if picture.mask:
        small = fitted(open_picture(picture.mask).resize(image.size), bucket)[0].convert("L")
        cells = small.resize((latent.shape[-1], latent.shape[-2]))
        mask = torch.from_numpy(np.asarray(cells, dtype=np.float32) / 255).unsqueeze(0)
    return {
        "latent": latent,
        "flipped": encode(pixels.flip(-1))[0].cpu() if flip else None,
        "mask": mask,
        "shown": [[image.height, image.width], [top, left], [bucket[1], bucket[0]]],
    }
