"""Writes a model anew: as safetensors or as a folder, in another dtype, without what training left in it.

Nothing is held but a few blocks, whatever the size of the model. What was written is read back and compared while the
disk takes it in: with the source, read once more, or with what was cast; only then it gets its name. That proves that
the file which the system holds says what the source says, under the right names. Whether the disk keeps it is the
disk's affair: its errors are heard, as the file is synced before it is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bottega.errors import FileError
from bottega.formats import read_header
from bottega.formats.atomic import remove_stale
from bottega.formats.header import Header, shown
from bottega.library.contents import dtype_of
from bottega.library.disk import MODEL_SUFFIXES
from bottega.library.writing import (
    Sources,
    Target,
    Told,
    check_destination,
    check_room,
    clipped_note,
    target_bytes,
    write,
)
from bottega.spec import Anatomy, Match, Pieces, Relayout
from bottega.version import __version__

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "fp8": "F8_E4M3"}
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
DENOISERS = ("unet", "transformer", "diffusion_model")  # the parts whose matrices may be float8
# Kinds that float8 ruins; the numbers of a LoRA are so small that it makes most of them zero.
TOO_SENSITIVE = ("vae", "embedding", "upscaler", "lora", "hypernetwork")
_SCALED = re.compile(r"(^|[./])(scaled_fp8|scale_weight|scale_input|weight_scale|\w+_scale_inv)$")
# What trainers of any kind of model leave beside it.
LEFTOVERS = re.compile(r"^(model_ema|ema|optimizer(_states?)?|lr_schedulers?|loss)\.")


@dataclass(frozen=True)
class Wish:
    """How a model is to be written anew.

    `dtype` is `keep` or one of DTYPES; `layout` is `single`, `diffusers` or what follows from the destination's name;
    `prune` leaves out what training left, `ema` puts the running averages in the place of the weights; `force` allows
    to replace what is at the destination.
    """

    dtype: str = "keep"
    layout: str | None = None
    prune: bool = False
    ema: bool = False
    force: bool = False


@dataclass(frozen=True)
class Converted:
    """What was written: how many tensors of which dtypes, and what was left out or is to be known."""

    path: Path
    tensors: int
    bytes: int
    dtypes: Mapping[str, int]
    pruned: int
    left: tuple[str, ...]
    notes: tuple[str, ...]


def convert(
    header: Header,
    destination: Path,
    wish: Wish,
    match: Match | None = None,
    anatomy: Anatomy | None = None,
    told: Told = lambda phase, done, total: None,
) -> Converted:
    """Write the model of a header anew; `match` and `anatomy` are its family's, where it has one.

    Raises FileError for what can't be done, SaveError if there is no room, BottegaError if what was written is not what
    was read. Whatever happens, the source stays as it is, and nothing incomplete has the destination's name.
    """
    layout = wish.layout or layout_of(destination)
    if wish.dtype != "keep":
        refuse_scaled(header, "keep its dtype, or get it in float16")
    remove_stale(destination.parent)  # which may give a folder its name back
    check_destination([header.path], destination, folder=layout == "diffusers", force=wish.force)
    sources = Sources([header])
    known, pruned = _chosen(header, wish, match, anatomy)
    plan, told_by_family = _laid_out(known, match, anatomy, layout)
    targets = {file: with_dtypes(known, tensors, wish.dtype, match) for file, tensors in plan.weights.items()}
    metadata = {**_metadata(header, wish), **plan.metadata}
    check_room(destination, targets, metadata)
    clipped = write(destination, targets, plan.files, metadata, told, sources=sources, force=wish.force)
    sizes: dict[str, int] = {}
    for target in (target for tensors in targets.values() for target in tensors.values()):
        sizes[target.dtype] = sizes.get(target.dtype, 0) + target_bytes(target)
    return Converted(
        path=destination,
        tensors=sum(map(len, targets.values())),
        bytes=sum(sizes.values()),
        dtypes=sizes,
        pruned=pruned,
        left=(*plan.left, *header.unread),
        notes=(*header.notes, *told_by_family, *clipped_note(clipped)),
    )


def layout_of(destination: Path) -> str:
    """The layout that a destination's name asks for."""
    suffix = destination.suffix.lower()
    if suffix == ".safetensors":
        return "single"
    if suffix in MODEL_SUFFIXES:
        raise FileError(destination, f"{suffix} is not written", "name a .safetensors, or a folder")
    return "diffusers"


# --- what is written -------------------------------------------------------------------------------------------------


