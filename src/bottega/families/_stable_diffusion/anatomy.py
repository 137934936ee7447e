"""How a Stable Diffusion model is put together: its layouts, blocks and leftovers, for converting and merging."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from bottega.errors import UnsupportedModel
from bottega.families._stable_diffusion import lora
from bottega.families._stable_diffusion.configs import Shape, folder_files, weights_file
from bottega.families._stable_diffusion.inventory import names_of
from bottega.families._stable_diffusion.keys import REFINER_ENCODER, SINGLE_FILE, source_of, stow, view
from bottega.families._stable_diffusion.layout import TextShape, UnetShape, read_vae
from bottega.families._stable_diffusion.parts import (
    IGNORED,
    Part,
    average_name,
    idle,
    incomplete,
    parts_of,
    stored_name,
)
from bottega.families._stable_diffusion.recognise import REFINER, Design, V, defaults, find_vae, needs
from bottega.formats.header import Header, TensorInfo
from bottega.spec import Anatomy, Match, Pieces, Relayout

SINGLE, DIFFUSERS = "single", "diffusers"
FLAGS = ("v_pred", "ztsnr")  # empty tensors that tell other programs what the UNet predicts
_MODEL_FORMAT = {"format": "pt"}  # without which transformers reads no safetensors file


def anatomy_of(design: Design) -> Anatomy:
    """The anatomy of one design."""
    return Anatomy(
        relayout=partial(relayout, design),
        averages=averages,
        leftovers=leftovers,
        vae=vae_tensors,
        blocks=blocks,
        block=block_of,
        patches=partial(lora.patches, design.id),
        places=partial(lora.places, design.id),
        names=partial(lora.names_for, design.id),
    )


# --- layouts ---------------------------------------------------------------------------------------------------------


def relayout(design: Design, header: Header, match: Match, layout: str) -> Relayout:
    """Where the tensors of a recognised model lie in another layout. Raises UnsupportedModel if some are missing."""
    parts = parts_of(header, match)
    return _as_single(design, header, match, parts) if layout == SINGLE else _as_folder(design, header, match, parts)


def _as_single(design: Design, header: Header, match: Match, parts: Mapping[str, Part]) -> Relayout:
    tensors: dict[str, Pieces] = {}
    used: set[str] = set()
    notes = []
    for name, part in parts.items():
        prefix, naming = single_place(design.id, match, name)
        for target, pieces in _moved(name, part, replace(part.shape, naming=naming), used).items():
            tensors[prefix + target] = pieces
        if design.id == "sd2" and isinstance(part.shape, TextShape):
            notes += _add_idle_block(part, prefix, tensors, used)
    tensors |= _flags(design, header, match)
    metadata = {} if match.guess else {"modelspec.prediction_type": match.dimensions["prediction"]}
    left = _left(header, used | tensors.keys())
    return Relayout({"": tensors}, metadata=metadata, left=left, notes=tuple(notes))


def single_place(family: str, match: Match, part: str) -> tuple[str, str]:
    """The prefix and the naming of a part in the family's single files."""
    refined = match.variant == REFINER and part == "text_encoder_2"
    return REFINER_ENCODER if refined else SINGLE_FILE[family][part]


def _as_folder(design: Design, header: Header, match: Match, parts: Mapping[str, Part]) -> Relayout:
    missing = [name for name in (*needs(design, match), "unet", "vae") if name not in parts]
    if missing:
        what = f"has no {' and no '.join(missing)}, and a diffusers folder has every part"
        raise UnsupportedModel(header.path, what, "merge it with a model that has them, or keep it as a single file")
    weights: dict[str, Mapping[str, Pieces]] = {}
    used: set[str] = set()
    shapes: dict[str, Shape] = {}
    for name, part in parts.items():
        naming = "transformers" if isinstance(part.shape, TextShape) else "diffusers"
        shapes[name] = replace(part.shape, naming=naming)
        weights[f"{name}/{weights_file(part.shape)}"] = _moved(name, part, shapes[name], used)
    size = defaults(header, match, design)["size"][0]
    files = folder_files(design.id, match, shapes, size) | _own_files(header)
    notes = []
    for name, part in parts.items():
        if unread := {stored for stored in header.tensors if stored.startswith((*idle(part), "\0"))}:
            used |= unread
            notes.append(
                f"{name}: {len(unread)} tensors that nothing reads are left out, as a folder has no place for them"
            )
    if match.guess:
        told = match.dimensions["prediction"]
        notes.append(f"nothing in the file says what it predicts: the folder's scheduler is set to {told}, as it seems")
    return Relayout(weights, files, _MODEL_FORMAT, _left(header, used), tuple(notes))


def _own_files(header: Header) -> dict[str, bytes]:
    """The tokenizers of a model that is a folder already: they may have words of their own."""
    if header.format != "diffusers":
        return {}
    return {
        f"{folder.name}/{file.name}": file.read_bytes()
        for folder in sorted(header.path.glob("tokenizer*"))
        for file in sorted(folder.iterdir())
        if file.suffix in (".json", ".txt") and file.is_file()
    }


