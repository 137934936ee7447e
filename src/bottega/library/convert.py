"""Writes a model anew: as safetensors or as a folder, in another dtype, without what training left in it.

Nothing is held but a few blocks, whatever the size of the model. What was written is read back and compared with the
source, read once more and cast once more, while the disk takes it in; only then it gets its name. That proves that the
file which the system holds says what the source says, under the right names. Whether the disk keeps it is the disk's
affair: its errors are heard, as the file is synced before it is named.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from bottega.errors import BottegaError, FileError, SaveError
from bottega.formats import read_header
from bottega.formats.atomic import atomic, atomic_folder, remove_stale, settle_new
from bottega.formats.header import BYTES_OF_DTYPE, Header, shown
from bottega.formats.safetensors import file_order, file_size, write_stream
from bottega.library.contents import ELEMENTS, Reader, ahead, dtype_of, shape_of
from bottega.library.disk import FOLDER_MARK, MODEL_SUFFIXES
from bottega.spec import Anatomy, Match, Pieces, Relayout
from bottega.version import __version__

DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "fp8": "F8_E4M3"}
FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
DENOISERS = ("unet", "transformer", "diffusion_model")  # the parts whose matrices may be float8
TOO_SENSITIVE = ("vae", "embedding", "upscaler")  # kinds that float8 ruins
_SCALED = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale)$")
# What trainers of any kind of model leave beside it.
_LEFTOVERS = re.compile(r"^(model_ema|ema|optimizer(_states?)?|lr_schedulers?|loss)\.")

Told = Callable[[str, int, int], None]  # (phase, bytes done, bytes in all)


@dataclass(frozen=True)
class Target:
    """A tensor to be written: its dtype, and the stored tensors that make it."""

    dtype: str
    pieces: Pieces

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return shape_of(self.pieces)


Plan = Mapping[str, Mapping[str, Target]]  # by file and name; the file "" is the destination itself


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
    check_destination(header, destination, wish, layout)
    remove_stale(destination.parent)
    known, pruned = _chosen(header, wish, anatomy)
    plan, told_by_family = _laid_out(known, match, anatomy, layout)
    targets = {file: _with_dtypes(known, tensors, wish.dtype, match) for file, tensors in plan.weights.items()}
    metadata = {**_metadata(header, wish), **plan.metadata}
    check_room(destination, targets, metadata)
    write(destination, targets, plan.files, metadata, told, force=wish.force)
    sizes: dict[str, int] = {}
    for target in (target for tensors in targets.values() for target in tensors.values()):
        sizes[target.dtype] = sizes.get(target.dtype, 0) + target_bytes(target)
    return Converted(
        path=destination,
        tensors=sum(map(len, targets.values())),
        bytes=sum(sizes.values()),
        dtypes=sizes,
        pruned=pruned,
        left=plan.left,
        notes=told_by_family,
    )


def layout_of(destination: Path) -> str:
    """The layout that a destination's name asks for."""
    suffix = destination.suffix.lower()
    if suffix == ".safetensors":
        return "single"
    if suffix in MODEL_SUFFIXES:
        raise FileError(destination, f"{suffix} is not written", "name a .safetensors, or a folder")
    return "diffusers"


def check_destination(header: Header, destination: Path, wish: Wish, layout: str) -> None:
    """Raise FileError where writing would replace what must not be."""
    source = header.path
    if not destination.parent.is_dir():
        raise FileError(destination, "its folder is not there", "make it first")
    if not os.path.lexists(destination):
        if source.is_dir() and destination.resolve().is_relative_to(source.resolve()):
            raise FileError(destination, "it would lie in the model that is read", "choose a place outside of it")
        return
    if destination.exists() and (
        destination.samefile(source) or source.resolve().is_relative_to(destination.resolve())
    ):
        raise FileError(destination, "it is the source itself, or holds it", "choose another name")
    if not wish.force:
        raise FileError(destination, "there is something of that name", "choose another, or use --force to replace it")
    if (layout == "diffusers") != destination.is_dir():
        kind = "a folder" if destination.is_dir() else "a file"
        raise FileError(destination, f"it is {kind}, and would not be replaced by its like", "choose another name")
    if destination.is_dir() and not (destination / FOLDER_MARK).is_file():
        raise FileError(destination, "this folder is no model, so it is not replaced", "choose another name")


