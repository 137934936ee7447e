"""Makes a LoRA of what sets two checkpoints apart: of each changed weight the best approximation of a low rank.

Each difference is computed in float32 and split by a randomised singular value decomposition. The file is written as
kohya's trainer writes it, one weight after the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.errors import FileError
from bottega.formats.atomic import remove_stale, settle_new
from bottega.formats.header import TensorInfo, shown
from bottega.library.contents import Reader
from bottega.library.merge import Smith, check_fit, named_tensors
from bottega.library.merge_recipe import Parent, Wish
from bottega.library.writing import (
    Chunks,
    Sources,
    Target,
    Told,
    check_destination,
    check_room,
    taken,
    target_bytes,
    write_file,
)
from bottega.spec import Pieces, Place
from bottega.version import __version__

if TYPE_CHECKING:
    import torch

SEED = 0  # of the randomised decomposition, so that equal input gives an equal file
EMBEDDINGS = ("token_embedding", "position_embedding")  # which LoRA don't change


@dataclass(frozen=True)
class Extracted:
    """What was written: how many weights of how many that differ, and the share of the difference that it holds.

    The share is of the sum of squares, over all weights that were taken. `skipped` are changed tensors that such a LoRA
    can't hold: biases, norms, embeddings, and convolutions where no rank for them was asked for.
    """

    path: Path
    weights: int
    bytes: int
    share: float
    skipped: tuple[str, ...]


def extract(
    tuned: Parent,
    base: Parent,
    destination: Path,
    rank: int,
    *,
    conv_rank: int = 0,
    force: bool = False,
    told: Told = lambda phase, done, total: None,
) -> Extracted:
    """Write the LoRA that makes `tuned` of `base`, as far as a rank allows; `conv_rank` is that of 3x3 convolutions.

    Raises FileError if the two don't fit, or don't differ, or have numbers that no LoRA can hold.
    """
    if destination.suffix.lower() != ".safetensors":
        raise FileError(destination, "a LoRA is written as .safetensors", "name it so")
    check_destination([tuned.header.path, base.header.path], destination, folder=False, force=force)
    check_fit([tuned, base], Wish())
    if tuned.anatomy is None:
        raise FileError(tuned.header.path, "is of no family that takes LoRA", "name two Stable Diffusion models")
    before = Sources([tuned.header, base.header])
    ours, theirs = named_tensors(tuned), named_tensors(base)
    changed = [
        place
        for place in tuned.anatomy.places(tuned.header, tuned.match)
        if place.tensor in ours and place.tensor in theirs and _differ(place, ours, theirs)
    ]
    ranks = {place: found for place in changed if (found := _rank(place, rank, conv_rank))}
    if not ranks:
        raise FileError(tuned.header.path, f"does not differ from {base.name} in any weight that a LoRA changes")
    work = ExtractWork(ranks, ours, theirs)
    stated = {**tuned.anatomy.names(tuned.match), **_metadata(base, destination, rank, conv_rank)}
    unsealed = {**stated, **_hashes(base, "0" * 64)}
    remove_stale(destination.parent)  # which may be what fills the disk
    check_room(destination, {"": work.targets}, unsealed)

    @cache
    def seal() -> Mapping[str, str]:
        return {**stated, **_hashes(base, base.digits())}

    try:
        write_file(destination, work, unsealed, told, os.replace if force else settle_new, before, seal)
    except FileExistsError:
        raise taken(destination) from None
    return Extracted(
        path=destination,
        weights=len(ranks),
        bytes=sum(map(target_bytes, work.targets.values())),
        share=work.kept / work.whole if work.whole else 1.0,
        skipped=tuple(place.name for place in changed if place not in ranks),
    )


def _rank(place: Place, rank: int, conv_rank: int) -> int:
    """The rank for a tensor; 0 if a LoRA doesn't change it."""
    shape = place.shape
    if len(shape) < 2 or any(word in place.name for word in EMBEDDINGS):
        return 0
    wide = prod(shape[2:]) > 1
    return min(conv_rank if wide else rank, shape[0], prod(shape[1:]))


def _differ(place: Place, ours: Mapping[str, Pieces], theirs: Mapping[str, Pieces]) -> bool:
    """Whether a tensor was changed at all. What is stored in two dtypes counts as changed."""
    mine, other = _region(place, ours[place.tensor]), _region(place, theirs[place.tensor])
    if [info.dtype for info in mine] != [info.dtype for info in other]:
        return True
    with Reader() as one, Reader() as another:
        pairs = zip(one.blocks(mine), another.blocks(other), strict=True)
        return any(bytes(block) != bytes(match) for block, match in pairs)


