"""Makes one model of two or three, of a model and its adapters, or with another VAE.

Every tensor is computed in float32, block by block, and rounded once. Models are compared under the names of their
family's single file, however each of them is stored. What was written is read back and compared with what was computed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.errors import BottegaError, FileError
from bottega.formats.atomic import remove_stale, settle_new
from bottega.formats.garbage import uncollected
from bottega.formats.header import Packed, TensorInfo, shown
from bottega.library.contents import ELEMENTS, HELD, Reader, dtype_of, shape_of
from bottega.library.convert import FLOATS, LEFTOVERS, refuse_scaled, with_dtypes
from bottega.library.merge_recipe import (
    NEEDS_C,
    TAKES_C,
    Parent,
    Wish,
    incoming,
    recipe_metadata,
    weight_of,
    wrong_count,
    wrong_weights,
)
from bottega.library.writing import (
    Chunks,
    Copier,
    Sources,
    Target,
    Told,
    cast_by_torch,
    check_destination,
    check_room,
    clipped_note,
    roomier,
    taken,
    target_bytes,
    write_file,
)
from bottega.runtime.sums import SUMMED, WeightedSum, one_thread_here
from bottega.spec import Patch, Patches, Pieces, Relayout

if TYPE_CHECKING:
    import torch

    from bottega.runtime.casts import Cast

UNSCALED = "get it in float16"  # what to do with a model of scaled float8
_WIDE = {9: "an inpainting model", 8: "one that follows instructions"}  # what takes more channels than a latent has


@dataclass(frozen=True)
class Merged:
    """What was written. `missing` are tensors that not all models have, so that they were taken from the one that has
    them; `left` are tensors of adapters that had no place, by adapter."""

    path: Path
    tensors: int
    bytes: int
    dtypes: Mapping[str, int]
    missing: tuple[str, ...]
    left: Mapping[str, tuple[str, ...]]
    patched: Mapping[str, int]
    notes: tuple[str, ...]


def merge(
    models: Sequence[Parent],
    destination: Path,
    wish: Wish,
    *,
    vae: Parent | None = None,
    loras: Sequence[tuple[Parent, float]] = (),
    told: Told = lambda phase, done, total: None,
) -> Merged:
    """Merge models A, B and C, as many as there are; then take the VAE from `vae`, and add the LoRA.

    Raises FileError before anything is read if they don't fit each other.
    """
    first = models[0]
    parents = [*models, *([vae] if vae else []), *(lora for lora, _ in loras)]
    if destination.suffix.lower() != ".safetensors":
        raise FileError(destination, "a merge is written as .safetensors", "name it so, and convert it afterwards")
    check_destination([parent.header.path for parent in parents], destination, folder=False, force=wish.force)
    check_fit(models, wish)
    for added in parents[len(models) :]:
        refuse_scaled(added.header, UNSCALED)
    before = Sources(parent.header for parent in parents)
    plans = [_relaid(model) for model in models]
    beside, training = _beside(first, plans[0]), _training(first)
    kept = {name: pieces for name, pieces in beside.items() if name not in training}
    named = [{**_of_both(kept, model, plan), **plan.weights[""]} for model, plan in zip(models, plans, strict=True)]
    tensors = dict(named[0])
    tensors |= {name: pieces for other in named[1:2] for name, pieces in other.items() if name not in tensors}
    baked = _vae_of(vae, first, tensors) if vae else {}
    targets = with_dtypes(first.header, tensors, wish.dtype, first.match)
    if vae:  # which is no matter for float8
        targets |= with_dtypes(vae.header, baked, "fp16" if wish.dtype == "fp8" else wish.dtype, None)
    sources = {name: _sources(name, named, targets[name]) for name in targets if name not in baked}
    missing = tuple(name for name, them in sources.items() if not them and targets[name].dtype in FLOATS)
    merging = {name: them for name, them in sources.items() if them and len(models) > 1}
    weight = weight_of(wish, len(models))
    weights = _weights(first, wish, weight, targets)
    alone = {name: it for name, them in merging.items() if (it := _alone(wish, weights(name), them))}
    targets |= {name: replace(targets[name], pieces=it) for name, it in alone.items()}
    merging = {name: them for name, them in merging.items() if name not in alone}
    work = MergeWork(targets, merging, wish, weights)
    left, counts = {}, {}
    notes = [*_notes(models)]
    for lora, strength in loras:
        found = _add_patches(work.patches, lora, strength, first, targets)
        left[lora.name], counts[lora.name] = found.left, len(found.patches)
        notes += [f"{lora.name}: {note}" for note in found.notes]

    metadata = partial(recipe_metadata, models, destination, wish, weight, vae, loras)
    sealed = cache(lambda: metadata(lambda parent: parent.digits()))
    unsealed = metadata(lambda parent: hashlib.sha256(os.fsencode(parent.header.path)).hexdigest())  # of equal length
    remove_stale(destination.parent)  # which may be what fills the disk
    check_room(destination, {"": targets}, unsealed)
    try:
        settle = os.replace if wish.force else settle_new
        write_file(destination, work, unsealed, told, settle, before, seal=sealed)
    except FileExistsError:
        raise taken(destination) from None
    sizes: dict[str, int] = {}
    for target in targets.values():
        sizes[target.dtype] = sizes.get(target.dtype, 0) + target_bytes(target)
    return Merged(
        path=destination,
        tensors=len(targets),
        bytes=sum(sizes.values()),
        dtypes=sizes,
        missing=missing,
        left=left,
        patched=counts,
        notes=(*notes, *_left_notes(models, plans, targets), *work.notes()),
    )


# --- what fits -------------------------------------------------------------------------------------------------------


def check_fit(models: Sequence[Parent], wish: Wish) -> None:
    """Raise FileError if these models can't be merged in this way."""
    first, *others = models
    if wrong := wrong_count(wish.method, len(models)):
        raise FileError((models[2] if len(models) > 2 else first).header.path, *wrong)
    for model in models:
        refuse_scaled(model.header, UNSCALED)
        if model.match.kind == "lora":
            what = "is a LoRA, whose products can't be merged number by number"
            raise FileError(model.header.path, what, "merge it into a checkpoint, as a LoRA that is added")
    for other in others:
        if (first.recogniser, first.match.kind) != (other.recogniser, other.match.kind):
            theirs, ours = (each.recogniser or "no known family" for each in (other, first))
            what = f"is a {other.match.kind} of {theirs}, and {first.name} a {first.match.kind} of {ours}"
            raise FileError(other.header.path, what, "merge models of one family")
        _check_variant(first, other)