def _chosen(header: Header, wish: Wish, match: Match | None, anatomy: Anatomy | None) -> tuple[Header, int]:
    """The header with the tensors that are wanted, and how many were left out."""
    tensors = dict(header.tensors)
    if not (wish.ema or wish.prune):
        return header, 0
    averages = anatomy.averages(header, match) if match and anatomy else {}
    if wish.ema and not averages:
        raise FileError(header.path, "holds no running averages that belong to weights", "convert it without ema")
    for name, average in averages.items():
        if wish.ema or name not in tensors:  # of some only the average may be left
            tensors[name] = header.tensors[average]
    dropped = {name for name in header.tensors if LEFTOVERS.match(name)}
    dropped |= anatomy.leftovers(header) if anatomy and wish.prune else set()
    tensors = {name: info for name, info in tensors.items() if name not in dropped}
    return replace(header, tensors=tensors), len(header.tensors) - len(tensors)


def _laid_out(
    header: Header, match: Match | None, anatomy: Anatomy | None, layout: str
) -> tuple[Relayout, tuple[str, ...]]:
    """Which stored tensors go where. Within one layout names stay as they are; another one is the family's affair."""
    if layout == "single" and header.format != "diffusers":
        stored = header.stored_names
        return Relayout({"": {stored.get(name, name): (info,) for name, info in header.tensors.items()}}), ()
    if match is None or anatomy is None:
        what = "is of no family whose layouts are known, so it stays in the one that it has"
        raise FileError(header.path, what, "convert it to a .safetensors" if layout == "diffusers" else "")
    refuse_scaled(header, "keep its layout, or get it in float16")
    plan = anatomy.relayout(header, match, layout)
    return plan, plan.notes


def refuse_scaled(header: Header, remedy: str) -> None:
    """Raise FileError for weights that mean nothing without the scales beside them, which no family knows."""
    if scaled := next((name for name in header.tensors if _SCALED.search(name)), None):
        what = f"has float8 weights with scales of their own ({shown(scaled)})"
        raise FileError(header.path, what, remedy)


def with_dtypes(header: Header, tensors: Mapping[str, Pieces], dtype: str, match: Match | None) -> dict[str, Target]:
    """The tensors with the dtypes that are wished for; whole numbers stay what they are."""
    targets = {name: Target(dtype_of(pieces), pieces) for name, pieces in tensors.items()}
    if dtype == "keep":
        return targets
    small = _float8_places(header, match) if dtype == "fp8" else set()
    for name, target in targets.items():
        if target.dtype in FLOATS:
            wanted = DTYPES[dtype]
            if dtype == "fp8" and (target.pieces[0].file, target.pieces[0].start) not in small:
                wanted = "F16"
            targets[name] = replace(target, dtype=wanted)
    return targets


def _float8_places(header: Header, match: Match | None) -> set[tuple[Path, int]]:
    """Where the tensors lie that are to be float8: the matrices and convolutions of what takes the noise away.

    Everything else is float16: biases and norms are small and much depends on them, and a text encoder or a VAE in
    float8 costs more quality than it saves. A model whose parts are not known is taken for one part.
    """
    if match is not None and match.kind in TOO_SENSITIVE:
        raise FileError(header.path, f"a model of kind {match.kind} loses too much in float8", "choose the dtype fp16")
    parts = match.parts if match else {}
    prefixes = tuple(prefix for part, prefix in parts.items() if part in DENOISERS)
    if parts and not prefixes:
        raise FileError(header.path, "has no part for whose weights float8 is good enough", "choose the dtype fp16")
    return {
        (info.file, info.start)
        for name, info in header.tensors.items()
        if len(info.shape) > 1 and name.startswith(prefixes or "")
    }


# What would no longer be true of a file with other bytes.
STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


def _metadata(header: Header, wish: Wish) -> dict[str, str]:
    """What the source says of itself, and a note of what was done to it."""
    done: dict[str, object] = {"from": header.path.name, "format": header.format, "app": f"bottega {__version__}"}
    done |= {name: value for name, value in asdict(wish).items() if name in ("dtype", "prune", "ema") and value}
    told = {name: text for name, text in metadata_of(header).items() if name not in STALE}
    return {"format": "pt", **told, "bottega.converted": json.dumps(done)}


def metadata_of(header: Header) -> Mapping[str, str]:
    """What a model says of itself; a folder as a whole says nothing, so its first file is asked.

    Of PEFT's folders it is the config, without which nothing says how strong the adapter is: one file of their tensors
    keeps it where diffusers does.
    """
    if header.format == "transformers" and "peft_type" in (config := header.configs.get("", {})):
        return {**header.metadata, "lora_adapter_metadata": json.dumps(config)}
    if header.format != "diffusers" or not header.tensors:
        return header.metadata
    return read_header(next(iter(header.tensors.values())).file).metadata