def _region(place: Place, pieces: Pieces) -> Pieces:
    """The pieces of a place: all of its tensor, or the third that it is."""
    if place.third is None or len(pieces) == 1:
        return pieces
    return (pieces[place.third],)


class ExtractWork:
    """Splits differences into the tensors of a LoRA. `whole` and `kept` are sums of squares, for the share."""

    computes = True

    def __init__(self, ranks: Mapping[Place, int], ours: Mapping[str, Pieces], theirs: Mapping[str, Pieces]) -> None:
        self._ours, self._theirs = ours, theirs
        self._by_key = {place.key: (place, rank) for place, rank in ranks.items()}
        self.whole = self.kept = 0.0
        nowhere = Path()
        self.targets: Mapping[str, Target] = {
            name: Target("F16", (TensorInfo("F16", shape, nowhere, 0, 0),))
            for place, rank in ranks.items()
            for name, shape in _shapes(place, rank).items()
        }

    def contents(self, order: Sequence[str]) -> Chunks:
        """The bytes of the LoRA's tensors: those of one weight follow each other."""
        made: Mapping[str, memoryview] = {}
        with Smith() as smith:
            for name in order:
                if name not in made:
                    made = self._split(
                        smith, name.rsplit(".", 1)[0].removesuffix(".lora_down").removesuffix(".lora_up")
                    )
                yield name, made[name]

    def _split(self, smith: Smith, key: str) -> dict[str, memoryview]:
        import torch

        from bottega.runtime.deltas import factors

        place, rank = self._by_key[key]
        mine, other = (self._weight(smith, place, tensors) for tensors in (self._ours, self._theirs))
        difference = mine.sub_(other)
        up, down, share = factors(difference, rank, SEED)
        energy = torch.linalg.vector_norm(difference).item() ** 2
        self.whole += energy
        self.kept += energy * share
        tensors = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(float(rank))}
        halves = {role: tensor.half().contiguous().flatten() for role, tensor in tensors.items()}
        if not all(half.isfinite().all() for half in halves.values()):
            what = f"{shown(place.tensor)} differs by up to {difference.abs().max().item():.3g}, too much for float16"
            raise FileError(self._ours[place.tensor][0].file, what, "name the model that it was made from as the base")
        return {f"{key}.{role}": smith.raw(half) for role, half in halves.items()}

    def _weight(self, smith: Smith, place: Place, tensors: Mapping[str, Pieces]) -> torch.Tensor:
        pieces = tensors[place.tensor]
        region = _region(place, pieces)
        whole = smith.whole(region)
        if not whole.isfinite().all():
            what = f"{shown(place.tensor)} holds numbers that are not finite (NaN or infinite)"
            raise FileError(region[0].file, what, "get the model again, or another version of it")
        if place.third is not None and region is pieces:
            whole = whole.reshape(3, -1)[place.third]
        if place.transposed:
            return whole.reshape(place.shape[::-1]).T.contiguous()
        return whole.reshape(place.shape)


def _shapes(place: Place, rank: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one weight, in the order in which a file has them."""
    inner = place.shape[1:]
    ends = [1] * (len(place.shape) - 2)
    return {
        f"{place.key}.alpha": (),
        f"{place.key}.lora_down.weight": (rank, *inner),
        f"{place.key}.lora_up.weight": (place.shape[0], rank, *ends),
    }


def _metadata(base: Parent, destination: Path, rank: int, conv_rank: int) -> dict[str, str]:
    """What kohya's trainer would say of such a LoRA."""
    arguments = {"conv_dim": str(conv_rank), "conv_alpha": str(conv_rank)} if conv_rank else {}
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank),
        "ss_network_args": json.dumps(arguments),
        "ss_output_name": destination.stem,
        "ss_sd_model_name": base.header.path.name,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": destination.stem,
    }


def _hashes(base: Parent, sha256: str) -> dict[str, str]:
    """What tells of the model that the LoRA belongs to, and how it came to be."""
    done = {"app": f"bottega {__version__}", "base": base.name, "sha256": sha256}
    return {"ss_new_sd_model_hash": sha256, "bottega.extracted": json.dumps(done)}