def _check_variant(first: Parent, other: Parent) -> None:
    ours, theirs = (incoming(each) for each in (first, other))
    if theirs in _WIDE and ours != theirs:
        what = f"is {_WIDE[theirs]}, and {first.name} is not"
        raise FileError(other.header.path, what, "name the one that takes more first")
    if (first.match.variant == "refiner") != (other.match.variant == "refiner"):
        raise FileError(other.header.path, f"is no {first.match.variant} as {first.name} is", "merge two of a kind")
    predictions = [each.match.dimensions.get("prediction") for each in (first, other)]
    if predictions[0] != predictions[1] and not (first.match.guess or other.match.guess):
        what = f"predicts {predictions[1]}, and {first.name} {predictions[0]}"
        raise FileError(other.header.path, what, "merge models that predict the same: others give only noise")


def named_tensors(model: Parent) -> Mapping[str, Pieces]:
    """A model's tensors under the names of its family's single file; of an unknown family, under their own."""
    return _relaid(model).weights[""]


def _relaid(model: Parent) -> Relayout:
    if model.anatomy is None:
        return Relayout({"": {name: (info,) for name, info in model.header.tensors.items()}})
    return model.anatomy.relayout(model.header, model.match, "single")


def _beside(model: Parent, plan: Relayout) -> dict[str, Pieces]:
    """What a single file holds beside its family's networks; a folder's names mean nothing in a single file."""
    if model.header.format == "diffusers":
        return {}
    placed = {_place(info) for pieces in plan.weights[""].values() for info in pieces}
    return {
        name: (info,)
        for name, info in model.header.tensors.items()
        if name not in plan.weights[""] and _place(info) not in placed
    }