# --- what is written -------------------------------------------------------------------------------------------------


def _chosen(header: Header, wish: Wish, anatomy: Anatomy | None) -> tuple[Header, int]:
    """The header with the tensors that are wanted, and how many were left out."""
    tensors = dict(header.tensors)
    if wish.ema:
        averages = anatomy.averages(header) if anatomy else {}
        if not averages:
            raise FileError(header.path, "holds no running averages that belong to weights", "convert it without --ema")
        tensors |= {name: header.tensors[average] for name, average in averages.items()}
    if wish.prune or wish.ema:
        dropped = {name for name in header.tensors if _LEFTOVERS.match(name)}
        dropped |= anatomy.leftovers(header) if anatomy and wish.prune else set()
        averages = anatomy.averages(header) if anatomy else {}
        only = {average: name for name, average in averages.items() if name not in header.tensors}
        tensors |= {name: header.tensors[average] for average, name in only.items()}
        tensors = {name: info for name, info in tensors.items() if name not in dropped}
    return replace(header, tensors=tensors), len(header.tensors) - len(tensors)


def _laid_out(
    header: Header, match: Match | None, anatomy: Anatomy | None, layout: str
) -> tuple[Relayout, tuple[str, ...]]:
    """Which stored tensors go where. Within one layout names stay as they are; another one is the family's affair."""
    if layout == "single" and header.format != "diffusers":
        return Relayout({"": {name: (info,) for name, info in header.tensors.items()}}), ()
    if match is None or anatomy is None:
        what = "is of no family whose layouts are known, so it stays in the one that it has"
        raise FileError(header.path, what, "convert it to a .safetensors" if layout == "diffusers" else "")
    plan = anatomy.relayout(header, match, layout)
    return plan, plan.notes


def _with_dtypes(header: Header, tensors: Mapping[str, Pieces], dtype: str, match: Match | None) -> dict[str, Target]:
    """The tensors with the dtypes that are wished for; whole numbers stay what they are."""
    targets = {name: Target(dtype_of(pieces), pieces) for name, pieces in tensors.items()}
    if dtype == "keep":
        return targets
    if scaled := next((name for name in header.tensors if _SCALED.search(name)), None):
        what = f"has float8 weights with scales of their own ({shown(scaled)})"
        raise FileError(header.path, what, "keep its dtype, or get it in float16")
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
        raise FileError(header.path, f"a model of kind {match.kind} loses too much in float8", "use --dtype fp16")
    parts = match.parts if match else {}
    prefixes = tuple(prefix for part, prefix in parts.items() if part in DENOISERS)
    if parts and not prefixes:
        raise FileError(header.path, "has no part for whose weights float8 is good enough", "use --dtype fp16")
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
    """What a model says of itself; a folder as a whole says nothing, so its first file is asked."""
    if header.format != "diffusers" or not header.tensors:
        return header.metadata
    return read_header(next(iter(header.tensors.values())).file).metadata


def target_bytes(target: Target) -> int:
    """How many bytes a tensor will take."""
    return int(prod(target.shape) * BYTES_OF_DTYPE[target.dtype])


# --- writing and checking --------------------------------------------------------------------------------------------


def check_room(destination: Path, plan: Plan, metadata: Mapping[str, str]) -> None:
    """Raise SaveError if the disk has no room for what is planned."""
    needed = sum(file_size(destination / file, declared(targets), metadata) for file, targets in plan.items())
    free = shutil.disk_usage(destination.parent).free
    if free < needed:
        what = f"{destination}: {free / 1e9:.2f} GB are free, and it takes {needed / 1e9:.2f}"
        raise SaveError(what, "free some space, or choose another disk")


def declared(targets: Mapping[str, Target]) -> list[tuple[str, str, tuple[int, ...]]]:
    """The tensors as a safetensors file declares them, in the order of their bytes."""
    return file_order((name, target.dtype, target.shape) for name, target in targets.items())  # type: ignore[return-value]