def _moved(name: str, part: Part, wanted: Shape, used: set[str]) -> dict[str, Pieces]:
    """The tensors of one network under the names of another file, without its prefix; what they take joins `used`."""
    find, place = source_of(part.shape), source_of(wanted)
    moved: dict[str, dict[int, TensorInfo]] = {}
    missing = []
    for ours in names_of(part.shape):
        source = find(ours)
        stored = stored_name(part.header, part.prefix + source.name)
        if stored is None:
            missing.append(part.prefix + source.name)
            continue
        used.add(stored)
        target = place(ours)
        moved.setdefault(target.name, {})[target.third or 0] = stow(target, view(source, part.header.tensors[stored]))
    if missing:
        raise incomplete(part.header, name, missing)
    return {target: tuple(pieces[third] for third in sorted(pieces)) for target, pieces in moved.items()}


def _add_idle_block(part: Part, prefix: str, tensors: dict[str, Pieces], used: set[str]) -> Iterator[str]:
    """SD 2's encoder has a block that nothing reads. A file's own stays; a folder's lacks it, and gets a copy of the
    last one, so that programs which count blocks, or load strictly, find what they expect."""
    assert isinstance(part.shape, TextShape)
    layers = part.shape.layers
    beginnings = tuple(idle(part))
    kept = [name for name in part.header.tensors if beginnings and name.startswith(beginnings)]
    for name in kept:
        tensors[prefix + name.removeprefix(part.prefix)] = (part.header.tensors[name],)
        used.add(name)
    last, unread = f"{prefix}transformer.resblocks.{layers - 1}.", f"{prefix}transformer.resblocks.{layers}."
    if not any(name.startswith(unread) for name in tensors) and layers % 2:
        copied = {name.replace(last, unread): pieces for name, pieces in tensors.items() if name.startswith(last)}
        tensors |= copied
        yield f"block {layers} of the text encoder, which nothing reads, is a copy of block {layers - 1}"


def _flags(design: Design, header: Header, match: Match) -> dict[str, Pieces]:
    """The empty tensors by which single files of SD XL say that they predict v, and that they were trained to noise."""
    flags: dict[str, Pieces] = {name: (header.tensors[name],) for name in FLAGS if name in header.tensors}
    nothing = TensorInfo("F32", (0,), header.path, 0, 0)
    if design.id == "sdxl" and match.dimensions["prediction"] == V:
        flags.setdefault("v_pred", (nothing,))
    if match.dimensions["zero_snr"]:
        flags.setdefault("ztsnr", (nothing,))
    return flags


def _left(header: Header, used: set[str]) -> tuple[str, ...]:
    return tuple(name for name in header.tensors if name not in used and not IGNORED.search(name))


# --- what training leaves --------------------------------------------------------------------------------------------


def averages(header: Header, match: Match) -> dict[str, str]:
    """The tensors of which a running average is in the file, beside them or alone, with the name of the average."""
    found = {}
    for part in parts_of(header, match).values():
        find = source_of(part.shape)
        for ours in names_of(part.shape):
            name = part.prefix + find(ours).name
            if (average := average_name(name)) in header.tensors:
                found[name] = average
    return found


def leftovers(header: Header) -> frozenset[str]:
    """What training and other programs leave in a checkpoint: averages, losses, the noise schedule."""
    return frozenset(name for name in header.tensors if IGNORED.search(name) and not _READ.search(name))


# What our networks have no place for, though it tells something, or other programs ask for it.
_READ = re.compile(r"(^|\.)(v_pred|ztsnr|scale_factor|logit_scale|position_ids)$")


# --- a VAE -----------------------------------------------------------------------------------------------------------


def vae_tensors(header: Header) -> dict[str, Pieces]:
    """The tensors of a VAE, a file's own or a model's, under the names of a single file; none if it holds no VAE."""
    found = find_vae(header)
    if found is None and (alone := read_vae(header.under(""))):
        found = "", alone
    if found is None:
        return {}
    prefix, shape = found
    target, naming = SINGLE_FILE["sd1"]["vae"]
    moved = _moved("vae", Part(header, prefix, shape, 1.0), replace(shape, naming=naming), set())
    return {target + name: pieces for name, pieces in moved.items()}


# --- blocks with weights of their own --------------------------------------------------------------------------------

BASE = "BASE"
_BLOCK = re.compile(
    r"model\.diffusion_model\.(?:(input|output)_blocks\.(\d+)|(middle_block|time_embed|label_emb|out))\."
)


def blocks(match: Match) -> tuple[str, ...]:
    """`BASE`, `IN00` ... `M00` ... `OUT11`, as block weights are written; BASE is all that is not in the UNet."""
    unet = _unet_of(match)
    incoming = sum(len(level) + 1 for level in unet.down)
    outgoing = sum(map(len, unet.up))
    return (BASE, *(f"IN{i:02}" for i in range(incoming)), "M00", *(f"OUT{i:02}" for i in range(outgoing)))


def _unet_of(match: Match) -> UnetShape:
    shape = UnetShape(**match.dimensions["unet"])
    return replace(shape, down=tuple(map(tuple, shape.down)), up=tuple(map(tuple, shape.up)))


def block_of(match: Match, name: str) -> str:
    """The block of a tensor of a single file. What goes into all blocks counts with the first, `out` with the last."""
    found = _BLOCK.match(name)
    if not found:
        return BASE
    if found[1]:
        return f"{'IN' if found[1] == 'input' else 'OUT'}{int(found[2]):02}"
    if found[3] == "middle_block":
        return "M00"
    return blocks(match)[-1] if found[3] == "out" else "IN00"