def _place(info: TensorInfo) -> tuple[Path, Packed | None, int]:
    return info.file, info.packed, info.start


def _training(model: Parent) -> Set[str]:
    """What training left in a model, by name."""
    left = {name for name in model.header.tensors if LEFTOVERS.match(name)}
    return left | model.anatomy.leftovers(model.header) if model.anatomy else left


def _of_both(kept: Mapping[str, Pieces], model: Parent, plan: Relayout) -> dict[str, Pieces]:
    """What a model holds beside its networks and the merge keeps, as far as there are tensors of such shapes in the
    first one. Those of a LoRA are its alone: of two, numbers that are merged one by one would be of none."""
    return {
        name: pieces
        for name, pieces in _beside(model, plan).items()
        if name in kept
        and (pieces == kept[name] or (shape_of(pieces) == shape_of(kept[name]) and not name.startswith("lora_")))
    }


def _sources(name: str, named: Sequence[Mapping[str, Pieces]], target: Target) -> tuple[Pieces, ...]:
    """The tensors that are merged into one, of every model; none if one model lacks it, or it holds no numbers."""
    if target.dtype not in FLOATS or any(name not in tensors for tensors in named):
        return ()
    sources = tuple(tensors[name] for tensors in named)
    first, *others = map(shape_of, sources)
    for other, pieces in zip(others, sources[1:], strict=True):
        if other != first and not _is_wider(first, other):
            what = f"{shown(name)} is {_times(other)}, and {_times(first)} in the first model"
            raise FileError(pieces[0].file, what, "merge models of one size")
    return sources


def _alone(wish: Wish, weight: float, sources: Sequence[Pieces]) -> Pieces | None:
    """The tensor that is all of a merge, by its weight: it is copied, as what counts nothing may be NaN."""
    if weight == 0 and (len(sources) == 2 or wish.method in NEEDS_C):
        return sources[0]
    if weight == 1 and wish.method not in TAKES_C and shape_of(sources[0]) == shape_of(sources[1]):
        return sources[1]
    return None