def write(
    destination: Path,
    plan: Plan,
    files: Mapping[str, bytes],
    metadata: Mapping[str, str],
    told: Told,
    *,
    force: bool = False,
) -> None:
    """Write a file, or a folder of several, and check it against the source before it gets its name."""
    try:
        if "" in plan:
            _write_file(destination, plan[""], metadata, told, os.replace if force else settle_new)
        elif force and destination.is_dir():
            replaced = destination.with_name(f"{destination.name}.replaced")
            with atomic_folder(destination, replaced) as folder:
                _write_folder(folder, plan, files, metadata, told)
            shutil.rmtree(replaced)
        else:
            with atomic_folder(destination) as folder:
                _write_folder(folder, plan, files, metadata, told)
    except FileExistsError:
        raise FileError(destination, "another program was quicker to take this name", "choose another") from None


def _write_folder(
    folder: Path, plan: Plan, files: Mapping[str, bytes], metadata: Mapping[str, str], told: Told
) -> None:
    sizes = {file: sum(map(target_bytes, targets.values())) for file, targets in plan.items()}
    before, total = 0, sum(sizes.values())
    for file, targets in plan.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_file(path, targets, metadata, partial(_shifted, told, before, total), os.replace)
        before += sizes[file]
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as plain:
            plain.write(content)


def _shifted(told: Told, before: int, total: int, phase: str, done: int, _: int) -> None:
    told(phase, before + done, total)


def _write_file(
    path: Path,
    targets: Mapping[str, Target],
    metadata: Mapping[str, str],
    told: Told,
    settle: Callable[[Path, Path], None],
) -> None:
    rows = declared(targets)
    total = sum(map(target_bytes, targets.values()))
    with Reader() as reader, closing(ahead(contents(reader, targets, [name for name, _, _ in rows]))) as made:

        def check(written: Path) -> None:
            verify(written, targets, metadata, partial(told, "checking"))

        write_stream(path, rows, _counted(made, partial(told, "writing"), total), metadata, check=check, settle=settle)


Chunks = Generator[tuple[str, memoryview]]


def contents(reader: Reader, targets: Mapping[str, Target], order: Sequence[str]) -> Chunks:
    """The bytes of the targets in this order, block by block, read from the source and cast."""
    casts: dict[tuple[str, str], Callable[[memoryview], memoryview]] = {}
    for name in order:
        target = targets[name]
        stored = dtype_of(target.pieces)
        blocks = reader.blocks(target.pieces)
        if stored == target.dtype:
            yield from ((name, block) for block in blocks)
            continue
        if (stored, target.dtype) not in casts:
            from bottega.runtime.casts import Cast, OutOfRange

            casts[stored, target.dtype] = Cast(stored, target.dtype, ELEMENTS)
        cast = casts[stored, target.dtype]
        try:
            yield from ((name, cast(block)) for block in blocks)
        except OutOfRange as error:
            what = f"{shown(name)} has {error}, and {target.dtype} holds none so large"
            raise FileError(target.pieces[0].file, what, "use --dtype bf16") from None


def _counted(chunks: Iterable[tuple[str, memoryview]], told: Callable[[int, int], None], total: int) -> Chunks:
    done = 0
    for name, chunk in chunks:
        yield name, chunk
        done += len(chunk)
        told(done, total)


def verify(
    written: Path, targets: Mapping[str, Target], metadata: Mapping[str, str], told: Callable[[int, int], None]
) -> None:
    """Compare a file that was written with its source, to the bit, by what its own header says of where things are.

    Raises BottegaError if anything differs: a name, a shape, a dtype, a number, a word of the metadata.
    """
    header = read_header(written)
    asked = {name: (target.dtype, target.shape) for name, target in targets.items()}
    if {
        name: (info.dtype, info.shape) for name, info in header.tensors.items()
    } != asked or header.metadata != metadata:
        raise _differs("its header")
    total, done = header.bytes, 0
    order = list(header.tensors)
    with Reader() as source, Reader() as back, closing(ahead(contents(source, targets, order))) as expected:
        for name in order:
            for block in back.blocks((header.tensors[name],)):
                given, wanted = next(expected, ("", memoryview(b"")))
                # A bytearray compares its bytes at once, a memoryview one at a time.
                if given != name or bytearray(block) != wanted:
                    raise _differs(f"tensor {shown(name)}")
                done += len(block)
                told(done, total)


def _differs(what: str) -> BottegaError:
    return BottegaError(
        f"what was written is not what was read ({what}), so it was thrown away",
        "if the source was not changed meanwhile, this machine's memory or disk is faulty: check them, then try again",
    )