def _is_wider(first: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the first is a convolution that takes the other's channels, and those of a mask or a picture."""
    if len(first) != 4 or len(other) != 4 or first[1] not in _WIDE or other[1] != 4:
        return False
    return first[:1] + first[2:] == other[:1] + other[2:]


def _vae_of(vae: Parent, first: Parent, tensors: Mapping[str, Pieces]) -> Mapping[str, Pieces]:
    found = first.anatomy.vae(vae.header) if first.anatomy else {}
    if not found:
        raise FileError(vae.header.path, f"holds no VAE for {first.name}", "name a VAE, or a checkpoint that has one")
    for name, pieces in found.items():
        if name in tensors and shape_of(tensors[name]) != shape_of(pieces):
            raise FileError(vae.header.path, f"its VAE is of another size than that of {first.name} ({shown(name)})")
    return found


def _weights(first: Parent, wish: Wish, weight: float, targets: Mapping[str, Target]) -> Callable[[str], float]:
    """The weight of each tensor: one for all, or its block's."""
    if not wish.weights:
        return lambda name: weight
    anatomy, match = first.anatomy, first.match
    if anatomy is None:
        raise FileError(
            first.header.path, "its family has no blocks with weights of their own", "give one weight for all of it"
        )
    blocks = anatomy.blocks(match)
    if wrong := wrong_weights(len(wish.weights), blocks):
        raise FileError(first.header.path, *wrong)
    given = wish.weights if len(wish.weights) == len(blocks) else (weight, *wish.weights)
    by_block = dict(zip(blocks, given, strict=True))
    base = by_block[blocks[0]]  # also of blocks beside those that the family has
    by_name = {name: by_block.get(anatomy.block(match, name), base) for name in targets}
    return lambda name: by_name[name]


def _add_patches(
    patches: dict[str, list[tuple[Patch, float]]],
    lora: Parent,
    strength: float,
    first: Parent,
    targets: Mapping[str, Target],
) -> Patches:
    """Put a LoRA's changes to the tensors that they change; answers with all of them."""
    path = lora.header.path
    if lora.family not in ("", first.recogniser) and lora.match.kind == "lora" and not lora.match.guess:
        raise FileError(path, f"is for {lora.family}, and {first.name} is {first.recogniser}", "use one that fits")
    if first.anatomy is None:
        raise FileError(path, f"{first.name} is of no family that takes LoRA", "merge it into a Stable Diffusion model")
    found = first.anatomy.patches(first.header, first.match, lora.header)
    used = sum(len(patch.numbers) for patch in found.patches)
    if len(found.left) > used:
        what = f"is no LoRA for {first.name}: {len(found.left)} of its {used + len(found.left)} tensors"
        raise FileError(path, f"{what} have no place in it ({shown(found.left[0])})", "use one that fits")
    for patch in found.patches:
        _check_patch(path, patch)
        if patch.place.tensor in targets:
            patches.setdefault(patch.place.tensor, []).append((patch, strength))
    return found


def _check_patch(path: Path, patch: Patch) -> None:
    """What can be told of the shapes without computing anything: a LoRA for another model is refused at once."""
    numbers, place = patch.numbers, patch.place
    if "up" in numbers and "down" in numbers and "mid" not in numbers:
        made: Sequence[int] = (numbers["up"].shape[0], *numbers["down"].shape[1:])
    elif whole := next((numbers[role] for role in ("diff", "diff_b", "w_norm", "b_norm") if role in numbers), None):
        made = whole.shape
    else:
        return
    if prod(made) != prod(place.shape):
        what = f"changes a weight of {_times(made)}, where the model's {place.name} is {_times(place.shape)}"
        raise FileError(path, what, "it is for another model: use one that fits")


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _left_notes(models: Sequence[Parent], plans: Sequence[Relayout], targets: Mapping[str, Target]) -> Iterator[str]:
    """What of each model has no place in the merge: of the first one only what training left, or a folder's."""
    for model, plan in zip(models, plans, strict=True):
        dropped = _training(model) if model is models[0] else frozenset()
        training = [name for name in _beside(model, plan) if name in dropped]
        if left := [name for name in dict.fromkeys([*plan.left, *training]) if name not in targets]:
            yield f"{model.name}: left out, as they have no place in the merge: {_some(left)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(shown, names[:3])) + more


def _notes(models: Sequence[Parent]) -> tuple[str, ...]:
    notes = []
    predictions = {model.match.dimensions.get("prediction") for model in models}
    if len(predictions) > 1:
        notes.append("one of the models seems to predict noise and the other v: if that is so, the merge is of no use")
    return tuple(notes)


# --- the work --------------------------------------------------------------------------------------------------------


class MergeWork:
    """Computes the tensors of a merge. `sources` are those to merge by name; all others are copied."""

    computes = True

    def __init__(
        self,
        targets: Mapping[str, Target],
        sources: Mapping[str, tuple[Pieces, ...]],
        wish: Wish,
        weight_of: Callable[[str], float],
    ) -> None:
        self.targets = targets
        self.patches: dict[str, list[tuple[Patch, float]]] = {}
        self._sources, self._wish, self._weight_of = sources, wish, weight_of
        self._spoiled: dict[str, None] = {}
        self._clipped: Mapping[str, int] = {}

    def notes(self) -> Sequence[str]:
        """What is to be known of the numbers that were computed."""
        clipped = clipped_note(self._clipped)
        if not self._spoiled:
            return clipped
        names = _some(list(self._spoiled))
        return (f"numbers that are not finite (NaN) are in {names}, as in what was merged", *clipped)

    def contents(self, order: Sequence[str]) -> Chunks:
        """The bytes of the merge's tensors."""
        with ExitStack() as open_now:
            smith = open_now.enter_context(Smith())
            self._clipped = smith.copier.clipped
            if any(map(self._needs_torch, order)):
                with uncollected():  # importing torch takes a tenth longer otherwise
                    from bottega.runtime.casts import one_thread
                open_now.enter_context(one_thread())
            elif self._sources:
                open_now.enter_context(one_thread_here())
            for name in order:
                yield from ((name, chunk) for chunk in self._tensor(smith, name))

    def _needs_torch(self, name: str) -> bool:
        if name in self._sources or name in self.patches:
            return name in self.patches or not self._is_plain(name)
        target = self.targets[name]
        return cast_by_torch(dtype_of(target.pieces), target.dtype)

    def _tensor(self, smith: Smith, name: str) -> Iterator[memoryview]:
        target, sources, patches = self.targets[name], self._sources.get(name), self.patches.get(name)
        if not sources and not patches:
            return smith.copier.chunks(name, target)
        if patches:
            return smith.store(self._heard(name, self._patched(smith, name, patches)), name, target)
        if self._is_plain(name):
            return self._summed(smith, name)
        return smith.store(self._heard(name, self._blend(smith, name)), name, target)

    def _heard(self, name: str, blocks: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The blocks of a tensor, of which it is remembered if there is a NaN in one."""
        for block in blocks:
            if len(block) and block.max().isnan():  # a tenth of the time that isfinite takes
                self._spoiled[name] = None
            yield block

    def _is_plain(self, name: str) -> bool:
        """Whether this is a sum of two equal tensors that can't become too large: most tensors of most merges are."""
        target = self.targets[name]
        return (
            self._wish.method == "weighted"
            and target.dtype in SUMMED
            and all(
                (dtype_of(pieces), shape_of(pieces)) == (target.dtype, target.shape) for pieces in self._sources[name]
            )
            and 0 <= self._weight_of(name) <= 1
        )

    def _summed(self, smith: Smith, name: str) -> Iterator[memoryview]:
        """What storing the blended tensor would give, made in one pass and without importing torch."""
        for made, has_nan in smith.sums(self._sources[name], self.targets[name].dtype, self._weight_of(name)):
            if has_nan:
                self._spoiled[name] = None
            yield made

    def _blend(self, smith: Smith, name: str) -> Iterator[torch.Tensor]:
        """The merged tensor in blocks of float32."""
        from bottega.runtime.blend import WAYS, Share

        wish, sources = self._wish, self._sources[name]
        share = Share(self._weight_of(name), wish.density, wish.seed, name)
        way: Callable[..., Iterator[torch.Tensor]] = WAYS[wish.method]
        shapes = [shape_of(pieces) for pieces in sources]
        if any(shape != shapes[0] for shape in shapes):
            whole = [smith.whole(pieces).reshape(shape) for pieces, shape in zip(sources, shapes, strict=True)]
            theirs = [each[:, :4].reshape(-1) for each in whole]
            (made,) = way(lambda: iter([tuple(theirs)]), share)
            whole[0][:, :4] = made.reshape(whole[0][:, :4].shape)
            return iter([whole[0].reshape(-1)])
        return way(lambda: smith.blocks(sources), share)

    def _patched(self, smith: Smith, name: str, patches: Sequence[tuple[Patch, float]]) -> Iterator[torch.Tensor]:
        """The tensor, merged if there is something to merge, with all adapters added; whole, in float32."""
        import torch

        from bottega.runtime.deltas import patched

        target = self.targets[name]
        if name in self._sources:
            whole = torch.cat([block.clone() for block in self._blend(smith, name)])
        else:
            whole = smith.whole(target.pieces)
        stored = whole.reshape(target.shape)
        for patch, strength in patches:
            place = patch.place
            rows = stored
            if place.third is not None:
                count = stored.shape[0] // 3
                rows = stored.narrow(0, place.third * count, count)
            weight = (rows.T if place.transposed else rows).reshape(place.shape)
            numbers = {role: smith.whole((info,)).reshape(info.shape) for role, info in patch.numbers.items()}
            try:
                changed = patched(weight, numbers, strength, patch.scale, patch.rotation)
            except (ValueError, RuntimeError, KeyError) as error:
                file = next(iter(patch.numbers.values())).file
                raise FileError(file, f"does not fit {place.name}: {error}", "use one that fits") from None
            rows.copy_(changed.T if place.transposed else changed.reshape(rows.shape))
        return iter([whole])


class Smith:
    """The tools of one merge: what copies, a reader for each model, room for what is computed; a context manager."""

    def __init__(self) -> None:
        self.copier = Copier()
        self._readers = [Reader() for _ in range(3)]
        self._casts: dict[str, Cast] = {}
        self._floats: list[torch.Tensor] = []
        self._sums: dict[str, WeightedSum] = {}

    def __enter__(self) -> Smith:
        return self

    def __exit__(self, *_: object) -> None:
        self.copier.close()
        for reader in self._readers:
            reader.close()

    def blocks(self, sources: Sequence[Pieces]) -> Iterator[tuple[torch.Tensor, ...]]:
        """Tensors of several models in equal pieces, in float32."""
        import torch

        from bottega.runtime.weights import DTYPES

        while len(self._floats) < len(sources):
            self._floats.append(torch.empty(ELEMENTS))
        dtypes = [DTYPES[dtype_of(pieces)] for pieces in sources]
        for blocks in self._read(sources):
            made = []
            for block, dtype, room in zip(blocks, dtypes, self._floats, strict=False):
                numbers = torch.frombuffer(block, dtype=dtype)
                made.append(numbers if dtype == torch.float32 else room[: len(numbers)].copy_(numbers))
            yield tuple(made)

    def _read(self, sources: Sequence[Pieces]) -> Iterator[tuple[memoryview, ...]]:
        streams = [reader.blocks(pieces) for reader, pieces in zip(self._readers, sources, strict=False)]
        return zip(*streams, strict=True)

    def whole(self, pieces: Pieces) -> torch.Tensor:
        """All numbers of a tensor in float32, in a row."""
        import torch

        made = torch.empty(prod(shape_of(pieces)))
        at = 0
        for (block,) in self.blocks([pieces]):
            made[at : at + len(block)] = block
            at += len(block)
        return made

    def sums(self, sources: Sequence[Pieces], dtype: str, weight: float) -> Iterator[tuple[memoryview, bool]]:
        """The weighted sum of two tensors of one dtype, block by block as it is stored, and whether a NaN is in it."""
        if dtype not in self._sums:
            self._sums[dtype] = WeightedSum(dtype, ELEMENTS, HELD)
        for a, b in self._read(sources):
            yield self._sums[dtype](a, b, weight)

    @staticmethod
    def raw(numbers: torch.Tensor) -> memoryview:
        """The bytes of a tensor."""
        import torch

        return memoryview(numbers.view(torch.uint8).numpy())

    def store(self, blocks: Iterator[torch.Tensor], name: str, target: Target) -> Iterator[memoryview]:
        """Numbers in float32 as the bytes of the target's dtype."""
        from bottega.runtime.casts import Cast
        from bottega.runtime.tables import OutOfRange

        if target.dtype not in self._casts:
            self._casts[target.dtype] = Cast("F32", target.dtype, ELEMENTS, HELD)
        cast = self._casts[target.dtype]
        before = cast.clipped
        for block in blocks:
            for part in block.split(ELEMENTS):
                try:
                    yield cast.store(part)
                except OutOfRange as error:
                    what = f"the merge has {error} in {shown(name)}, and {target.dtype} holds none so large"
                    raise BottegaError(what, roomier(target.dtype)) from None
        if cast.clipped > before:
            self.copier.clipped[name] = cast.clipped - before
